"""Where nobody calls, limits that one process counts alone arm no timer; the next call finds them as they must be."""

from __future__ import annotations

from clock import Clock
from gateway_middleware.limiting.counters import DecisionCounters
from gateway_middleware.limiting.limit import Alignment, Claim
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import claim, rpm, slots, spend
from timer_loop import TimerLoop, run_at_once

DAY = 86_400.0


class Counted:
    """Limits on the time of a loop; the time of day goes with it, until it is set."""

    def __init__(self, loop: TimerLoop) -> None:
        self._loop = loop
        self._day = Clock()
        self.store = MemoryStore(clock=loop.time, wall=self._wall)
        self.reservations = Reservations(self.store)
        self.reservations.start()

    def _wall(self) -> float:
        return self._day.wall() + self._loop.time()

    def set_time_of_day(self, seconds: float) -> None:
        self._day.step(seconds)

    async def come_to_rest(self) -> None:
        await self._loop.armed_in(1)
        assert self.reservations.is_resting
        assert await self._loop.armed_in(3600) == []


def test_rests_until_a_call_and_after_it() -> None:
    async def run(loop: TimerLoop) -> None:
        counted = Counted(loop)
        await counted.come_to_rest()
        reservation = await counted.reservations.reserve([claim("acme", rpm(2))])
        assert await loop.armed_in(0.25) == [0.25]
        await counted.come_to_rest()
        reservation.end(requests=0)
        assert await loop.armed_in(0.25) == [0.25]
        await counted.come_to_rest()
        await counted.reservations.aclose()
        assert not counted.reservations.is_resting

    run_at_once(run)


def test_a_call_that_follows_a_plan_wakes_by_its_end_too() -> None:
    async def run(loop: TimerLoop) -> None:
        counted = Counted(loop)
        cells = counted.reservations.cells([claim("acme", rpm(2))])
        assert cells is not None
        counted.reservations.start_late()
        planned = counted.reservations.take_planned(cells, 0, 0)
        assert planned is not None
        await counted.come_to_rest()
        planned.end(requests=0)
        assert not counted.reservations.is_resting
        await counted.reservations.aclose()

    run_at_once(run)


def test_a_lease_is_renewed_for_as_long_as_it_is_held() -> None:
    async def run(loop: TimerLoop) -> None:
        counted = Counted(loop)
        held = await counted.reservations.reserve([claim("acme", slots(1))])
        await loop.armed_in(3600)
        assert not counted.reservations.is_resting
        assert counted.store.used(claim("acme", slots(1)).key) == 1
        held.end()
        await counted.come_to_rest()

    run_at_once(run)


def test_many_keys_are_swept_before_it_rests() -> None:
    async def run(loop: TimerLoop) -> None:
        counted = Counted(loop)
        for number in range(1000):
            await counted.reservations.reserve([claim(f"tenant-{number}", rpm())])
        await loop.armed_in(60)
        assert not counted.reservations.is_resting
        await loop.armed_in(120)
        await counted.come_to_rest()
        assert len(counted.store) <= 256

    run_at_once(run)


def test_a_day_that_was_set_meanwhile_is_that_of_the_next_call_and_of_the_next_end() -> None:
    async def run(loop: TimerLoop) -> None:
        counted = Counted(loop)
        limit = spend(10, Alignment.DAYS)
        budget: Claim = claim("acme", limit, 10)
        first = await counted.reservations.reserve([budget])
        await counted.come_to_rest()
        counted.set_time_of_day(DAY)
        assert (await counted.reservations.reserve([budget])).decision.is_admitted
        await counted.come_to_rest()
        counted.set_time_of_day(DAY)
        first.end(spend=0)
        assert counted.store.used(budget.key) == 0

    run_at_once(run)


def test_counters_tell_once_that_there_is_something_to_count() -> None:
    news: list[None] = []
    counters = DecisionCounters(on_news=lambda: news.append(None))
    store = MemoryStore(clock=Clock())
    asked = [claim("acme", rpm())]
    for _ in range(3):
        counters.note("acme", store.admit(asked, b"o"))
    assert len(news) == 1
    counters.refresh()
    reservations = Reservations(store)
    cells = reservations.cells(asked)
    assert cells is not None
    tallies = [counters.tally(tenant, [rpm()]) for tenant in ("acme", "other")]
    for tally in (*tallies, *tallies):
        planned = reservations.take_planned(cells, 0, 0)
        assert planned is not None
        tally.note(planned)
    assert len(news) == 2
    assert {counts.admitted for counts in counters.counts().values()} == {5, 2}
