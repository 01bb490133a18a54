"""LC13: few file descriptors, and a provider that moves to another address: nobody is blamed, all heals by itself."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohappyeyeballs import AddrInfoType

from asgi_driver import drive
from gateway_middleware import Gateway, Settings
from gateway_middleware.simulator import Simulator
from gateway_middleware.upstream.engine import Engine
from rawserver import plain, raw_server, respond
from rig import CHAT, GOOD
from running import KEY, LogLines
from served import serve, upstream
from server_process import until

pytestmark = pytest.mark.anyio
HEADERS = {"authorization": f"Bearer {KEY}"}
CALLS = 400


def body(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream}


async def test_lc13_a_worker_with_256_descriptors_refuses_what_it_has_none_for_and_recovers(tmp_path: Path) -> None:
    """Each call takes two: it has room for 96 of 400 at once, and these are served."""
    limit = ("/bin/sh", "-c", 'ulimit -n 256 && exec "$@"', "sh")
    async with Simulator().serve() as simulator, serve(tmp_path, _prefix=limit, **upstream(simulator)) as served:
        limits = httpx.Limits(max_connections=CALLS, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=served.url, trust_env=False, timeout=60, limits=limits, headers=HEADERS
        ) as client:

            async def call() -> str:
                try:
                    answer = await client.post("/v1/chat/completions", json=body("sim-gap-50:length-40", stream=True))
                except httpx.TransportError as error:
                    return type(error).__name__
                if answer.status_code == 200:
                    return "whole" if answer.text.endswith("data: [DONE]\n\n") else "cut"
                return f"{answer.status_code} {answer.json()['error']['code']}"

            came = Counter(await asyncio.gather(*(call() for _ in range(CALLS))))
            print(dict(came))
            assert came["whole"] >= 96
            assert set(came) <= {"whole", "503 unavailable", "ReadError", "ConnectError"}

            async def is_well() -> bool:
                answers = await asyncio.gather(
                    *(client.post("/v1/chat/completions", json=body("gpt-5-mini")) for _ in range(20))
                )
                return {answer.status_code for answer in answers} == {200}

            await until(is_well, 20.0)
            breakers = (await client.get("/v1/health")).json()["circuit_breakers"]
    assert {row["state"] for row in breakers.values()} == {"closed"}
    assert served.lines("worker_died") == []
    assert any("each worker takes 96" in line["message"] for line in served.lines("configuration_warning"))


async def test_lc13_a_provider_whose_name_leads_elsewhere_is_followed_and_not_blamed() -> None:
    """The old server leaves, the name has another address already: not one call fails."""
    answer = plain(GOOD, extra=b"content-type: application/json\r\n")
    async with raw_server(respond(answer)) as old, raw_server(respond(answer)) as new:
        places = [old.origin.port]

        async def resolve(host: str, port: int) -> Sequence[AddrInfoType]:
            assert host == "provider.test"
            if not places:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", place)) for place in places]

        variables = {
            "OPENAI_API_KEY": "sk-x", "GATEWAY_OPEN": "true", "GATEWAY_JOURNAL": "off",
            "GATEWAY_PROVIDERS": json.dumps({
                "own": {"kind": "openai", "api_key": "sk-y", "base_url": "http://provider.test/v1", "insecure": True}
            }),
        }  # fmt: skip
        gateway = Gateway(Settings.from_env(variables), exchange=Engine(resolve=resolve), write_log=LogLines())

        async def statuses() -> set[int]:
            headers, sent = {"content-type": "application/json"}, json.dumps(body("own/m")).encode()
            calls = (drive(gateway, method="POST", path=CHAT, headers=headers, body=sent) for _ in range(10))
            return {answer.status for answer in await asyncio.gather(*calls)}

        async with gateway.lifespan():
            assert await statuses() == {200}
            places[:] = [new.origin.port]
            await old.stop()
            assert await statuses() == {200}
            assert (len(new.peers) > 0, len(old.peers)) == (True, 10)
            breakers = (await drive(gateway, path="/v1/health")).json()["circuit_breakers"]
            assert {row["state"] for row in breakers.values()} == {"closed"}
            places[:] = []
            await new.stop()
            assert await statuses() == {502}, "a name without an address is a failure like any other"
