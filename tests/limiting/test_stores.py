"""What memory and Redis both promise: all or nothing, exact refunds and debts, leases that come back."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.limiting.limit import NEVER, Change, Claim, Limit, Store, Unit
from gateway_middleware.limiting.reservation import LimitReachedError, Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import RedisStore, redis_store
from limit_cases import admit, claim, fresh, rpm, slots, spend, tpm
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio
Opener = Callable[[Clock], AbstractAsyncContextManager[Store]]


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":
        return _memory
    process: RedisProcess = request.getfixturevalue("shared_redis")
    return lambda clock: _redis(process, clock)


@contextlib.asynccontextmanager
async def _memory(clock: Clock) -> AsyncIterator[Store]:
    yield MemoryStore(clock=clock, wall=clock)


@contextlib.asynccontextmanager
async def _redis(process: RedisProcess, clock: Clock) -> AsyncIterator[Store]:
    store = RedisStore(redis_store(process.uri, deadline=5.0)._caller, clock=clock)  # noqa: SLF001  # a real Redis under a moved clock
    yield store
    await store.aclose()


async def remaining(store: Store, *claims: Claim) -> list[int]:
    decision = await admit(store, [Claim(c.key, c.limit, 0) for c in claims], is_dry=True)
    return [s.remaining for s in decision.statuses]


claims_of_many = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.booleans(), st.integers(0, 2)), max_size=12
)


@given(claims_of_many)
def test_what_is_taken_is_what_a_dry_decision_foretold(
    calls: list[tuple[int, int, int, bool, int]],
) -> None:
    """Also where the last of several limits refuses: nothing of the others is taken."""
    clock, tenant = Clock(), fresh()
    store = MemoryStore(clock=clock, wall=clock)
    for number, (requests, tokens, busy, is_shadow, gap) in enumerate(calls):
        limits = [(rpm(6, is_shadow=is_shadow), requests), (tpm(5), tokens), (slots(4), 1), (spend(7), busy)]
        claims = [claim(tenant, limit, cost) for limit, cost in limits]
        before = [store.used(c.key) for c in claims]
        foretold = store.admit(claims, b"%d" % number, is_dry=True)
        decision = store.admit(claims, b"%d" % number)
        assert decision.is_admitted == foretold.is_admitted
        assert [s.wait for s in decision.statuses] == [s.wait for s in foretold.statuses]
        after = [store.used(c.key) for c in claims]
        taken = [
            c.cost if decision.is_admitted and not s.wait else 0 for c, s in zip(claims, foretold.statuses, strict=True)
        ]
        assert after == [one + cost for one, cost in zip(before, taken, strict=True)]
        assert [s.is_taken for s in decision.statuses] == [
            decision.is_admitted and not s.wait for s in foretold.statuses
        ]
        clock.advance(25.0 * gap)


async def test_more_than_the_whole_limit_never_fits_and_blocks_nobody(opened: Opener) -> None:
    """RL4."""
    async with opened(Clock()) as store:
        tenant = fresh()
        large = await admit(store, [claim(tenant, tpm(1000), 1001)])
        small = [await admit(store, [claim(tenant, tpm(1000), 10)]) for _ in range(100)]

    assert not large.is_admitted
    assert (large.statuses[0].wait, large.retry_after) == (NEVER, None)
    assert all(d.is_admitted for d in small)


@pytest.mark.parametrize("refusing", [rpm(1), tpm(1), slots(1), spend(1)])
async def test_refused_consumes_nothing(opened: Opener, refusing: Limit) -> None:
    """RL5: whichever limit refuses, the others are untouched."""
    async with opened(Clock()) as store:
        tenant = fresh()
        full = claim(tenant, refusing)
        assert (await admit(store, [full], b"first")).is_admitted
        others = [
            c
            for c in (claim(tenant, rpm()), claim(tenant, tpm(), 7), claim(tenant, slots()), claim(tenant, spend(), 9))
            if c.limit.unit is not refusing.unit
        ]
        before = await remaining(store, *others)
        for position in range(len(others) + 1):
            asked = [*others[:position], full, *others[position:]]
            decision = await admit(store, asked, b"second")
            assert not decision.is_admitted
            assert decision.refused is not None
            assert decision.refused.claim is full
        assert await remaining(store, *others) == before == [c.limit.amount for c in others]


async def test_the_wait_is_that_of_the_limit_that_stays_empty_longest(opened: Opener) -> None:
    async with opened(Clock(60_000)) as store:
        tenant = fresh()
        both = [claim(tenant, rpm(1)), claim(tenant, tpm(1, seconds=3600))]
        await admit(store, both)
        decision = await admit(store, both)

    assert decision.retry_after == 3600 + 60
    assert decision.refused is not None
    assert decision.refused.claim is both[1]


async def test_refund_goes_into_its_bucket_and_debt_blocks(opened: Opener) -> None:
    """RL7: real use of 10 % and of 300 % of what was reserved."""
    clock = Clock(60_000)
    async with opened(clock) as store:
        reservations, asked = Reservations(store), claim(fresh(), tpm(1000), 400)
        low, high = await reservations.reserve([asked]), await reservations.reserve([asked])
        clock.advance(10)
        await low.settle(tokens=40)
        assert await remaining(store, asked) == [560]
        await high.settle(tokens=1200)
        assert await remaining(store, asked) == [0]  # 40 + 400 of ten seconds ago, and 800 of now
        assert [status.excess for status in (await reservations.decide([asked], is_dry=True)).statuses] == [240]
        with pytest.raises(LimitReachedError) as caught:
            await reservations.reserve([asked])
        # The old 440 leave after 61 s: then 800 are left, and 400 more do not fit before these leave too.
        assert caught.value.retry_after == 61
        clock.advance(51)
        assert await remaining(store, asked) == [200]
        clock.advance(10)
        assert await remaining(store, asked) == [1000]


async def test_debt_of_a_call_that_outlived_its_window(opened: Opener) -> None:
    clock = Clock()
    async with opened(clock) as store:
        reservations, asked = Reservations(store), claim(fresh(), tpm(1000), 400)
        early, late = await reservations.reserve([asked]), await reservations.reserve([asked])
        clock.advance(300)
        if isinstance(store, MemoryStore):
            store.sweep(10)
            assert len(store) == 0
        await early.settle(tokens=100)
        assert await remaining(store, asked) == [1000]
        await late.settle(tokens=700)
        assert await remaining(store, asked) == [700]


async def test_settled_once(opened: Opener) -> None:
    async with opened(Clock()) as store:
        reservations, tenant = Reservations(store), fresh()
        claims = [claim(tenant, rpm()), claim(tenant, tpm(), 100), claim(tenant, slots()), claim(tenant, spend(), 50)]
        reservation = await reservations.reserve(claims)
        assert await remaining(store, *claims) == [99, 9_900, 4, 999_950]
        for _ in range(3):
            await reservation.settle(tokens=30, spend=20)
            await reservation.cancel()
        assert not reservation.is_open
        assert await remaining(store, *claims) == [99, 9_970, 5, 999_980]


async def test_cancel_gives_all_back(opened: Opener) -> None:
    async with opened(Clock()) as store:
        reservations, tenant = Reservations(store), fresh()
        claims = [claim(tenant, rpm()), claim(tenant, tpm(), 100), claim(tenant, slots()), claim(tenant, spend(), 50)]
        reservation = await reservations.reserve(claims)
        await reservation.cancel()
        assert await remaining(store, *claims) == [100, 10_000, 5, 1_000_000]
        assert reservations.leased == 0


async def test_what_is_not_reported_stays_reserved(opened: Opener) -> None:
    async with opened(Clock()) as store:
        asked = claim(fresh(), tpm(), 100)
        await (await Reservations(store).reserve([asked])).settle()
        assert await remaining(store, asked) == [9_900]


async def test_leases_of_a_dead_owner_come_back(opened: Opener) -> None:
    """RL10: nobody renews, so the slots are free after 30 s; a live call keeps its slot."""
    clock = Clock()
    async with opened(clock) as store:
        dead, alive, asked = Reservations(store), Reservations(store), claim(fresh(), slots(3))
        held = [await dead.reserve([asked]) for _ in range(2)]
        kept = await alive.reserve([asked])
        for _ in range(3):
            with pytest.raises(LimitReachedError) as caught:
                await alive.reserve([asked])
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= 1
            clock.advance(10.1)
            for _ in range(40):
                await alive.tick()
        assert await remaining(store, asked) == [2]
        await kept.settle()
        assert await remaining(store, asked) == [3]
        assert len(held) == 2


async def test_a_slot_is_free_when_the_call_has_ended(opened: Opener) -> None:
    """RL12."""
    async with opened(Clock()) as store:
        reservations, asked = Reservations(store), claim(fresh(), slots(1))
        for _ in range(300):
            await (await reservations.reserve([asked])).settle()


async def test_a_lost_reservation_is_not_kept_alive(opened: Opener) -> None:
    clock = Clock()
    async with opened(clock) as store:
        reservations, asked = Reservations(store), claim(fresh(), slots(1))
        reservation = await reservations.reserve([asked])
        assert reservations.leased == 1
        del reservation
        assert reservations.leased == 0


async def test_shadow_limits_refuse_nothing(opened: Opener) -> None:
    async with opened(Clock()) as store:
        tenant = fresh()
        claims = [claim(tenant, rpm(2, is_shadow=True)), claim(tenant, tpm(), 1)]
        decisions = [await admit(store, claims) for _ in range(4)]

        assert [d.is_admitted for d in decisions] == [True] * 4
        assert [len(d.shadowed) for d in decisions] == [0, 0, 1, 1]
        assert all(d.refused is None and d.retry_after == 0 for d in decisions)
        assert await remaining(store, *claims) == [0, 9_996]


async def test_dry_takes_nothing(opened: Opener) -> None:
    async with opened(Clock()) as store:
        tenant = fresh()
        claims = [claim(tenant, rpm(1)), claim(tenant, slots(1))]
        for owner in (b"a", b"b", b"c"):
            decision = await admit(store, claims, owner, is_dry=True)
            assert decision.is_admitted
            assert not any(s.is_taken for s in decision.statuses)


async def test_raising_a_limit_keeps_what_was_counted(opened: Opener) -> None:
    async with opened(Clock()) as store:
        tenant = fresh()
        for _ in range(10):
            await admit(store, [claim(tenant, rpm(10))])
        assert not (await admit(store, [claim(tenant, rpm(10))])).is_admitted
        assert (await admit(store, [claim(tenant, rpm(20))])).statuses[0].remaining == 9
        lowered = (await admit(store, [claim(tenant, rpm(5))])).statuses[0]
        assert (lowered.remaining, lowered.wait > 0) == (0, True)


async def test_tenants_do_not_share(opened: Opener) -> None:
    async with opened(Clock()) as store:
        names = [fresh("a:b}"), fresh("{"), fresh("a/b"), fresh("ü%")]
        for name in names:
            assert (await admit(store, [claim(name, rpm(1))])).is_admitted
            assert not (await admit(store, [claim(name, rpm(1))])).is_admitted


def test_100_000_tenants_are_small_and_released() -> None:
    """RL20: memory."""
    clock = Clock()
    store = MemoryStore(clock=clock, wall=clock)
    limit = rpm()
    tracemalloc.start()
    try:
        for number in range(100_000):
            store.admit([Claim(f"{{tenant-{number}}}:requests/sliding/60", limit)], b"o")
        full = tracemalloc.get_traced_memory()[0]
        clock.advance(62)
        ticks = 0
        while len(store):
            store.tick()
            ticks += 1
        store.sweep(1)
        empty = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert full < 45e6
    assert empty < 1e6
    assert ticks <= 400  # at four ticks a second


def test_what_counts_is_not_swept() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, wall=clock)
    tenants = [fresh() for _ in range(50)]
    for tenant in tenants:
        store.admit([claim(tenant, rpm(1)), claim(tenant, slots(1)), claim(tenant, spend(1))], b"o")

    for _ in range(5):
        store.sweep(37)

    for tenant in tenants:
        for limit in (rpm(1), slots(1), spend(1)):
            assert not store.admit([claim(tenant, limit)], b"other").is_admitted
    clock.advance(29)
    for _ in range(20):
        store.tick()
    assert len(store) == 150


def test_a_share_of_the_limits() -> None:
    """Four processes that do not share (RL22): each takes a quarter."""
    clock = Clock()
    stores = [MemoryStore(clock=clock, wall=clock, weight=4) for _ in range(4)]
    tenant = fresh()

    def admitted(limit: Limit, cost: int = 1) -> int:
        return sum(
            store.admit([claim(tenant, limit, cost)], b"%d" % i).is_admitted for store in stores for i in range(100)
        )

    assert admitted(rpm(100)) == 100
    assert admitted(tpm(1000), 30) * 30 <= 1000
    assert admitted(slots(9)) == 8
    assert stores[0].admit([claim(fresh(), rpm(100))], b"o").statuses[0].remaining == 24


def test_a_cost_above_the_share_takes_the_whole_share_and_comes_back() -> None:
    clock = Clock()
    store, asked = MemoryStore(clock=clock, wall=clock, weight=4), claim(fresh(), tpm(1000), 600)
    taken = store.admit([asked], b"o")
    assert taken.is_admitted
    assert not store.admit([asked], b"o").is_admitted

    store.settle(taken, [Change(asked, taken.statuses[0].newest, -590)])

    assert store.used(asked.key) == 40


@pytest.mark.parametrize(
    ("amount", "unit", "length"),
    [(0, Unit.REQUESTS, 60), (-1, Unit.TOKENS, 60), (2**53, Unit.TOKENS, 60), (1, Unit.REQUESTS, 0),
     (1, Unit.REQUESTS, -5), (1, Unit.CONCURRENCY, 60)],
)  # fmt: skip
def test_limits_that_cannot_work(amount: int, unit: Unit, length: int) -> None:
    with pytest.raises(ValueError, match="limit 'x'"):
        Limit(name="x", amount=amount, unit=unit, length=length)


def test_what_a_key_is_not_asked_for() -> None:
    """A window has no leases and leases have no rest; neither is a fault."""
    clock = Clock()
    store = MemoryStore(clock=clock, wall=clock)
    window = claim(fresh(), rpm(3))
    store.admit([window], b"o")
    store.renew([(window.key, b"o")])

    assert store.used(window.key) == 1
    assert store.rest("unknown") == 0.0
