"""Which workers should run, as tables and as a property: no clock, no process."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.serving.crew import Crew, Ending


def serving(size: int = 2) -> Crew:
    """A crew whose workers take calls since 0; their process ids are 100, 101, ..."""
    crew = Crew(size, now=0.0)
    for slot in crew.due(0.0):
        crew.started(slot, 100 + slot.number, 0.0)
        crew.ready(100 + slot.number)
    return crew


def test_all_are_started_at_once_and_ready_together() -> None:
    crew = Crew(2, now=0.0)
    first, second = crew.due(0.0)
    crew.started(first, 1, 0.0)
    crew.started(second, 2, 0.0)
    assert (crew.due(0.0), crew.next_due(0.0), crew.pids) == ([], None, [1, 2])
    crew.ready(1)
    assert not crew.is_ready
    crew.ready(2)
    assert crew.is_ready


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_worker_that_cannot_start_is_fatal_until_one_could(is_ready: bool) -> None:
    crew = Crew(2, now=0.0)
    for slot in crew.due(0.0):
        crew.started(slot, slot.number, 0.0)
    if is_ready:
        crew.ready(0)
    assert crew.ended(1, 0.5) is (Ending.REPLACED if is_ready else Ending.FATAL)


def test_a_steady_worker_is_replaced_at_once() -> None:
    crew = serving()
    assert crew.ended(100, 60.0) is Ending.REPLACED
    (slot,) = crew.due(60.0)
    assert (slot.number, slot.is_replacement, crew.next_due(60.0), crew.is_ready) == (0, True, 0.0, False)


def test_one_that_dies_again_and_again_is_replaced_ever_more_slowly() -> None:
    crew = serving(1)
    now, pauses = 0.0, []
    for _ in range(10):
        assert crew.ended(100, now) is Ending.REPLACED
        pause = crew.next_due(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
        (slot,) = crew.due(now)
        crew.started(slot, 100, now)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    assert crew.ended(100, now + 11.0) is Ending.REPLACED
    assert crew.next_due(now + 11.0) == 0.0


def test_who_leaves_starts_nobody() -> None:
    crew = serving()
    crew.leave()
    assert (crew.ended(100, 1.0), crew.due(1.0), crew.next_due(1.0), crew.pids) == (Ending.EXPECTED, [], None, [101])


def test_children_of_others_are_none_of_ours() -> None:
    crew = serving()
    assert crew.ended(999, 1.0) is None
    crew.ready(999)
    assert crew.pids == [100, 101]


EVENTS = st.lists(
    st.tuples(st.sampled_from(["die", "ready", "tick"]), st.integers(0, 3), st.floats(0, 20)), max_size=60
)


@given(EVENTS)
@settings(deadline=None)
def test_a_place_never_has_two_workers_and_never_stays_empty(events: list[tuple[str, int, float]]) -> None:
    crew, now, pid = serving(4), 0.0, 1000
    for kind, number, seconds in events:
        now += seconds
        slot = crew.slots[number]
        if kind == "die" and slot.pid is not None:
            assert crew.ended(slot.pid, now) is Ending.REPLACED
        elif kind == "ready" and slot.pid is not None:
            crew.ready(slot.pid)
        for empty in crew.due(now):
            assert empty.pid is None
            pid += 1
            crew.started(empty, pid, now)
        assert len(set(crew.pids)) == len(crew.pids) <= 4
        pause = crew.next_due(now)
        assert (pause is None) == (len(crew.pids) == 4)
        assert pause is None or pause <= 30.0
