"""`serve` as its users run it: a process, an environment, a signal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import free_port
from running import KEY

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        yield simulator.url


@contextlib.contextmanager
def serve(upstream: str, port: int, *, _shell: str = 'exec "$@"', **extra: str) -> Iterator[subprocess.Popen[str]]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_"))}
    environment = {
        **kept,
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "OPENAI_API_KEY": "sk-simulated",
        "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [digest(KEY.encode())]}}),
        "GATEWAY_PORT": str(port),
        "GATEWAY_JOURNAL": "off",
        **extra,
    }
    with subprocess.Popen(
        ["/bin/sh", "-c", _shell, "sh", sys.executable, "-m", "gateway_middleware", "serve"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


async def wait_until_it_answers(url: str, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
    raise TimeoutError("serve did not become ready")


async def test_it_needs_one_provider_key_and_ends_at_sigterm(upstream: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serve(upstream, port) as process:
        await wait_until_it_answers(url)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.create(model="gpt-5-mini", messages=ASK)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)

    assert answer.choices
    lines = [json.loads(line) for line in out.splitlines() if '"event":"call"' in line]
    assert any(line["endpoint"] == "chat" and line["tenant"] == "acme" for line in lines)
    assert KEY not in out


async def test_wrong_settings_are_one_line_each_and_a_status(upstream: str) -> None:
    with serve(upstream, free_port(), GATEWAY_ROUTES='{"a": ["nobody/x"]}', GATEWAY_TENANT="x") as process:
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert len(err.strip().splitlines()) == 2
    assert "GATEWAY_ROUTES" in err
    assert "GATEWAY_TENANTS" in err


async def test_without_tenants_it_does_not_start(upstream: str) -> None:
    with serve(upstream, free_port(), GATEWAY_TENANTS="") as process:
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "GATEWAY_OPEN" in err


async def test_open_is_said_loudly(upstream: str) -> None:
    port = free_port()
    with serve(upstream, port, GATEWAY_TENANTS="", GATEWAY_OPEN="true") as process:
        await wait_until_it_answers(f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient(trust_env=False) as client:
            answer: Any = await client.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json={"model": "gpt-5-mini", "messages": ASK}
            )
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)

    assert answer.status_code == 200
    (warning,) = [line for line in map(json.loads, out.splitlines()) if line["event"] == "configuration_warning"]
    assert warning["level"] == "warning"
    assert "every caller is let in" in warning["message"]
    assert err == "", "everything is in the one log"


async def test_many_routes_over_a_dozen_providers(upstream: str) -> None:
    kinds = ("openai", "anthropic", "azure_openai")
    bases = {"openai": f"{upstream}/v1", "anthropic": upstream, "azure_openai": upstream}
    providers = {
        f"p{i}": {"kind": kinds[i % 3], "base_url": bases[kinds[i % 3]], "api_key": f"key-{i}-000"} for i in range(12)
    }
    routes = {f"r{i}": [f"p{i % 12}/model-{i}"] for i in range(150)}
    port = free_port()
    with serve(upstream, port, GATEWAY_PROVIDERS=json.dumps(providers), GATEWAY_ROUTES=json.dumps(routes)):
        await wait_until_it_answers(f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            for i in range(150):
                is_anthropic = i % 3 == 1
                answer = await client.post(
                    "/v1/messages" if is_anthropic else "/v1/chat/completions",
                    json={"model": f"r{i}", "max_tokens": 8, "messages": ASK},
                    headers={"authorization": f"Bearer {KEY}"},
                )
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-gateway-deployment"] == f"p{i % 12}/model-{i}"


async def test_the_bounds_of_clients_hold_in_every_worker(upstream: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serve(upstream, port, GATEWAY_WORKERS="2", GATEWAY_MAX_HEADERS="20", GATEWAY_HEAD_SECONDS="0.5") as process:
        await wait_until_it_answers(url)
        many = {f"x-{i}": "y" for i in range(20)}
        for _ in range(8):  # each on a connection of its own, so that both are met
            async with httpx.AsyncClient(trust_env=False) as client:
                refused = await client.get(f"{url}/healthz", headers=many)
                assert (refused.status_code, refused.json()["error"]["code"]) == (431, "request_head_too_large")
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            assert silent.recv(1) == b""
        assert time.monotonic() - began > 0.4
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


async def ask(port: int) -> int:
    url = f"http://127.0.0.1:{port}"
    await wait_until_it_answers(url)
    async with httpx.AsyncClient(base_url=f"{url}/v1", trust_env=False, headers={"x-api-key": KEY}) as client:
        return (await client.post("/chat/completions", json={"model": "gpt-5-mini", "messages": ASK})).status_code


async def test_with_its_output_closed_it_serves_and_leaves(upstream: str, tmp_path: Path) -> None:
    """The numbers of closed descriptors are those that the listener or the journal would get."""
    port, journal = free_port(), tmp_path / "journal.db"
    with serve(upstream, port, _shell='exec "$@" <&- >&- 2>&-', GATEWAY_JOURNAL=str(journal)) as process:
        assert await ask(port) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"gpt-5-mini" in written
    assert b"x-api-key" not in written
    assert b"listens on" not in written


async def test_a_reader_that_has_stopped_holds_no_end_back(upstream: str) -> None:
    port = free_port()
    with serve(upstream, port) as process:
        assert process.stdout is not None
        assert await ask(port) == 200
        size, end = 0, os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                size += os.write(end, b"x")
        os.close(end)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert size > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_during_the_start_is_taken(upstream: str, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it, SIGHUP changes nothing: the configuration is being read anyway."""
    port = free_port()
    with serve(upstream, port, GATEWAY_DRAIN_LAG_SECONDS="0") as process:
        while not takes(process.pid, number):
            time.sleep(0.001)
        process.send_signal(number)
        if number == signal.SIGHUP:
            assert await ask(port) == 200
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def takes(pid: int, number: int) -> bool:
    """Whether a process has said what is to become of a signal (proc(5): SigIgn, SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigIgn", "SigCgt"))]
    both = masks[0] | masks[1]
    return all(both >> (n - 1) & 1 for n in (number, signal.SIGHUP))
