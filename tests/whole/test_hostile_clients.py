"""Odd, broken and hostile clients at two workers with Redis: each gets a clear answer, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest, new_key
from redis_process import RedisProcess
from running import KEY
from server_process import ADMIN, Server
from whole.hostile_requests import MESSAGES, odd_bodies, odd_headers, odd_http, odd_keys

pytestmark = pytest.mark.anyio
EXPIRED = new_key()
SECRETS = [KEY, EXPIRED, ADMIN, "sk-hostile-openai-canary", "sk-hostile-anthropic-canary"]
_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
SPOKEN = {505: "another version of HTTP"}
"""Statuses from 500 on that are the client's doing."""


def environment(upstream: str, redis: RedisProcess) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": SECRETS[3],
        "ANTHROPIC_API_KEY": SECRETS[4],
        "ANTHROPIC_BASE_URL": upstream,
        "GATEWAY_WORKERS": "2",
        "GATEWAY_STORAGE_URI": redis.uri,
        "GATEWAY_ROUTES": json.dumps({"fast": ["openai/gpt-4o"], "claude": ["anthropic/claude-sonnet-4-5"]}),
    }


def with_limits(server: Server) -> None:
    expired = f'{{digest = "{digest(EXPIRED.encode())}", expires = "2020-01-01T00:00:00Z"}}'
    limits = 'requests = "9000/minute"\ntokens = "90000000/minute"\nconcurrency = 90\n'
    server.file.write_text(f'[tenants.acme]\nkeys = ["{digest(KEY.encode())}", {expired}]\n{limits}')


async def answers(port: int, data: bytes) -> bytes:
    """What comes until the server closes, which it must; it may do so before it has taken all of a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(60):
            writer.write(data)
            while piece := await reader.read(65536):
                received += piece
    except ConnectionError as error:
        received = received or repr(error).encode()
    except TimeoutError:
        received = b"still open after " + received
    finally:
        writer.close()
    return received


def faults_of(name: str, data: bytes, answered: bytes) -> list[str]:
    """What is wrong with the answers to one connection."""
    heads = list(_HEAD.finditer(answered))
    if not heads or heads[0].start() != 0:
        return [f"{name}: no answer but {answered[:200]!r}"]
    faults = []
    for head in heads:
        status, body = int(head[1]), answered[head.end() :]
        if status >= 500 and status not in SPOKEN:
            faults.append(f"{name}: {status} {body[:200]!r}")
        elif status >= 400 and not data.startswith(b"HEAD") and not _is_error(body, data):
            faults.append(f"{name}: {status} in no dialect: {body[:200]!r}")
    return faults


def _is_error(body: bytes, data: bytes) -> bool:
    """Whether a body begins with an error in the dialect of the path that was asked."""
    document: Any = json.JSONDecoder().raw_decode(body.decode("utf-8", "replace"))[0]
    error = document.get("error")
    if data.split(b" ", 2)[1:2] == [MESSAGES.encode()]:
        return bool(document.get("type") == "error" and error["type"] and error["message"] and document["request_id"])
    return isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys()


async def test_every_client_has_a_clear_answer_and_nothing_stays_behind(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    requests = odd_http() | odd_headers() | odd_bodies() | odd_keys(EXPIRED)
    async with Simulator().serve() as upstream:
        server = Server(tmp_path / "server", upstream.url, **environment(upstream.url, own_redis))
        with_limits(server)
        with server.run():
            await server.wait_for(2, workers=2)
            many = asyncio.Semaphore(16)

            async def at_once(name: str, data: bytes) -> list[str]:
                async with many:
                    return faults_of(name, data, await answers(server.port, data))

            found = await asyncio.gather(*(at_once(name, data) for name, data in requests.items()))
            calls = (await server.ask("GET", "/v1/health")).json()["metering"]["calls"]
            usage = (await server.ask("GET", "/v1/usage")).json()
            assert (await server.ask("POST", MESSAGES, body={"model": "claude", "max_tokens": 9,
                    "messages": [{"role": "user", "content": "hi"}]})).status_code == 200  # fmt: skip
    assert [fault for faults in found for fault in faults] == []
    assert calls["open"] == 0
    assert [limit["used"] for limit in usage["limits"] if limit["unit"] == "concurrency"] in ([], [0.0])
    log = server.log.read_bytes()
    assert [secret[:12] for secret in SECRETS if secret.encode() in log] == []
    assert b"Traceback" not in log
    assert all(json.loads(line) for line in log.splitlines())
