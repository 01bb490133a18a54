"""What must not break it: dependencies that are all away at its start, and a while in which it did not run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from redis_process import free_port
from server_process import Server, until

pytestmark = pytest.mark.anyio


async def is_answered(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await server.ask("GET", "/healthz")).status_code == 200
    return False


async def test_lc9_it_starts_while_redis_and_usage_metering_are_away_and_health_says_so(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        server = Server(
            tmp_path, simulator.url, GATEWAY_STORAGE_URI=f"redis://127.0.0.1:{free_port()}",
            GATEWAY_USAGE_METERING_URL=f"http://127.0.0.1:{free_port()}/events",
        )  # fmt: skip
        with server.run():
            began = time.monotonic()
            await until(lambda: is_answered(server), 20.0)
            started = time.monotonic() - began
            assert await server.statuses() == {200}

            async def all_wait() -> bool:
                return bool((await server.ask("GET", "/v1/health")).json()["metering"]["backlog"] == 30)

            await until(all_wait, 10.0)
            health = (await server.ask("GET", "/v1/health")).json()
    print(f"took calls after {started:.1f} s")
    assert health["fleet"]["stores"]["redis"] == "away"


async def test_lc13_a_process_that_was_stopped_for_a_while_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """No breaker opens and no stream breaks for time in which the process itself did not run."""
    async with Simulator().serve() as simulator:
        server = Server(tmp_path, simulator.url)
        with server.run():
            await server.wait_for(1)
            (pid,) = await server.workers()
            body = {"model": "sim-gap-50:length-40", "messages": [{"role": "user", "content": "x"}], "stream": True}
            streams = [asyncio.ensure_future(server.ask("POST", "/v1/chat/completions", body=body)) for _ in range(10)]
            await asyncio.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(5)
            os.kill(pid, signal.SIGCONT)
            answers = await asyncio.gather(*streams)
            assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
            assert await server.statuses() == {200}
            breakers = (await server.ask("GET", "/v1/health")).json()["circuit_breakers"]
    assert {row["state"] for row in breakers.values()} == {"closed"}
