"""A breaker that shares its probes: the gate is asked before each, and told of its end."""

from __future__ import annotations

import pytest

from breaker_cases import SERVER_ERROR, fail, no_jitter, taken
from clock import Clock
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.breaker.state.probe_gate import GATE_PATIENCE
from gateway_middleware.breaker.state.transitions import State


class Gate:
    """Lets probes through when the test says so; keeps a list of what it was told."""

    def __init__(self) -> None:
        self.is_ours = False
        self.told: list[str] = []

    def prepare(self, key: str) -> None:
        self.told.append("prepare")

    def may_probe(self, key: str, ttl: float) -> bool:
        self.told.append(f"may probe for {ttl:g}")
        return self.is_ours

    def ended(self, key: str, *, again: bool) -> None:
        self.told.append("again" if again else "over")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def breaker(clock: Clock, gate: Gate) -> CircuitBreaker:
    """Open, for ten seconds."""
    breaker = CircuitBreaker(BreakerPolicy(), clock=clock, wall=clock.wall, random=no_jitter, key="k", gate=gate)
    fail(breaker, 5)
    return breaker


def test_the_lease_is_prepared_shortly_before_it_is_wanted(breaker: CircuitBreaker, clock: Clock, gate: Gate) -> None:
    assert breaker.try_acquire() is None
    assert gate.told == []
    clock.advance(9.8)
    assert breaker.try_acquire() is None
    assert gate.told == ["prepare"]
    assert breaker.state is State.OPEN


def test_another_replicas_probe_is_waited_for(breaker: CircuitBreaker, clock: Clock, gate: Gate) -> None:
    clock.advance(10)
    assert breaker.try_acquire() is None
    assert (breaker.state, breaker.retry_after()) == (State.HALF_OPEN, GATE_PATIENCE)
    assert gate.told == ["prepare", "may probe for 61"]
    gate.is_ours = True
    assert breaker.try_acquire() is not None
    assert breaker.retry_after() == 1.0


def test_the_gate_hears_how_a_probe_ends(breaker: CircuitBreaker, clock: Clock, gate: Gate) -> None:
    gate.is_ours = True
    clock.advance(10)
    for end in ("release", "succeed", "fail"):
        gate.told.clear()
        permit = taken(breaker)
        assert permit.is_probe
        if end == "fail":
            permit.fail(SERVER_ERROR)
        else:
            getattr(permit, end)()
        assert gate.told[-1] == ("over" if end == "fail" else "again")
    assert breaker.state is State.OPEN


def test_after_recovery_the_lease_is_given_back(breaker: CircuitBreaker, clock: Clock, gate: Gate) -> None:
    gate.is_ours = True
    clock.advance(10)
    for _ in range(2):
        taken(breaker).succeed()

    assert breaker.state is State.CLOSED
    assert gate.told[-1] == "over"
