"""The window against one that keeps every event for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.breaker.state.window import FAILURE, SLOW, SUCCESS, Window

pauses = st.tuples(st.just("pause"), st.one_of(st.integers(0, 8), st.integers(0, 200)))
adds = st.tuples(st.just("add"), st.integers(0, 2))
replacements = st.tuples(st.just("take back"), st.integers(0, 5))
clears = st.tuples(st.just("clear"), st.just(0))


@given(
    st.integers(0, 100_000),
    st.lists(st.one_of(pauses, adds, adds, replacements, clears), max_size=80),
    st.sampled_from([(60.0, 10), (10.0, 10), (12.0, 3), (5.0, 1)]),
)
def test_totals(start: int, steps: list[tuple[str, int]], shape: tuple[float, int]) -> None:
    seconds, buckets = shape
    window, now = Window(seconds, buckets=buckets), float(start)
    events: list[tuple[int, int]] = []  # bucket, column
    for kind, number in steps:
        if kind == "pause":
            now += number
        elif kind == "add":
            bucket = window.add(now, number)
            assert bucket == int(now // (seconds / buckets))
            events.append((bucket, number))
        elif kind == "take back" and number < len(events):
            bucket, column = events.pop(-1 - number)
            window.take_back(now, column, bucket)
        elif kind == "clear":
            window.clear()
            events.clear()
        window.advance(now)
        oldest = int(now // (seconds / buckets)) - buckets
        live = [column for bucket, column in events if bucket > oldest]
        assert window.totals == [live.count(SUCCESS), live.count(FAILURE), live.count(SLOW)]


def test_a_clock_that_steps_back_counts_on() -> None:
    window = Window(10.0)
    window.add(100.0, SUCCESS)
    window.add(95.0, FAILURE)
    assert window.totals == [1, 1, 0]
    window.advance(109.9)
    assert window.totals == [1, 1, 0]
    window.advance(110.0)
    assert window.totals == [0, 0, 0]


def test_a_long_silence_costs_no_more_than_one_turn() -> None:
    window = Window(60.0)
    window.add(0.0, SUCCESS)
    window.advance(1e15)
    assert window.totals == [0, 0, 0]
