"""Deadlines that only ever move away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_cases import deployment
from clock import Clock
from gateway_middleware.breaker.cooldown import Cooldowns, Cooling, Throttling
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import RULES, Cooldown, CooldownScope

ONE, ALL = CooldownScope.DEPLOYMENT, CooldownScope.CREDENTIAL
A, B, KEY = "openai/a", "openai/b", "openai"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cooldowns(clock: Clock) -> Cooldowns:
    return Cooldowns(clock)


def throttle(cooldowns: Cooldowns, seconds: float | None = None, deployment: str = A) -> float:
    return cooldowns.cool(Cooldown(ONE, seconds), deployment=deployment, credential=KEY)


def test_cb5_the_latest_deadline_wins(clock: Clock, cooldowns: Cooldowns) -> None:
    assert throttle(cooldowns, 3) == 3
    assert throttle(cooldowns, 6) == 6
    assert throttle(cooldowns, 1) == 6
    clock.advance(5.9)
    assert cooldowns.wait(A, KEY) == pytest.approx(0.1)
    clock.advance(0.1)
    assert cooldowns.wait(A, KEY) == 0.0


def test_a_deployment_cools_alone_and_a_credential_with_all(cooldowns: Cooldowns) -> None:
    throttle(cooldowns, 3)
    assert (cooldowns.wait(A, KEY), cooldowns.wait(B, KEY), cooldowns.wait(A, "other")) == (3, 0, 0)
    cooldowns.cool(Cooldown(ALL, 60.0), deployment=A, credential=KEY)
    assert (cooldowns.wait(A, KEY), cooldowns.wait(B, KEY), cooldowns.wait(A, "other")) == (60, 60, 0)


def test_without_a_hint_it_grows_and_a_success_ends_that(clock: Clock, cooldowns: Cooldowns) -> None:
    waits = []
    for _ in range(6):
        waits.append(throttle(cooldowns))
        clock.advance(waits[-1])
    assert waits == [5, 10, 20, 40, 60, 60]
    cooldowns.succeeded(A, KEY)
    assert throttle(cooldowns) == 5


def test_a_burst_of_refusals_is_one(clock: Clock, cooldowns: Cooldowns) -> None:
    for _ in range(50):
        throttle(cooldowns)
    assert cooldowns.wait(A, KEY) == 5
    clock.advance(5)
    assert throttle(cooldowns) == 10


def test_a_success_of_an_older_call_ends_nothing(clock: Clock, cooldowns: Cooldowns) -> None:
    throttle(cooldowns)
    clock.advance(1)
    cooldowns.succeeded(A, KEY)
    assert cooldowns.wait(A, KEY) == 4
    clock.advance(4)
    assert throttle(cooldowns) == 10


def test_reset(cooldowns: Cooldowns) -> None:
    throttle(cooldowns, 9, A)
    throttle(cooldowns, 9, B)
    cooldowns.cool(Cooldown(ALL, 60.0), deployment=A, credential="azure")
    cooldowns.reset(deployment=A)
    assert (cooldowns.wait(A, KEY), cooldowns.wait(B, KEY), cooldowns.wait(A, "azure")) == (0, 9, 60)
    cooldowns.reset(credential="azure")
    assert (cooldowns.wait(B, KEY), cooldowns.wait(A, "azure")) == (9, 0)
    cooldowns.reset()
    assert cooldowns.snapshot() == []


def test_snapshot(clock: Clock, cooldowns: Cooldowns) -> None:
    throttle(cooldowns, 3, A)
    throttle(cooldowns, 9, B)
    clock.advance(4)
    assert cooldowns.snapshot() == [Cooling(deployment=B, credential=KEY, seconds=5)]


def test_memory_is_bounded_and_the_longest_stay(clock: Clock) -> None:
    cooldowns = Cooldowns(clock, max_entries=100)
    throttle(cooldowns, 299, "openai/kept")
    for number in range(10_000):
        throttle(cooldowns, 1 + number % 50, f"openai/{number}")
    assert len(cooldowns.snapshot()) <= 100
    assert cooldowns.wait("openai/kept", KEY) == 299


steps = st.lists(
    st.one_of(
        st.tuples(st.just("cool"), st.one_of(st.none(), st.integers(1, 100))),
        st.tuples(st.just("pause"), st.integers(0, 30)),
        st.tuples(st.just("success"), st.none()),
    ),
    max_size=40,
)


@given(steps)
def test_a_deadline_never_comes_nearer(script: list[tuple[str, int | None]]) -> None:
    clock = Clock()
    cooldowns = Cooldowns(clock)
    latest = clock()
    for kind, number in script:
        if kind == "pause":
            clock.advance(number or 0)
        elif kind == "success":
            cooldowns.succeeded(A, KEY)
        else:
            asked = clock() + (number or 0)
            until = clock() + throttle(cooldowns, number)
            assert until >= max(latest, asked)
            assert number is None or until == max(latest, asked)
            latest = until
        assert cooldowns.wait(A, KEY) == max(latest - clock(), 0)


def test_nobody_needs_to_listen(clock: Clock, cooldowns: Cooldowns) -> None:
    throttling = Throttling(cooldowns)
    throttling.learn(deployment("a"), RULES[FailureClass.RATE_LIMITED])

    assert throttling.wait(deployment("a")) == 5.0
