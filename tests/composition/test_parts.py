"""Whatever part fails to start or to stop, no thread, task, file or socket of any other one stays open."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from asgi_driver import drive
from gateway_middleware import Gateway, Settings
from gateway_middleware.composition.life import Life
from gateway_middleware.composition.part import Commit, Part
from gateway_middleware.core.errors import GatewayNotStartedError
from redis_process import RedisProcess
from running import KEY, LogLines, environment

pytestmark = pytest.mark.anyio
PARTS = (
    "Log",
    "LiveConfig",
    "Fleet",
    "RuntimeKeys",
    "SideCalls",
    "Tenants",
    "PolicyOff",
    "Guards",
    "CallPricing",
    "Metering",
    "KeyExpiries",
    "ReloadAudit",
    "Credentials",
    "Upstream",
    "Limits",
    "Breakers",
    "RedisPeers",
    "Stats",
    "Calls",
    "CallPlans",
    "ModelLists",
    "FleetStatus",
    "Watch",
)


class Faulty:
    """A part around another one that fails after its start, or after its stop."""

    def __init__(self, part: Part, *, in_start: bool) -> None:
        self._part = part
        self._in_start = in_start
        self.takes = part.takes

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self._part.lifespan():
            if self._in_start:
                raise OSError("cannot start")
            yield
        raise OSError("cannot stop")

    def prepare(self, new: Settings) -> Commit:
        return self._part.prepare(new)


class Open(NamedTuple):
    """What a process holds open."""

    threads: frozenset[str]
    tasks: int
    descriptors: frozenset[str]


NOTHING = Open(frozenset(), 0, frozenset())


def opened() -> Open:
    gc.collect()
    kinds = {str(link) for link in map(_link, Path("/proc/self/fd").iterdir()) if link is not None}
    return Open(
        frozenset(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")),
        len(asyncio.all_tasks()),
        frozenset(kind for kind in kinds if kind.startswith("socket:") or "journal" in kind),
    )


def _link(descriptor: Path) -> Path | None:
    try:
        return descriptor.readlink()
    except FileNotFoundError:
        return None  # that of the directory itself


def gateway(folder: Path, redis: RedisProcess, **ports: Any) -> Gateway:
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "key").write_text("sk-of-a-file")
    settings = Settings.from_env(
        environment(
            "http://127.0.0.1:9",
            OPENAI_API_KEY=f"file:{folder / 'key'}",
            GATEWAY_JOURNAL=str(folder / "journal.db"),
            GATEWAY_STORAGE_URI=redis.uri,
            GATEWAY_METRICS_DIRECTORY=str(folder / "metrics"),
            GATEWAY_USAGE_METERING_URL="http://127.0.0.1:9/events",
            GATEWAY_DEFAULT_REQUESTS="100/minute",
            GATEWAY_QUEUE_SECONDS="1",
        )
    )
    return Gateway(settings, **{"write_log": LogLines(), "reread": lambda: settings, **ports})


async def call(gateway: Gateway) -> int:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    body = b'{"model": "gpt-5-mini", "messages": []}'
    return (await drive(gateway, method="POST", path="/v1/chat/completions", headers=headers, body=body)).status


async def left_open(before: Open) -> Open:
    """What is open, and was not before, once cancelled tasks and closed transports have had their turns.

    What was open before may have ended since: tests before this one leave threads that are about to end.
    """
    for _ in range(200):
        now = opened()
        more = Open(
            now.threads - before.threads, max(now.tasks - before.tasks, 0), now.descriptors - before.descriptors
        )
        if more == NOTHING:
            break
        await asyncio.sleep(0.01)  # threads and sockets of the system, not of our clock
    return more


def test_the_list_of_parts_is_whole(tmp_path: Path, shared_redis: RedisProcess) -> None:
    assert tuple(type(part).__name__ for part in gateway(tmp_path, shared_redis).parts) == PARTS


@pytest.mark.parametrize("name", PARTS)
async def test_a_part_that_fails_to_start_leaves_nothing_open(
    name: str, tmp_path: Path, shared_redis: RedisProcess
) -> None:
    before = opened()
    made = gateway(tmp_path, shared_redis)
    life = Life([Faulty(p, in_start=True) if type(p).__name__ == name else p for p in made.parts])
    with pytest.raises(GatewayNotStartedError, match="cannot start"):
        await life.start()
    assert await left_open(before) == NOTHING


@pytest.mark.parametrize("name", PARTS)
async def test_a_part_that_fails_to_stop_leaves_nothing_open(
    name: str, tmp_path: Path, shared_redis: RedisProcess
) -> None:
    before = opened()
    made = gateway(tmp_path, shared_redis)
    life = Life([Faulty(p, in_start=False) if type(p).__name__ == name else p for p in made.parts])
    await life.start()
    with pytest.raises(OSError, match="cannot stop"):
        await life.stop()
    assert await left_open(before) == NOTHING


async def test_a_gateway_that_has_served_leaves_nothing_open_and_closes_twice(
    tmp_path: Path, shared_redis: RedisProcess
) -> None:
    before = opened()
    made = gateway(tmp_path, shared_redis)
    async with made.lifespan():
        assert await call(made) == 502
        assert opened() != before
    await made.aclose()
    assert await left_open(before) == NOTHING


async def test_a_transport_of_the_host_that_cannot_close_keeps_neither_journal_nor_log_open(
    tmp_path: Path, shared_redis: RedisProcess
) -> None:
    class Stuck(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json={"usage": {"prompt_tokens": 1, "completion_tokens": 1}})

        async def aclose(self) -> None:
            raise OSError("stuck")

    before = opened()
    log = LogLines()
    made = gateway(tmp_path, shared_redis, transport=Stuck(), write_log=log)
    context: AbstractAsyncContextManager[None] = made.lifespan()
    await context.__aenter__()
    assert await call(made) == 200
    with pytest.raises(OSError, match="stuck"):
        await context.__aexit__(None, None, None)
    assert await left_open(before) == NOTHING
    assert b'"event":"call"' in log.raw
    assert not list(tmp_path.glob("*.open"))
