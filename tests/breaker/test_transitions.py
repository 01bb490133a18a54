"""The table, cell by cell, and that the engine can do nothing that is not in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from breaker_cases import SERVER_ERROR, fail, half_open, make_breaker, taken
from clock import Clock
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.transitions import TABLE, State, Transition, Trigger

TRIGGERS = list(Trigger)
OPEN, HALF, SHUT, F_OPEN, F_SHUT = "open", "half_open", "closed", "forced_open", "forced_closed"
CELLS: dict[str, list[str]] = {
    #       trip  waited recovered relapsed force_open force_close auto expire reset
    SHUT:   [OPEN, "",   "",       "",      F_OPEN,    F_SHUT,     "",   "",    SHUT],
    OPEN:   ["",   HALF, "",       "",      F_OPEN,    F_SHUT,     "",   "",    SHUT],
    HALF:   ["",   "",   SHUT,     OPEN,    F_OPEN,    F_SHUT,     "",   "",    SHUT],
    F_OPEN: ["",   "",   "",       "",      F_OPEN,    F_SHUT,     HALF, HALF,  SHUT],
    F_SHUT: ["",   "",   "",       "",      F_OPEN,    F_SHUT,     SHUT, SHUT,  SHUT],
}  # fmt: skip
ALL = [(State(state), trigger, cells[i]) for state, cells in CELLS.items() for i, trigger in enumerate(TRIGGERS)]


@pytest.mark.parametrize(("state", "trigger", "after"), ALL)
def test_cells(state: State, trigger: Trigger, after: str) -> None:
    assert TABLE[state].get(trigger) == (State(after) if after else None)


def in_state(state: State, clock: Clock, log: list[Transition]) -> CircuitBreaker:
    breaker = make_breaker(clock, log=log)
    if state is State.OPEN:
        fail(breaker, 5)
    elif state is State.HALF_OPEN:
        half_open(breaker, clock).release()
    elif state is State.FORCED_OPEN:
        breaker.force_open()
    elif state is State.FORCED_CLOSED:
        breaker.force_close()
    assert breaker.state is state
    log.clear()
    return breaker


def trip(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(5):
        permit = breaker.try_acquire()
        if permit is not None:
            permit.fail(SERVER_ERROR)
        if breaker.state is State.OPEN:
            return


def wait(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.advance(300)
    breaker.try_acquire()


def recover(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(2):
        permit = breaker.try_acquire()
        if permit is not None:
            permit.succeed()


def expire(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.advance(3600)
    breaker.current_state()


ACTIONS: dict[Trigger, Callable[[CircuitBreaker, Clock], None]] = {
    Trigger.TRIP: trip,
    Trigger.RELAPSED: trip,
    Trigger.WAITED: wait,
    Trigger.RECOVERED: recover,
    Trigger.FORCE_OPEN: lambda breaker, clock: breaker.force_open(),
    Trigger.FORCE_CLOSE: lambda breaker, clock: breaker.force_close(),
    Trigger.AUTO: lambda breaker, clock: breaker.auto(),
    Trigger.EXPIRE: expire,
    Trigger.RESET: lambda breaker, clock: breaker.reset(),
}
DRIVEN = [cell for cell in ALL if (cell[0], cell[1]) not in {
    (State.CLOSED, Trigger.RELAPSED), (State.HALF_OPEN, Trigger.TRIP)  # the same failures, under another name
}]  # fmt: skip


@pytest.mark.parametrize(("state", "trigger", "after"), DRIVEN)
def test_the_engine_walks_the_table(state: State, trigger: Trigger, after: str) -> None:
    clock, log = Clock(), list[Transition]()
    breaker = in_state(state, clock, log)
    generation = breaker.generation
    ACTIONS[trigger](breaker, clock)
    assert breaker.state == (after or state)
    assert breaker.generation == generation + bool(after)
    steps = [(step.before, step.trigger, step.after, step.generation) for step in log]
    assert steps == ([(state, trigger, State(after), breaker.generation)] if after else [])


def test_a_transition_says_when_why_and_for_how_long() -> None:
    clock, log = Clock(), list[Transition]()
    breaker = make_breaker(clock, log=log)
    clock.advance(7)
    fail(breaker, 5)
    breaker.force_open(30, reason="maintenance")
    tripped, forced = log
    assert (tripped.key, tripped.reason, tripped.seconds) == ("openai/gpt-5", "5 failures in a row", 10.0)
    assert (tripped.at, forced.reason, forced.seconds) == (clock.wall(), "maintenance", 30.0)


def test_the_callback_sees_a_complete_transition() -> None:
    clock, seen = Clock(), list[State]()
    breaker = CircuitBreaker(
        BreakerPolicy(),
        clock=clock,
        wall=clock.wall,
        random=lambda: 0.5,
        on_transition=lambda step: seen.append(breaker.snapshot().state),
    )
    fail(breaker, 5)
    clock.advance(10)
    taken(breaker).succeed()
    taken(breaker).succeed()
    assert seen == [State.OPEN, State.HALF_OPEN, State.CLOSED]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_force_holds_in_every_mode(mode: Mode) -> None:
    clock = Clock()
    breaker = make_breaker(clock, BreakerPolicy(mode=mode))
    breaker.force_open(30)
    assert breaker.try_acquire() is None
    assert breaker.retry_after() == 30
    clock.advance(30)
    assert breaker.try_acquire() is not None
    breaker.force_close()
    assert breaker.try_acquire() is not None


def test_off_knows_no_probes() -> None:
    breaker = make_breaker(Clock(), BreakerPolicy(mode=Mode.OFF))
    breaker.force_open()
    breaker.auto()
    assert breaker.state is State.CLOSED
