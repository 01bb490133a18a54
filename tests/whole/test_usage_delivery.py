"""Usage events on their way from a running gateway to usage-metering: MT3 to MT5, MT8, MT9 over real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from gateway_middleware.simulator import Behaviour, Simulator
from gateway_middleware.simulator.collector import Collector, CollectorServer, Fault
from redis_process import free_port
from running import KEY, gateway_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.anyio
ASK: Any = {"model": "openai/sim-input-10:output-5", "messages": [{"role": "user", "content": "x"}]}
HEADERS = {"authorization": f"Bearer {KEY}"}


@asynccontextmanager
async def metered(folder: Path, **extra: str) -> AsyncIterator[tuple[httpx.AsyncClient, CollectorServer]]:
    async with Simulator().serve() as simulator, Collector(token="the-sink").serve() as server:
        chosen = {
            "GATEWAY_JOURNAL": str(folder / "journal.db"),
            "GATEWAY_USAGE_METERING_URL": f"{server.url}/events",
            "GATEWAY_USAGE_METERING_TOKEN": "the-sink",
            **extra,
        }
        async with gateway_for(simulator.url, **chosen) as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False, headers=HEADERS, timeout=30) as client:
                yield client, server


async def call(client: httpx.AsyncClient, times: int = 1, **more: Any) -> None:
    for number in range(times):
        answer = await client.post("/v1/chat/completions", json={**ASK, "stream": number % 2 == 0, **more})
        assert answer.status_code == 200


async def until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.02)


async def test_events_arrive_once_with_exact_sums(tmp_path: Path) -> None:
    async with metered(tmp_path) as (client, server):
        await call(client, 60)
        await until(lambda: len(server.collector.events) == 60)
        totals = server.collector.totals["acme"]
        assert (totals.input_tokens, totals.output_tokens) == (600, 300)
        assert server.collector.conflicts == 0
        health = (await client.get("/v1/health")).json()["metering"]
        assert health["delivery"]["standing"] == "ok"


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=429, retry_after="1"), Fault(stores=True, ends="drop")],
    ids=["500", "429", "drop"],
)
async def test_mt3_mt4_trouble_is_waited_out_and_nothing_is_counted_twice(tmp_path: Path, fault: Fault) -> None:
    async with metered(tmp_path) as (client, server):
        server.collector.behave(fault, times=2)
        await call(client, 20)
        await until(lambda: len(server.collector.events) == 20, 20)
        assert server.collector.totals["acme"].output_tokens == 100
        assert server.collector.conflicts == 0


async def test_a_wrong_token_keeps_everything_and_says_so(tmp_path: Path) -> None:
    async with metered(tmp_path, GATEWAY_USAGE_METERING_TOKEN="not-it") as (client, server):
        await call(client, 3)
        standing = ""
        async with asyncio.timeout(5):
            while standing != "misconfigured":
                await asyncio.sleep(0.05)
                standing = (await client.get("/v1/health")).json()["metering"]["delivery"]["standing"]
        assert server.collector.events == []
        assert (await client.get("/v1/health")).json()["metering"]["backlog"] == 3


@contextmanager
def serve(upstream: str, sink: str, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """It has ended at the end of the block, whatever comes of the test."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_"))}
    environment = {
        **kept,
        "OPENAI_API_KEY": "sk",
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "GATEWAY_OPEN": "true",
        "GATEWAY_PORT": str(port),
        "GATEWAY_JOURNAL": str(folder / "journal.db"),
        "GATEWAY_USAGE_METERING_URL": sink,
        "GATEWAY_DRAIN_SECONDS": "1",
    }
    command = [sys.executable, "-m", "gateway_middleware", "serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.HTTPError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("is_sink_up", [True, False])
async def test_mt8_sigterm_under_load_delivers_everything_or_keeps_it(tmp_path: Path, is_sink_up: bool) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as server:
        port = free_port()
        sink = f"{server.url}/events" if is_sink_up else f"http://127.0.0.1:{free_port()}/events"
        async with AsyncExitStack() as stack:
            process = stack.enter_context(serve(simulator.url, sink, tmp_path, port))
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)
            await stack.enter_async_context(client)
            await ready(client)
            ask = {**ASK, "stream": True, "model": "openai/sim-gap-10:length-10"}
            calls = [asyncio.create_task(client.post("/v1/chat/completions", json=ask)) for _ in range(40)]
            await until(lambda: len(simulator.simulator.requests) >= 20)
            process.send_signal(signal.SIGTERM)
            await asyncio.gather(*calls, return_exceptions=True)
            assert await asyncio.to_thread(process.wait, 60) is not None
        taken = len(simulator.simulator.requests)
        if is_sink_up:
            assert len(server.collector.events) == taken
        else:
            with sqlite3.connect(tmp_path / "journal.db") as db:
                assert db.execute("SELECT count(*) FROM events").fetchone() == (taken,)


async def test_mt9_streams_that_are_cut_by_the_shutdown_are_metered_as_that(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as server:
        simulator.simulator.behave(Behaviour(gap=0.2, length=500))
        port = free_port()
        async with AsyncExitStack() as stack:
            process = stack.enter_context(serve(simulator.url, f"{server.url}/events", tmp_path, port))
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
            await stack.enter_async_context(client)
            await ready(client)
            ask = {**ASK, "stream": True}
            calls = [asyncio.create_task(client.post("/v1/chat/completions", json=ask)) for _ in range(20)]
            await until(lambda: len(simulator.simulator.requests) == 20)
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.to_thread(process.wait, 60)
        events = [stored.document for stored in server.collector.events]
        assert len(events) == 20
        assert {event["data"]["outcome"] for event in events} <= {"shutdown", "client_disconnect"}
        assert all(event["data"]["usage_source"] in {"partial", "estimated"} for event in events)
