"""What an operator sees of all breakers and does to them, and who hears of it."""

from __future__ import annotations

import pytest

from breaker_cases import Calls, status_error
from gateway_middleware.breaker.events import BreakerEvents, CooldownEvent
from gateway_middleware.breaker.failure.rules import Cooldown, CooldownScope
from gateway_middleware.breaker.operator import Operator
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.breaker.state.transitions import State, Transition, Trigger
from gateway_middleware.core.domain import Deployment, Route
from gateway_middleware.core.errors import InvalidRequestError, PathNotFoundError

A, B = "a/m", "a/n"


@pytest.fixture
def calls() -> Calls:
    calls = Calls()
    calls.register(A, B)
    return calls


@pytest.fixture
def operator(calls: Calls) -> Operator:
    return Operator(calls.registry, calls.cooldowns, mode=Mode.ON)


def end(calls: Calls, name: str, status: int, code: str = "") -> None:
    body = b'{"error": {"code": "%s"}}' % code.encode()
    sequence = calls.begin(name)
    sequence.failed(sequence.first(), status_error(status, body), can_move=False)


def cooling(calls: Calls) -> set[tuple[str | None, str]]:
    return {(row.deployment, row.credential) for row in calls.cooldowns.snapshot()}


@pytest.mark.parametrize("ttl", [0.0, -1.0, 7 * 86400.0 + 1])
def test_a_force_has_bounds(operator: Operator, ttl: float) -> None:
    with pytest.raises(InvalidRequestError):
        operator.command(A, Command.FORCE_OPEN, ttl=ttl, reason="drill")
    with pytest.raises(InvalidRequestError):
        operator.command(A, Command.RESET, ttl=60.0, reason="drill")


def test_a_command_names_the_breakers_that_it_concerns(operator: Operator) -> None:
    assert operator.command("a", Command.FORCE_OPEN, ttl=60.0, reason="drill") == [A, B]
    assert operator.command(A, Command.AUTO, ttl=None, reason="drill") == [A]
    with pytest.raises(PathNotFoundError):
        operator.command("nobody", Command.RESET, ttl=None, reason="drill")


@pytest.mark.parametrize("key", ["a/typo", "endpoint:a.example.com:80", "A", "a/m/"])
def test_a_reset_of_what_nobody_has_called_is_no_success(operator: Operator, key: str) -> None:
    for command in (Command.RESET, Command.AUTO):
        with pytest.raises(PathNotFoundError) as refusal:
            operator.command(key, command, ttl=None, reason="drill")
        assert refusal.value.error_code == "unknown_circuit_breaker"


def test_what_was_forced_or_is_left_alone_can_be_reset(calls: Calls, operator: Operator) -> None:
    assert operator.command("a/new", Command.FORCE_OPEN, ttl=None, reason="drill") == []
    assert operator.command("a/new", Command.RESET, ttl=None, reason="drill") == []
    operator.cool_down("a/cool", "a", 30.0)
    assert operator.command("a/cool", Command.RESET, ttl=None, reason="drill") == []
    assert cooling(calls) == set()


def test_problems_are_refusals_providers_that_are_out_and_routes_that_nobody_serves(
    calls: Calls, operator: Operator
) -> None:
    routes = [
        Route(name="fast", deployments=(Deployment(provider="a", model="m"),)),
        Route(name="both", deployments=tuple(Deployment(provider="a", model=model) for model in "mn")),
    ]

    def problems() -> list[tuple[str, str]]:
        return [(problem.kind, problem.name) for problem in operator.problems(["a"], routes)]

    assert problems() == []
    operator.command(A, Command.FORCE_OPEN, ttl=60.0, reason="drill")
    assert problems() == [("route_out", "fast")]
    operator.command(B, Command.FORCE_OPEN, ttl=60.0, reason="drill")
    assert problems() == [("provider_out", "a"), ("route_out", "fast"), ("route_out", "both")]
    operator.command("a", Command.RESET, ttl=None, reason="drill")
    end(calls, B, 429)
    assert problems() == []
    end(calls, A, 429)
    assert problems() == [("route_out", "fast"), ("route_out", "both")]


def test_a_refused_key_is_a_problem_until_it_serves_again(calls: Calls, operator: Operator) -> None:
    end(calls, A, 401, "invalid_api_key")
    (problem,) = operator.problems(["a"], [])
    assert (problem.kind, problem.name) == ("provider_auth", "a")
    calls.clock.advance(3600)
    assert operator.problems(["a"], []) == [problem], "its cooldown is over, and still nothing was served"
    assert operator.problems(["b"], []) == [], "a provider that is no longer configured"
    sequence = calls.begin(A)
    sequence.succeeded(sequence.first(), None)
    assert operator.problems(["a"], []) == []


def test_a_model_that_only_a_client_has_named_is_no_problem(calls: Calls, operator: Operator) -> None:
    end(calls, A, 403, "model_access_denied")
    assert operator.problems(["a"], []) == []


