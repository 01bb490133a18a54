"""Users of `limits` get the window without leaving its interface."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from limits import parse
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import storage_from_string

from clock import Clock
from gateway_middleware.limiting.store.limits_storage import (
    MemoryWindowStorage,
    RedisWindowStorage,
    WindowRateLimiter,
    WindowStorage,
)
from limit_cases import fresh
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def opened(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[WindowStorage]:
    if kind == "memory":
        found = storage_from_string("async+window+memory://")
        assert isinstance(found, MemoryWindowStorage)
        yield found
        return
    process: RedisProcess = request.getfixturevalue("shared_redis")
    storage = storage_from_string(f"async+window+{process.uri}", deadline=5.0)
    assert isinstance(storage, RedisWindowStorage)
    yield storage
    await storage.aclose()


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_hit_test_stats_refund_clear(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request) as storage:
        limiter, item, tenant = WindowRateLimiter(storage), parse("10/minute"), fresh()
        assert await limiter.hit(item, tenant, cost=8)
        assert not await limiter.hit(item, tenant, cost=3)
        assert await limiter.test(item, tenant, cost=2)
        assert not await limiter.test(item, tenant, cost=3)
        stats = await limiter.get_window_stats(item, tenant)
        assert stats.remaining == 2
        assert 55 < stats.reset_time - time.time() <= 61
        await limiter.refund(item, tenant, count=5)
        assert (await limiter.get_window_stats(item, tenant)).remaining == 7
        await limiter.refund(item, tenant, count=-20)
        assert (await limiter.get_window_stats(item, tenant)).remaining == 0
        assert await storage.get(item.key_for(tenant)) == 23
        await limiter.clear(item, tenant)
        assert (await limiter.get_window_stats(item, tenant)).remaining == 10


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_the_moving_window_of_limits_works_on_it(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request) as storage:
        limiter, item, tenant = MovingWindowRateLimiter(storage), parse("100/minute"), fresh()
        admitted = [await limiter.hit(item, tenant, cost=30) for _ in range(5)]
        stats = await limiter.get_window_stats(item, tenant)

        assert admitted == [True, True, True, False, False]
        assert stats.remaining == 10
        assert time.time() < stats.reset_time <= time.time() + 61
        assert await limiter.test(item, tenant, cost=10)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_plain_storage_calls(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request) as storage:
        key = fresh()
        assert await storage.check()
        assert await storage.get(key) == 0
        assert await storage.incr(key, 60) == 1
        assert await storage.incr(key, 60, 5) == 6
        assert 55 < await storage.get_expiry(key) - time.time() <= 61
        await storage.clear(key)
        assert await storage.get(key) == 0


async def test_memory_is_reset_and_released() -> None:
    clock = Clock()
    storage = MemoryWindowStorage(clock=clock)
    limiter, item = WindowRateLimiter(storage), parse("10/minute")
    for number in range(20):
        await limiter.hit(item, str(number))
    assert await storage.reset() == 20
    await limiter.hit(item, "one")
    clock.advance(62)
    storage.tick()
    storage.tick()
    assert len(storage.memory) == 0


async def test_redis_that_is_not_there() -> None:
    storage = RedisWindowStorage("async+window+redis://127.0.0.1:1", deadline=0.2)
    assert not await storage.check()
    await storage.aclose()


async def test_another_storage_is_refused() -> None:
    with pytest.raises(TypeError, match=r"async\+window"):
        WindowRateLimiter(storage_from_string("async+memory://"))  # type: ignore[arg-type]
