"""The window against a checker that looks at every window there is; the same in memory and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.limiting.limit import NEVER, Alignment, Change, Claim, Decision, Limit, Store
from gateway_middleware.limiting.period import DAY, MonthsPeriod, SlidingPeriod
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import RedisStore, redis_store
from gateway_middleware.limiting.store.window import Window
from limit_cases import admit, claim, fresh, rpm, settled, spend
from redis_process import RedisProcess

SECONDS = 10
LIMIT = 20

hits = st.tuples(st.just("hit"), st.integers(0, 25))
debts = st.tuples(st.just("debt"), st.integers(1, 30))
refunds = st.tuples(st.just("refund"), st.integers(0, 6))
pauses = st.tuples(st.just("pause"), st.one_of(st.integers(0, 300_000), st.integers(0, 12_000_000)))
steps = st.lists(st.one_of(hits, hits, hits, pauses, pauses, debts, refunds), max_size=60)


class Taken(NamedTuple):
    at: int
    cost: int


class Model:
    """Brute force: every admitted hit is kept for ever."""

    def __init__(self, length: int) -> None:
        self.length = length * 1_000_000
        self.taken: list[Taken] = []

    def most(self) -> int:
        """The most that was counted in any window of that length, its ends included."""
        return max((self.inside(t.at) for t in self.taken), default=0)

    def inside(self, begin: int) -> int:
        return sum(t.cost for t in self.taken if begin <= t.at <= begin + self.length)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


def play(runner: asyncio.Runner, stores: list[Store], clock: Clock, script: list[tuple[str, int]]) -> Model:
    """Do the same with all stores; they must agree on everything."""
    limit, model = rpm(LIMIT, seconds=SECONDS), Model(SECONDS)
    tenant = fresh()
    admitted: list[tuple[list[Decision], int]] = []
    for kind, number in script:
        if kind == "pause":
            clock.micro += number
        elif kind == "refund" and number < len(admitted):
            decisions, position = admitted[-1 - number]
            cost = model.taken[position].cost
            model.taken[position] = Taken(model.taken[position].at, cost // 2)
            for store, decision in zip(stores, decisions, strict=True):
                change = Change(decision.statuses[0].claim, decision.statuses[0].newest, -(cost - cost // 2))
                runner.run(settled_none(store, decision, change))
            del admitted[-1 - number]
        elif kind == "debt":
            for store in stores:
                change = Change(claim(tenant, limit), None, number)
                runner.run(settled_none(store, Decision(True, (), b"o"), change))
        else:
            decisions = [runner.run(admit(store, [claim(tenant, limit, number)])) for store in stores]
            assert len({shown(d) for d in decisions}) == 1
            if decisions[0].is_admitted:
                model.taken.append(Taken(clock.micro, number))
                admitted.append((decisions, len(model.taken) - 1))
            else:
                check_wait(runner, stores, clock, claim(tenant, limit, number), decisions[0].statuses[0].wait)
    return model


async def settled_none(store: Store, decision: Decision, change: Change) -> None:
    await settled(store.settle(decision, [change]))


def shown(decision: Decision) -> tuple[object, ...]:
    s = decision.statuses[0]
    return (decision.is_admitted, s.remaining, s.wait, s.is_taken, s.oldest, s.newest, s.now)


def check_wait(runner: asyncio.Runner, stores: list[Store], clock: Clock, asked: Claim, wait: int) -> None:
    """Not a microsecond before, and then at once. Time stays there: what was seen cannot be unseen."""
    if wait == NEVER:
        assert asked.cost > LIMIT
        return
    clock.micro += wait - 1
    for store in stores:
        assert not runner.run(admit(store, [asked], is_dry=True)).is_admitted
    clock.micro += 1
    for store in stores:
        assert runner.run(admit(store, [asked], is_dry=True)).is_admitted


def memory(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock, wall=clock)


@given(script=steps)
@settings(max_examples=150, deadline=None)
def test_no_window_holds_more_than_the_limit(runner: asyncio.Runner, script: list[tuple[str, int]]) -> None:
    clock = Clock()

    model = play(runner, [memory(clock)], clock, script)

    assert model.most() <= LIMIT


@given(script=steps)
@example(script=[("hit", 1), ("pause", 200_000), ("hit", 0), ("refund", 1), ("hit", 0)])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_redis_counts_as_memory_does(
    runner: asyncio.Runner, shared_redis: RedisProcess, script: list[tuple[str, int]]
) -> None:
    clock = Clock()
    store = runner.run(connected(shared_redis, clock))
    try:
        model = play(runner, [memory(clock), store], clock, script)
    finally:
        runner.run(store.aclose())

    assert model.most() <= LIMIT


async def connected(process: RedisProcess, clock: Clock) -> RedisStore:
    return RedisStore(redis_store(process.uri, deadline=2.0)._caller, clock=clock)  # noqa: SLF001  # a real Redis under a moved clock


@pytest.mark.parametrize("seconds", [1, 5, 60, 61, 3600, 86_400])
def test_a_bucket_is_a_sixtieth(seconds: int) -> None:
    period = SlidingPeriod(seconds)

    assert period.step * period.count == seconds * 1_000_000
    assert period.count in {60, 64}
    assert period.expires(0) == period.step + seconds * 1_000_000


def test_no_double_burst_at_the_edge() -> None:
    """RL3: the last 0.2 s of one minute and the first 0.8 s of the next."""
    clock = Clock(60_000 - 0.2)
    store, asked = memory(clock), claim(fresh(), rpm(100))

    admitted = 0
    for _ in range(200):
        admitted += store.admit([asked], b"o").is_admitted
        clock.advance(0.005)

    assert admitted == 100


def test_use_at_three_times_the_limit() -> None:
    """RL2: evenly spread load; 97 % of the limit is used, and no minute holds more."""
    clock = Clock()
    store, asked, model = memory(clock), claim(fresh(), rpm(100)), Model(60)

    for _ in range(3000):
        if store.admit([asked], b"o").is_admitted:
            model.taken.append(Taken(clock.micro, 1))
        clock.advance(0.2)

    assert model.most() <= 100
    assert len(model.taken) >= 0.97 * 1000


@pytest.mark.parametrize("months", [1, 3, 12])
def test_months_are_those_of_the_calendar(months: int) -> None:
    period = MonthsPeriod(months)

    for day in range(60 * 366):
        now = day * DAY
        start = datetime.fromtimestamp(now / 1e6, UTC)
        index = ((start.year - 1970) * 12 + start.month - 1) // months
        assert period.index(now) == period.index(now + DAY - 1) == index
        assert period.start(index) <= now < period.expires(index) == period.start(index + 1)


@pytest.mark.parametrize(
    ("limit", "before", "after"),
    [
        (spend(), datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        (spend(), datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
        (spend(length=12), datetime(2026, 6, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (spend(alignment=Alignment.DAYS), datetime(2026, 3, 1, 7, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
    ],
)
def test_a_period_ends_with_the_calendar(
    runner: asyncio.Runner, shared_redis: RedisProcess, limit: Limit, before: datetime, after: datetime
) -> None:
    clock = Clock(before.timestamp())
    shared = runner.run(connected(shared_redis, clock))
    for store in (memory(clock), shared):
        clock.micro = int(before.timestamp()) * 1_000_000
        asked = claim(fresh(), limit, limit.amount)
        assert runner.run(admit(store, [asked])).is_admitted
        refused = runner.run(admit(store, [asked]))
        assert refused.retry_after == (after - before).total_seconds()
        clock.micro = int(after.timestamp()) * 1_000_000 - 1
        assert not runner.run(admit(store, [asked])).is_admitted
        clock.micro += 1
        assert runner.run(admit(store, [asked])).is_admitted
    runner.run(shared.aclose())


@given(when=st.datetimes(datetime(1971, 1, 1), datetime(2105, 1, 1)), months=st.sampled_from([1, 3, 12]))  # noqa: DTZ001
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_redis_has_the_same_calendar(
    runner: asyncio.Runner, shared_redis: RedisProcess, when: datetime, months: int
) -> None:
    clock = Clock(when.replace(tzinfo=UTC).timestamp())
    store, asked = runner.run(connected(shared_redis, clock)), claim(fresh(), spend(10, length=months), 10)
    assert runner.run(admit(store, [asked])).is_admitted
    decisions = [runner.run(admit(counted, [asked])) for counted in (memory_after(asked, clock), store)]
    runner.run(store.aclose())

    assert shown(decisions[0]) == shown(decisions[1])


def memory_after(asked: Claim, clock: Clock) -> MemoryStore:
    store = memory(clock)
    store.admit([asked], b"o")
    return store


@pytest.mark.parametrize("step", [-30.0, -3600.0, 3600.0, -86_400.0 * 400])
def test_a_stepping_clock_leaves_nothing_stuck(runner: asyncio.Runner, shared_redis: RedisProcess, step: float) -> None:
    """RL15: a small step back changes nothing; after any step all is well again within one window."""
    clock = Clock(1_800_000_000)
    shared = runner.run(connected(shared_redis, clock))
    for store in (memory(clock), shared):
        clock.micro = 1_800_000_000_000_000
        asked = claim(fresh(), rpm(10))
        for _ in range(10):
            runner.run(admit(store, [asked]))
        clock.advance(step)
        if step == -30.0:
            assert not runner.run(admit(store, [asked])).is_admitted
        clock.advance(61 + max(-step, 0) if step == -30.0 else 61)
        assert runner.run(admit(store, [asked])).is_admitted
    runner.run(shared.aclose())


def test_a_month_survives_an_hour_back_and_forth() -> None:
    clock = Clock(datetime(2026, 11, 30, 23, 30, tzinfo=UTC).timestamp())
    store, asked = memory(clock), claim(fresh(), spend(10), 10)
    clock.advance(3600)
    assert store.admit([asked], b"o").is_admitted

    clock.advance(-3600)
    store.tick()

    assert not store.admit([asked], b"o").is_admitted


def test_memory_of_one_key_is_bounded() -> None:
    clock = Clock()
    window = Window(SlidingPeriod(60), is_calendar=False)

    for _ in range(10_000):
        window.advance(clock.micro)
        window.add(1)
        clock.advance(0.37)

    assert len(window.past) <= 2 * 60
    assert window.total <= 61 / 0.37 + 1
