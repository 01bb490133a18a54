"""A Redis that answers around the deadline: half of the answers come too late, and nothing is counted twice or lost."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from clock import Clock
from gateway_middleware.limiting.limit import Claim
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.fallback import FallbackStore
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import redis_store
from limit_cases import claim, fresh, rpm, slots, spend, tpm
from redis_process import RedisProcess, SlowProxy

pytestmark = pytest.mark.anyio
CALLS = 200


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.mark.parametrize("parallel", [2, 20])
async def test_counts_are_exact_around_the_deadline(own_redis: RedisProcess, parallel: int) -> None:
    tenant, clock = fresh(), Clock()
    limits = [rpm(10**6, seconds=3600), tpm(10**9, seconds=3600), spend(10**12), slots(10**5)]
    claims = [claim(tenant, limit, cost) for limit, cost in zip(limits, (1, 1000, 700, 1), strict=True)]
    async with SlowProxy.between(own_redis.port, 0.03, 0.07) as uri:
        store = FallbackStore(redis_store(uri), MemoryStore(), replica=b"r", clock=clock)
        reservations = Reservations(store)
        degraded = await _run(reservations, claims, parallel, clock)
        await _reconciled(reservations, store, clock)
        await store.aclose()
        counts = await _counts(own_redis.uri, claims, expected=[CALLS, CALLS * 123, CALLS * 77, 0])

    assert counts == [CALLS, CALLS * 123, CALLS * 77, 0]
    assert degraded > CALLS / 10


async def _run(reservations: Reservations, claims: list[Claim], parallel: int, clock: Clock) -> int:
    """Calls, so many at a time; returns how many were decided without Redis."""
    numbers = iter(range(CALLS))
    degraded = 0

    async def caller() -> None:
        nonlocal degraded
        for number in numbers:
            reservation = await reservations.reserve(claims)
            degraded += reservation.decision.is_degraded
            if number % 7 == 0:
                await asyncio.sleep(0.03)  # some last long enough for a late answer
            if number % 10 == 0:
                clock.advance(1.1)
                await reservations.tick()
            await reservation.settle(tokens=123, spend=77)

    await asyncio.gather(*[caller() for _ in range(parallel)])
    return degraded


async def _reconciled(reservations: Reservations, store: FallbackStore, clock: Clock) -> None:
    """Until Redis has confirmed all that it was told."""
    async with asyncio.timeout(20):
        for _ in itertools.count():
            clock.advance(1.1)
            await reservations.tick()
            if not store.untold:
                return


async def _counts(uri: str, claims: list[Claim], *, expected: list[int]) -> list[int]:
    """What Redis has counted, once the proxy has passed on what was sent last."""
    direct = redis_store(uri, deadline=5)
    for _ in range(100):
        decision = await direct.admit([Claim(c.key, c.limit, 0) for c in claims], b"reader", is_dry=True)
        counts = [s.claim.limit.amount - s.remaining for s in decision.statuses]
        if counts == expected:
            break
        await asyncio.sleep(0.02)
    await direct.aclose()
    return counts
