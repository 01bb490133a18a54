"""The queue: bounded, fair, quick to refuse, and empty of those who have left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.errors import RateLimitedError, UnavailableError
from gateway_middleware.limiting.limit import Claim
from gateway_middleware.limiting.queue.fair_queue import Entry, FairQueue
from gateway_middleware.limiting.queue.waiting import WaitingRoom
from gateway_middleware.limiting.reservation import LimitReachedError, Reservation, Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import claim, fresh, rpm, slots

pytestmark = pytest.mark.anyio


def serve_one(queue: FairQueue[int], now: float = 0.0) -> Entry[int] | None:
    for entry in queue.turns():
        queue.serve(entry, now)
        return entry
    return None


def served(queue: FairQueue[int], count: int) -> list[str]:
    return [entry.tenant for i in range(count) if (entry := serve_one(queue, float(i)))]


def test_tenants_take_turns() -> None:
    """RL18: one sends ten times as much; all are served alike while they wait."""
    queue: FairQueue[int] = FairQueue()
    for number in range(60):
        queue.put(Entry(number, "loud"))
    for tenant in "abcdefghi":
        for number in range(6):
            queue.put(Entry(number, tenant))
    counts = Counter(served(queue, 60))

    shares = list(counts.values())
    assert sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares)) >= 0.95
    assert len(counts) == 10


def test_first_come_first_served_within_a_tenant() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(5):
        queue.put(Entry(number, "a"))
    found = [entry.content for _ in range(5) if (entry := serve_one(queue))]

    assert found == [0, 1, 2, 3, 4]
    assert len(queue) == 0
    assert serve_one(queue) is None


def test_priorities_go_first() -> None:
    queue: FairQueue[int] = FairQueue()
    for priority in (0, 5, -1, 5):
        queue.put(Entry(priority, f"t{priority}", priority=priority))

    assert [entry.priority for _ in range(4) if (entry := serve_one(queue))] == [5, 5, 0, -1]


def test_served_twice_is_served_once() -> None:
    queue: FairQueue[int] = FairQueue()
    entry = Entry(1, "a")
    queue.put(entry)
    queue.serve(entry, 0.0)
    queue.serve(entry, 1.0)

    assert len(queue) == 0


def test_a_blocked_tenant_does_not_block_others() -> None:
    queue: FairQueue[int] = FairQueue()
    for tenant in ("a", "b", "c"):
        for number in range(3):
            queue.put(Entry(number, tenant))
    offered = []
    for entry in queue.turns():
        offered.append(entry.tenant)
        if entry.tenant != "a":
            queue.serve(entry, 0.0)

    assert offered.count("a") == 1
    assert Counter(offered) == {"a": 1, "b": 3, "c": 3}
    assert len(queue) == queue.waiting("a") == 3


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["put", "serve", "remove"])), max_size=80))
def test_counts_stay_right(steps: list[tuple[str, str]]) -> None:
    queue: FairQueue[int] = FairQueue(per_tenant=5, total=12)
    alive: list[Entry[int]] = []
    for tenant, step in steps:
        if step == "put" and not queue.is_full and not queue.is_full_for(tenant):
            alive.append(Entry(0, tenant))
            queue.put(alive[-1])
        elif step == "serve" and (entry := serve_one(queue)):
            alive.remove(entry)
        elif step == "remove" and alive:
            queue.remove(alive[0])
            queue.remove(alive.pop(0))
        assert len(queue) == len(alive) <= 12
        for name in "abcd":
            assert queue.waiting(name) == sum(e.tenant == name for e in alive) <= 5


def test_expected_wait_follows_the_pace() -> None:
    queue: FairQueue[int] = FairQueue()
    assert queue.expected_wait("a") == 0.0
    for number in range(10):
        queue.put(Entry(number, "a"))
    for second in range(4):
        serve_one(queue, second * 0.5)

    assert queue.expected_wait("a") == pytest.approx(7 * 0.5)
    assert queue.expected_wait("b") == pytest.approx(2 * 0.5)


class Office:
    """A reservations with a queue in front of it."""

    def __init__(self, **options: float) -> None:
        self.reservations = Reservations(MemoryStore())
        self.room = WaitingRoom(self.reservations, **options)  # type: ignore[arg-type]
        self.done: list[str] = []

    async def call(self, claims: Sequence[Claim], tenant: str, seconds: float = 0.005) -> None:
        reservation = await self.room.reserve(claims, tenant)
        self.done.append(tenant)
        await asyncio.sleep(seconds)
        await reservation.settle()


async def test_starts_at_the_first_slot() -> None:
    office, tenant = Office(), fresh()
    asked, started = [claim(tenant, slots(2))], list[Reservation]()

    async def call() -> None:
        started.append(await office.room.reserve(asked, tenant))

    calls = [asyncio.create_task(call()) for _ in range(20)]
    await _turns()
    assert len(started) == 2
    for number in range(18):
        await started[number].settle()
        await _turns()
        assert len(started) == number + 3, "somebody polls, or was forgotten"

    await asyncio.gather(*calls)
    assert len(office.room.queue) == 0


async def _turns() -> None:
    """Let the event loop go on without time going on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_fair_between_tenants_on_a_shared_limit() -> None:
    office, group = Office(), claim(fresh("group"), slots(4))
    tasks = [asyncio.create_task(office.call([group], "loud")) for _ in range(60)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(office.call([group], f"t{i}")) for i in range(9) for _ in range(4)]
    await asyncio.gather(*tasks)
    counts = Counter(office.done[4:44])

    shares = list(counts.values())
    assert len(counts) == 10
    assert sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares)) >= 0.95