@pytest.mark.parametrize(("key", "left"), [("a", set()), (A, {(B, "a")})])
def test_a_reset_forgets_cooldowns(calls: Calls, operator: Operator, key: str, left: set[tuple[str, str]]) -> None:
    end(calls, A, 429)
    end(calls, B, 429)
    operator.cool_down(None, "a", 60.0)
    assert cooling(calls) == {(A, "a"), (B, "a"), (None, "a")}

    operator.command(key, Command.RESET, ttl=None, reason="drill")

    assert cooling(calls) == left


def test_what_other_replicas_have_seen_holds_here(calls: Calls, operator: Operator) -> None:
    operator.cool_down(A, "a", 30.0)
    operator.cool_down(B, "a", 30.0)
    operator.cool_down(B, "a", 0.0)
    assert cooling(calls) == {(A, "a")}
    operator.obey("a", Command.FORCE_OPEN, 60.0, "drill")
    operator.obey("later/x", Command.FORCE_OPEN, 60.0, "drill")
    operator.obey("endpoint:a.example.com:443", Command.FORCE_CLOSE, 60.0, "drill")
    calls.register("later/x")

    rows = operator.circuit_breakers(["a", "later"])
    assert rows["a"]["deployments"][A].state is State.FORCED_OPEN
    assert rows["a"]["endpoints"]["endpoint:a.example.com:443"].state is State.FORCED_CLOSED
    assert rows["later"]["deployments"]["later/x"].state is State.FORCED_OPEN
    operator.obey("a", Command.RESET, 60.0, "drill")
    assert cooling(calls) == set()
    assert calls.registry.state("a") is State.CLOSED


def test_the_status_of_a_provider_is_that_of_its_worst_breaker(calls: Calls, operator: Operator) -> None:
    for _ in range(5):
        end(calls, A, 500)
    end(calls, B, 500)
    end(calls, B, 429)
    status = operator.status("a")

    assert (status["breaker"], status["reason"]) == (A, "5 failures in a row")
    assert status["why"] == {"server_error": 6, "rate_limited": 1}
    assert status["next_probe_in"] == 10.0
    assert status["cooldowns"] == [{"deployment": B, "seconds": 5.0, "class": "rate_limited"}]
    assert set(status["circuit_breakers"]) == {A, B, "endpoint:a.example.com:443"}


def test_of_a_provider_without_calls_nothing_is_known(operator: Operator) -> None:
    assert operator.status("new") == {
        "state": State.CLOSED,
        "mode": Mode.ON,
        "since": None,
        "reason": None,
        "why": {},
        "next_probe_in": None,
        "breaker": None,
        "cooldowns": [],
        "keys": [],
        "circuit_breakers": {},
    }


class Listener:
    def __init__(self, name: str, heard: list[str]) -> None:
        self._name, self._heard = name, heard

    def on_transition(self, transition: Transition) -> None:
        self._heard.append(f"{self._name}: {transition.after}")

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        self._heard.append(f"{self._name}: {cooldown.credential}")


def test_all_who_subscribed_hear_of_everything() -> None:
    events, heard = BreakerEvents(), list[str]()
    step = Transition(
        key=A, before=State.CLOSED, after=State.OPEN, trigger=Trigger.TRIP, reason="", at=0.0, generation=1
    )
    events.transition(step)
    for name in ("log", "metrics"):
        events.subscribe(Listener(name, heard))
    events.transition(step)
    events.cooldown(CooldownEvent(deployment=None, credential="a", seconds=1.0))

    assert heard == ["log: open", "metrics: open", "log: a", "metrics: a"]


def test_a_host_is_forced_by_its_own_key_alone(calls: Calls, operator: Operator) -> None:
    key = "endpoint:a.example.com:443"
    assert operator.command(key, Command.FORCE_OPEN, ttl=None, reason="drill") == [key]
    assert calls.registry.snapshot()["a"].deployments[A].state is State.CLOSED


def test_what_another_replica_was_refused_is_a_problem_for_as_long_as_it_lasts(
    calls: Calls, operator: Operator
) -> None:
    calls.register(A)
    operator.cool_down(None, "a", 60.0, why="provider_auth")
    (row,) = operator.status("a")["cooldowns"]
    assert row["class"] == "provider_auth"
    assert [problem.kind for problem in operator.problems(["a"], [])] == ["provider_auth"]
    calls.clock.advance(61)
    assert operator.problems(["a"], []) == [], "whether it has served since is known there"


def test_a_class_that_only_another_version_knows_is_none(calls: Calls, operator: Operator) -> None:
    operator.cool_down(A, "a", 60.0, why="sunburn")
    (row,) = operator.status("a")["cooldowns"]
    assert row["class"] is None


def test_a_cooldown_of_no_known_class_is_listed_and_explains_nothing(calls: Calls, operator: Operator) -> None:
    """As another replica tells it, without what it came from."""
    calls.cooldowns.cool(Cooldown(CooldownScope.DEPLOYMENT, 30.0), deployment=A, credential="a")
    status = operator.status("a")
    assert (len(status["cooldowns"]), status["why"]) == (1, {})
