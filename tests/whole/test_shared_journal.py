"""Two servers that were given one journal, and a keeper that is killed again and again: each call is one event."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector, CollectorServer
from running import KEY
from served import serve, upstream
from server_process import until

pytestmark = pytest.mark.anyio
HEADERS = {"authorization": f"Bearer {KEY}"}


async def call(url: str, count: int) -> int:
    """Whole answers and streams, a few at a time."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=90, headers=HEADERS) as client:

        async def ask(number: int) -> bool:
            body = {"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "x"}]}
            answer = await client.post("/v1/chat/completions", json={**body, "stream": number % 2 == 0})
            return answer.status_code == 200

        return sum([await ask(number) for number in range(count)])


async def all_arrive(sink: CollectorServer, count: int) -> None:
    async def are_there() -> bool:
        return len(sink.collector.events) >= count

    await until(are_there, 90.0)


async def test_two_servers_on_one_journal_meter_each_call_once_and_one_takes_in_what_the_other_leaves(
    tmp_path: Path,
) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as sink:
        extra: dict[str, Any] = {
            "GATEWAY_JOURNAL": str(tmp_path / "journal.db"),
            "GATEWAY_USAGE_METERING_URL": f"{sink.url}/events",
        }
        async with serve(tmp_path, **upstream(simulator), **extra) as second:
            async with serve(tmp_path, **upstream(simulator), **extra) as first:
                assert sum(await asyncio.gather(call(first.url, 20), call(second.url, 20))) == 40
                first.process.kill()
                await first.process.wait()
            assert await call(second.url, 10) == 10
            await all_arrive(sink, 50)
            second.process.send_signal(signal.SIGTERM)
            assert await second.exit() == 0
        assert (len(sink.collector.events), sink.collector.conflicts) == (50, 0)


async def test_a_keeper_that_is_killed_while_calls_end_loses_none(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as sink:
        extra: dict[str, Any] = {"GATEWAY_USAGE_METERING_URL": f"{sink.url}/events"}
        async with serve(tmp_path, **upstream(simulator), **extra) as served:
            for times in range(1, 4):
                load = asyncio.ensure_future(call(served.url, 20))

                async def keeper_lives() -> bool:
                    return served.keeper is not None

                await until(keeper_lives, 90.0)
                keeper = served.keeper
                if keeper is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(keeper.pid, signal.SIGKILL)
                assert await load == 20
                assert len(served.lines("worker_died")) == 0, times
            await all_arrive(sink, 60)
        assert (len(sink.collector.events), sink.collector.conflicts) == (60, 0)
