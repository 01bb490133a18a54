"""LC5: two gateways mounted in one process: every call is metered, and what they began ends with their host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

import ways
from gateway_middleware import Gateway, Settings, mount
from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector, CollectorServer
from running import KEY, LogLines, environment, serving
from server_process import until

pytestmark = pytest.mark.anyio
CALLS = 20
BODY: Any = {"model": "openai/sim-output-5", "messages": [{"role": "user", "content": "x"}]}


def make_gateway(folder: Path, name: str, upstream: str, sink: str) -> Gateway:
    extra = {"GATEWAY_JOURNAL": str(folder / f"{name}.db"), "GATEWAY_USAGE_METERING_URL": f"{sink}/events"}
    return ways.gateway(Settings.from_env(environment(upstream, **extra)), write_log=LogLines())


def host(kind: type[Any], gateways: list[Gateway], *, enters: bool) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for gateway in gateways:
                await stack.enter_async_context(gateway.lifespan())
            yield

    app = kind(lifespan=lifespan if enters else None)
    for number, gateway in enumerate(gateways):
        mount(app, f"/{number}", gateway)
    return app


async def load(url: str, gateways: int) -> None:
    """Calls and streams on every gateway at once; some clients leave in the middle of theirs."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client:

        async def call(gateway: int, number: int) -> None:
            path, body = f"/{gateway}/v1/chat/completions", BODY | {"stream": number % 2 == 0}
            if number % 5 == 4:
                body |= {"stream": True, "model": "openai/sim-gap-20:length-500"}
                async with client.stream("POST", path, json=body) as answer:
                    assert answer.status_code == 200
                    await anext(answer.aiter_raw())
                return
            assert (await client.post(path, json=body)).status_code == 200

        await asyncio.gather(*(call(g, n) for g in range(gateways) for n in range(CALLS)))


def metered(sink: CollectorServer, loads: int) -> Callable[[], Awaitable[bool]]:
    async def are_all() -> bool:
        return len(sink.collector.events) == loads * CALLS

    return are_all


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_lc5_two_mounted_gateways_lose_no_event_and_leave_nothing(kind: type[Any], tmp_path: Path) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as sink:
        threads = set(threading.enumerate())
        gateways = [make_gateway(tmp_path, name, simulator.url, sink.url) for name in "ab"]
        async with serving(host(kind, gateways, enters=True)) as url:
            await load(url, 2)
            await until(metered(sink, 2), 20.0)
        await until(lambda: nothing_is_left(threads), 10.0)
    assert sink.collector.conflicts == 0


async def nothing_is_left(threads: set[threading.Thread]) -> bool:
    """Threads of the journal and the log have ended, and no task runs code of ours but the servers of this test."""
    begun = [t.name for t in threading.enumerate() if t not in threads and not t.name.startswith("asyncio_")]
    return not begun and not [task for task in asyncio.all_tasks() if is_ours(task)]


def is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    name = code.co_filename if code is not None else ""
    return "/gateway_middleware/" in name and "/simulator/" not in name


async def test_lc5_without_its_lifespan_it_warns_once_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing durable depends on being stopped: what the first host left behind is delivered by the next one."""
    async with Simulator().serve() as simulator, Collector().serve() as sink:
        threads = set(threading.enumerate())
        gateways = [make_gateway(tmp_path, name, simulator.url, sink.url) for name in "ab"]
        with caplog.at_level(logging.WARNING, logger="gateway_middleware"):
            async with serving(host(Starlette, gateways, enters=False)) as url:
                await load(url, 2)
                await load(url, 2)
        assert len([record for record in caplog.records if "lifespan" in record.getMessage()]) == 2, "one each"
        await until(metered(sink, 4), 20.0)
        for gateway in gateways:
            await gateway.aclose()
        await until(lambda: nothing_is_left(threads), 10.0)
