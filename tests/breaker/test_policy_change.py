"""Other numbers for a breaker that lives: they hold at once, and its state stays."""

from __future__ import annotations

import pytest

from breaker_cases import SERVER_ERROR, fail, half_open, make_breaker, succeed, taken
from clock import Clock
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.transitions import State


def test_fewer_failures_in_a_row_are_enough_and_those_before_count() -> None:
    breaker = make_breaker(Clock())
    fail(breaker, 1)
    breaker.policy = BreakerPolicy(consecutive=2)
    before = breaker.state
    fail(breaker, 1)

    assert (before, breaker.state) == (State.CLOSED, State.OPEN)
    assert breaker.policy.consecutive == 2


def test_an_open_time_is_cut_to_the_new_cap_and_never_prolonged() -> None:
    clock = Clock()
    breaker = make_breaker(clock, BreakerPolicy(open_base=200.0))
    fail(breaker, 5)
    breaker.policy = BreakerPolicy(open_base=5.0, open_cap=20.0)
    assert breaker.retry_after() == 20.0
    breaker.policy = BreakerPolicy(open_base=100.0, open_cap=300.0)
    assert breaker.retry_after() == 20.0
    clock.advance(20)

    assert breaker.try_acquire() is not None
    assert breaker.state is State.HALF_OPEN


def test_the_doubling_stops_at_the_new_cap() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    for _ in range(6):
        permit = half_open(breaker, clock) if breaker.state is State.CLOSED else taken(breaker)
        permit.fail(SERVER_ERROR)
        clock.advance(breaker.retry_after())
    breaker.policy = BreakerPolicy(open_cap=20.0)

    assert breaker.level == 1
    taken(breaker).fail(SERVER_ERROR)
    assert breaker.retry_after() == 20.0


def test_a_probe_that_is_out_stays_the_probe() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    probe = half_open(breaker, clock)
    breaker.policy = BreakerPolicy(probe_successes=1, window=10.0)
    assert breaker.try_acquire() is None
    probe.succeed()

    assert breaker.state is State.CLOSED


def test_a_window_of_another_shape_begins_empty_and_does_not_count_calls_under_way() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    under_way, streaming = taken(breaker), taken(breaker)
    streaming.provisional(0.1)
    fail(breaker, 4)
    breaker.policy = BreakerPolicy(window=10.0, buckets=5)
    under_way.fail(SERVER_ERROR)
    streaming.fail(SERVER_ERROR)

    snapshot = breaker.snapshot()
    assert (snapshot.successes, snapshot.failures, snapshot.consecutive_failures) == (0, 0, 4)
    fail(breaker, 1)
    assert breaker.state is State.OPEN


def test_the_same_numbers_change_nothing() -> None:
    breaker = make_breaker(Clock())
    permit = taken(breaker)
    breaker.policy = BreakerPolicy()
    permit.fail(SERVER_ERROR)

    assert breaker.snapshot().failures == 1


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW])
def test_an_open_breaker_lets_all_through_in_a_mode_that_refuses_nothing(mode: Mode) -> None:
    breaker = make_breaker(Clock())
    fail(breaker, 5)
    breaker.policy = BreakerPolicy(mode=mode)

    assert breaker.try_acquire() is not None
    breaker.policy = BreakerPolicy()
    assert breaker.try_acquire() is None


def test_off_counts_nothing_and_on_counts_again() -> None:
    breaker = make_breaker(Clock())
    breaker.policy = BreakerPolicy(mode=Mode.OFF)
    fail(breaker, 9)
    assert breaker.snapshot().failures == 0
    breaker.policy = BreakerPolicy()
    succeed(breaker, 1)
    fail(breaker, 5)

    assert breaker.state is State.OPEN
