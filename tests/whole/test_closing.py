"""A gateway that is closed while it answers: every call is told so, no provider is blamed for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import ways
from gateway_middleware import Settings
from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector
from running import KEY, LogLines, environment, serving

pytestmark = pytest.mark.anyio
CALLS = 12


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


def ask(client: httpx.AsyncClient, *, stream: bool) -> asyncio.Task[httpx.Response]:
    model = "openai/sim-gap-50:length-2000" if stream else "openai/sim-slow-20000"
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    return asyncio.create_task(client.post("/v1/chat/completions", json=body))


async def under_way(simulator: Any) -> None:
    async with asyncio.timeout(15):
        while len(simulator.simulator.requests) < CALLS:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # each stream has got its first events


@pytest.mark.parametrize("is_entered", [True, False])
async def test_calls_under_way_end_as_shutdown_and_open_no_breaker(
    simulator: Any, tmp_path: Path, is_entered: bool
) -> None:
    lines = LogLines()
    async with Collector().serve() as sink:
        extra = {"GATEWAY_JOURNAL": str(tmp_path / "journal.db"), "GATEWAY_USAGE_METERING_URL": f"{sink.url}/events"}
        gateway = ways.gateway(Settings.from_env(environment(simulator.url, **extra)), write_log=lines)
        life = gateway.lifespan()
        if is_entered:
            await life.__aenter__()
        async with (
            serving(gateway, lifespan="off") as url,
            httpx.AsyncClient(
                base_url=url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=30
            ) as client,
        ):
            calls = [ask(client, stream=i % 2 == 0) for i in range(CALLS)]
            await under_way(simulator)
            async with asyncio.timeout(5):
                await (life.__aexit__(None, None, None) if is_entered else gateway.aclose())
            answers = await asyncio.gather(*calls)
        assert [a.text[-300:] for a in answers if '"code":"shutdown"' not in a.text] == []
        assert [answer.status_code for answer in answers] == [200, 503] * (CALLS // 2)
        events = [stored.document["data"] for stored in sink.collector.events]
        assert [event["outcome"] for event in events] == ["shutdown"] * CALLS
    logged = [json.loads(line) for line in lines.raw.splitlines() if line.startswith(b"{")]
    assert [line["outcome"] for line in logged if line["event"] == "call"] == ["shutdown"] * CALLS
    assert not [line for line in logged if line["event"] in {"provider_error", "circuit_breaker"}]
    assert b"Provider error" not in lines.raw