async def test_starts_at_the_refill() -> None:
    office, tenant = Office(max_wait=3.0), fresh()
    asked = [claim(tenant, rpm(1, seconds=1))]
    await office.call(asked, tenant)
    await office.call(asked, tenant)

    assert len(office.done) == 2


async def test_refuses_at_once_what_cannot_fit() -> None:
    office, tenant = Office(max_wait=20.0), fresh()
    asked = [claim(tenant, rpm(1))]
    await office.call(asked, tenant, 0)
    with pytest.raises(LimitReachedError) as caught:
        async with asyncio.timeout(10.0):
            await office.call(asked, tenant)

    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 50


async def test_bounded_for_each_tenant_and_in_all() -> None:
    """RL19: own cap reached is 429, capacity reached is 503; both at once, both with a time."""
    office, one = Office(max_wait=60.0, per_tenant=3, total=5), claim(fresh(), slots(1))
    held = await office.room.reserve([one], "a")
    tasks = [asyncio.create_task(office.call([one], "a")) for _ in range(3)]
    await _turns()
    with pytest.raises(RateLimitedError) as own:
        await office.call([one], "a")
    tasks += [asyncio.create_task(office.call([one], "b")) for _ in range(2)]
    await _turns()
    with pytest.raises(UnavailableError) as all_of_it:
        await office.call([one], "c")
    await held.settle()
    await asyncio.gather(*tasks)

    assert own.value.retry_after
    assert all_of_it.value.retry_after
    assert len(office.done) == 5


async def test_gives_up_after_the_longest_wait() -> None:
    office, one = Office(max_wait=0.05), claim(fresh(), slots(1))
    holder = await office.room.reserve([one], "a")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(LimitReachedError):
        await office.call([one], "b")
    assert loop.time() - began >= 0.045
    await holder.settle()

    assert office.done == []
    assert len(office.room.queue) == 0


async def test_leaves_with_its_client() -> None:
    office, one = Office(), claim(fresh(), slots(1))
    held = await office.room.reserve([one], "a")
    gone = [asyncio.create_task(office.call([one], f"gone{i}")) for i in range(10)]
    stays = asyncio.create_task(office.call([one], "stays"))
    await _turns()
    for task in gone:
        task.cancel()
    await held.settle()
    await asyncio.gather(stays, *gone, return_exceptions=True)

    assert office.done == ["stays"]
    assert len(office.room.queue) == 0
    assert (await office.reservations.decide([one], is_dry=True)).statuses[0].remaining == 1


async def test_a_client_that_leaves_as_it_is_served_gives_back() -> None:
    office, one = Office(), claim(fresh(), slots(1))
    held = await office.room.reserve([one], "a")
    waiting = asyncio.create_task(office.room.reserve([one], "b"))
    await asyncio.sleep(0.001)
    await held.settle()
    pump = office.room._pump  # noqa: SLF001  # the race is between it and a cancelled call
    assert pump is not None
    while len(office.room.queue):
        await asyncio.sleep(0)
    waiting.cancel()  # the pump has set the result, the task has not run yet
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await pump

    assert (await office.reservations.decide([one], is_dry=True)).statuses[0].remaining == 1


async def test_newcomers_do_not_slip_in_before_those_who_wait() -> None:
    office, group = Office(), claim(fresh("group"), slots(1))
    held = await office.room.reserve([group], "a")
    waiting = asyncio.create_task(office.call([group], "waits"))
    await asyncio.sleep(0.001)
    await held.settle()
    newcomer = asyncio.create_task(office.call([group], "new"))
    await asyncio.gather(waiting, newcomer)

    assert office.done == ["waits", "new"]
    assert not office.room._contended  # noqa: SLF001  # memory in use shows nowhere else


async def test_closing_sends_everybody_away() -> None:
    office, one = Office(), claim(fresh(), slots(1))
    held = await office.room.reserve([one], "a")
    waiting = [asyncio.create_task(office.room.reserve([one], "b")) for _ in range(3)]
    await asyncio.sleep(0.001)
    await office.room.aclose()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    await held.settle()

    assert [type(o) for o in outcomes] == [UnavailableError] * 3


async def test_the_time_of_those_who_waited_is_told_and_only_theirs() -> None:
    waits: list[float] = []
    reservations = Reservations(MemoryStore())
    room = WaitingRoom(reservations, max_wait=0.2, on_wait=waits.append)
    only = [claim(fresh(), slots(1))]
    first = await room.reserve(only, "a")
    assert waits == []
    with pytest.raises(RateLimitedError):
        await room.reserve(only, "a")
    assert [wait >= 0.19 for wait in waits] == [True]
    waiting = asyncio.create_task(room.reserve(only, "a"))
    await asyncio.sleep(0)
    await first.settle()
    await (await waiting).settle()
    assert len(waits) == 2
    await room.aclose()
