"""Which deployment a call tries next, and what its attempts say of them: no socket, no waiting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breaker_cases import SERVER_ERROR, Calls, named, status_error
from gateway_middleware.breaker.failover import AttemptSequence, PlannedAttempt
from gateway_middleware.breaker.state.errors import CircuitOpenError, CoolingDownError
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.transitions import State
from gateway_middleware.core.domain import Balance, Deployment, Route, Timeouts
from gateway_middleware.core.errors import (
    ClientDisconnectedError,
    GatewayError,
    StaleConnectionError,
    TranslationError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway_middleware.core.record import Attempt

A, B, C = "a/m", "b/m", "c/m"


def failed(
    sequence: AttemptSequence, planned: PlannedAttempt, error: BaseException | None = None, *, can_move: bool = True
) -> PlannedAttempt | None:
    return sequence.failed(planned, error or status_error(500), can_move=can_move)


def walk(sequence: AttemptSequence, *errors: BaseException) -> list[str]:
    """Where a call goes whose attempts end with these errors, and then fail no more."""
    planned: PlannedAttempt | None = sequence.first()
    where: list[str] = []
    for error in [*errors, None]:
        if planned is None:
            return where
        where.append(planned.deployment.key)
        if error is None:
            sequence.succeeded(planned, None)
        else:
            planned = sequence.failed(planned, error, can_move=True)
    return where


ERRORS: list[tuple[BaseException, list[str]]] = [
    (status_error(500), [A, B]),
    (status_error(503), [A, B]),
    (StaleConnectionError("gone", was_sent=True), [A, A]),
    (UpstreamConnectError("refused"), [A, B]),
    (UpstreamTimeoutError("late", phase="first_byte"), [A, B]),
    (status_error(429), [A, B]),
    (status_error(404, b'{"error": {"code": "model_not_found"}}'), [A, B]),
    (status_error(410), [A, B]),
    (status_error(424), [A, B]),
    (status_error(501), [A, B]),
    (status_error(400), [A]),
    (status_error(422), [A]),
    (GatewayError("ours"), [A]),
    (ClientDisconnectedError(), [A]),
    (ValueError("a fault of ours"), [A]),
]


@pytest.mark.parametrize(("error", "where"), ERRORS)
def test_what_speaks_of_the_deployment_moves_on(error: BaseException, where: list[str]) -> None:
    assert walk(Calls().begin(A, B), error) == where


def test_a_stale_connection_says_nothing_of_the_deployment_and_counts_as_an_attempt() -> None:
    calls = Calls(max_attempts=2)
    calls.register(A)
    stale = StaleConnectionError("gone", was_sent=True)

    assert walk(calls.begin(A, B), stale, stale) == [A, A], "no more than two"
    assert calls.failures(A) == 0
    assert calls.budget.has_room


def test_others_come_first_and_then_the_same_after_a_pause() -> None:
    calls = Calls(max_attempts=4)
    sequence = calls.begin(A, B)
    first = sequence.first()
    second = failed(sequence, first)
    assert second is not None
    third = failed(sequence, second)
    assert third is not None
    fourth = failed(sequence, third)

    assert [p.deployment.key for p in (first, second, third)] == [A, B, A]
    assert [p.wait for p in (first, second, third)] == [0.0, 0.0, 0.25]
    assert fourth is not None
    assert failed(sequence, fourth) is None, "four attempts and no more"


def test_nothing_is_repeated_once_the_client_has_seen_something() -> None:
    calls = Calls()
    sequence = calls.begin(A, B)

    assert failed(sequence, sequence.first(), can_move=False) is None


def test_a_route_may_say_how_many_attempts_there_are() -> None:
    sequence = Calls(max_attempts=9).begin(A, B, C, max_attempts=2)

    assert walk(sequence, *[status_error(500)] * 9) == [A, B]


def test_a_refused_key_bars_all_of_its_provider() -> None:
    calls = Calls()
    sequence = calls.begin(A, "a/n", B)
    error = status_error(429, b'{"error": {"code": "insufficient_quota"}}')

    assert walk(sequence, error) == [A, B]
    event = calls.events[0]
    assert (event.deployment, event.credential, event.seconds, event.is_alarming) == (None, "a", 300.0, True)
    assert event.failure_class == "quota_exhausted"


def test_a_429_cools_the_deployment_and_a_success_ends_what_is_over() -> None:
    calls = Calls()
    assert walk(calls.begin(A, B), status_error(429, headers={"retry-after": "7"})) == [A, B]
    assert [(e.deployment, e.seconds) for e in calls.events] == [(A, 7.0)]
    assert walk(calls.begin(A, B)) == [B]
    with pytest.raises(CoolingDownError) as caught:
        calls.begin(A).first()
    assert caught.value.retry_after == 7.0
    calls.clock.advance(7)
    assert walk(calls.begin(A, B)) == [A]


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
def test_only_in_mode_on_cooldowns_are_kept_to(mode: Mode) -> None:
    calls = Calls(mode=mode)
    walk(calls.begin(A), status_error(429, headers={"retry-after": "7"}))

    assert walk(calls.begin(A)) == [A]
    assert len(calls.events) == (mode is Mode.SHADOW)


def test_a_short_429_may_be_repeated_and_a_long_one_not() -> None:
    calls = Calls()
    sequence = calls.begin(A)
    second = failed(sequence, sequence.first(), status_error(429, headers={"retry-after": "1.5"}))
    assert second is not None
    assert second.wait == 1.5
    assert failed(sequence, second, status_error(429, headers={"retry-after": "30"})) is None


def test_one_that_asks_for_time_is_not_repeated_within_the_call() -> None:
    sequence = Calls().begin(A)

    assert failed(sequence, sequence.first(), status_error(503, headers={"retry-after": "30"})) is None


def test_one_that_cools_down_meanwhile_is_passed_over() -> None:
    calls = Calls()
    sequence = calls.begin(A)
    planned = sequence.first()
    other = calls.begin(A)
    failed(other, other.first(), status_error(429, headers={"retry-after": "30"}))

    assert failed(sequence, planned) is None


def test_one_whose_breaker_opens_meanwhile_is_passed_over() -> None:
    calls = Calls()
    sequence = calls.begin(A)
    planned = sequence.first()
    calls.registry.command(A, Command.FORCE_OPEN)

    assert failed(sequence, planned) is None
    with pytest.raises(CircuitOpenError) as caught:
        calls.begin(A).first()
    assert caught.value.retry_after == 3600.0


def test_nobody_is_asked_when_the_time_of_the_call_is_over() -> None:
    calls = Calls()
    sequence = calls.begin(A, B)
    planned = sequence.first()
    calls.clock.advance(599.5)

    assert failed(sequence, planned) is None


def test_a_repeat_that_would_come_too_late_is_not_planned() -> None:
    calls = Calls()
    sequence = calls.begin(A)
    planned = sequence.first()
    calls.clock.advance(598.9)

    assert failed(sequence, planned) is None


def test_a_second_attempt_has_the_time_that_is_left_and_its_end_says_nothing_of_the_provider() -> None:
    calls = Calls()
    calls.register(A, B)
    sequence = calls.begin(A, B)
    planned = sequence.first()
    assert planned.deployment.timeouts is None
    calls.clock.advance(570)
    second = failed(sequence, planned)
    assert second is not None
    assert second.deployment.timeouts is not None
    assert (second.deployment.timeouts.first_byte, second.deployment.timeouts.answer) == (30.0, 30.0)
    failed(sequence, second, UpstreamTimeoutError("late", phase="first_byte"))

    assert calls.failures(B) == 0
    assert calls.failures(A) == 1


def test_a_deployment_with_times_of_its_own_keeps_them_while_they_fit() -> None:
    calls = Calls()
    quick = Deployment(provider="b", model="m", timeouts=Timeouts(first_byte=5.0, answer=9.0))
    own = Route(name="fast", deployments=(named(A), quick))
    sequence = calls.failover.begin(own, body=b"", started=calls.clock())
    second = failed(sequence, sequence.first())
    assert second is not None
    assert second.deployment is quick


@pytest.mark.parametrize(("code", "special"), [("context_length_exceeded", "b/long"), ("content_filter", "c/mild")])
def test_lists_for_one_failure_replace_the_rest_once(code: str, special: str) -> None:
    sequence = Calls().begin(A, "a/n", on_context_window=(named("b/long"),), on_content_policy=(named("c/mild"),))
    error = status_error(400, b'{"error": {"code": "%s"}}' % code.encode())

    assert walk(sequence, error, error) == [A, special]


def test_a_failure_whose_list_is_empty_ends_the_call() -> None:
    error = status_error(400, b'{"error": {"code": "content_filter"}}')

    assert walk(Calls().begin(A, B), error) == [A]


def test_a_client_that_gains_nothing_by_trying_again_is_told_so() -> None:
    calls = Calls(max_attempts=1)
    spent, moved, foul = status_error(500), status_error(500), status_error(400)
    walk(calls.begin(A), spent)
    walk(Calls().begin(A, B), moved)
    walk(calls.begin(A), foul)

    assert (spent.should_retry, moved.should_retry, foul.should_retry) == (False, None, None)


DENIED = status_error(403, b'{"error": {"message": "Your plan does not include this model."}}')
BLOCKED = status_error(403, b"<html>Request blocked</html>")


def test_a_refusal_cools_what_it_names() -> None:
    calls = Calls()
    assert walk(calls.begin(A, "a/n"), DENIED) == [A, "a/n"]
    assert [(event.deployment, event.seconds) for event in calls.events] == [(A, 60.0)]
    assert walk(calls.begin("a/n", B), BLOCKED) == ["a/n", B]
    assert len(calls.events) == 1, "one request says nothing of others"


def test_refusals_of_several_models_are_one_of_the_credential() -> None:
    calls = Calls()
    for name in ("a/1", "a/2"):
        walk(calls.begin(name), BLOCKED)
    walk(calls.begin("a/well"))
    for name in ("a/1", "a/2", "a/2"):
        walk(calls.begin(name), BLOCKED)
    assert calls.events == []
    walk(calls.begin("a/3"), BLOCKED)

    event = calls.events[0]
    assert (event.deployment, event.credential, event.failure_class) == (None, "a", "provider_auth")


# The retry budget: only asking the same deployment again is paid from it.


def test_a_well_backup_is_asked_however_many_call_at_once() -> None:
    calls = Calls()
    under_way = [calls.begin(A, B) for _ in range(100)]
    planned = [sequence.first() for sequence in under_way]
    following = [failed(*both) for both in zip(under_way, planned, strict=True)]

    assert {p.deployment.key for p in following if p is not None} == {B}
    assert None not in following


def test_the_same_deployment_is_asked_again_by_few_at_once() -> None:
    calls = Calls(mode=Mode.OFF)
    under_way = [calls.begin(A) for _ in range(40)]
    planned = [sequence.first() for sequence in under_way]
    following = [failed(*both) for both in zip(under_way, planned, strict=True)]

    assert sum(p is not None for p in following) == 8, "a fifth of forty"


def test_a_hedge_is_paid_from_the_budget() -> None:
    calls = Calls(mode=Mode.OFF)
    sequences = [calls.begin(A, B) for _ in range(4)]
    for sequence in sequences:
        sequence.first()
    spares = [sequence.spare() for sequence in sequences]

    assert [None if s is None else s.deployment.key for s in spares] == [B, B, B, None]
    assert spares[0] is not None
    sequences[0].succeeded(spares[0], None)
    assert sequences[3].spare() is not None
    assert sequences[0].spare() is None, "nobody is left"


ENDINGS: dict[str, BaseException] = {
    "ill": status_error(500),
    "throttled": status_error(429),
    "foul": status_error(400),
    "gone": ClientDisconnectedError(),
}
ENDING = st.sampled_from(["well", *ENDINGS])


def count_attempts(sequence: AttemptSequence, endings: dict[str, str]) -> dict[str, int]:
    """How often each deployment is asked by a call, where each ends its attempts in its own way."""
    asked = dict.fromkeys(endings, 0)
    planned: PlannedAttempt | None = sequence.first()
    while planned is not None:
        key = planned.deployment.key
        asked[key] += 1
        if endings[key] == "well":
            sequence.succeeded(planned, None)
            return asked
        planned = sequence.failed(planned, ENDINGS[endings[key]], can_move=True)
    return asked


@settings(deadline=None)
@given(st.lists(st.tuples(ENDING, ENDING), min_size=1, max_size=200), st.integers(1, 4), st.floats(0.001, 0.1))
def test_no_deployment_is_asked_again_by_more_than_a_fifth_of_the_calls(
    endings: list[tuple[str, str]], max_attempts: int, pause: float
) -> None:
    calls, repeats = Calls(mode=Mode.OFF, max_attempts=max_attempts), 0
    for ending in [("well", "well")] * 60 + endings:
        asked = count_attempts(calls.begin(A, B), dict(zip((A, B), ending, strict=True)))
        assert sum(asked.values()) <= max_attempts
        repeats += sum(max(count - 1, 0) for count in asked.values())
        calls.clock.advance(pause)

    assert repeats <= 0.2 * (60 + len(endings)) + 3


# What a call says of a deployment.


def test_all_attempts_at_one_deployment_are_one_failure() -> None:
    calls = Calls()
    calls.register(A)
    for number in range(1, 5):
        assert walk(calls.begin(A), *[status_error(500)] * 3) == [A, A, A]
        assert calls.failures(A) == number
    walk(calls.begin(A), *[status_error(500)] * 3)

    assert [step.after for step in calls.transitions] == [State.OPEN]


def test_a_deployment_that_succeeds_at_last_is_well() -> None:
    calls = Calls()
    calls.register(A)
    for _ in range(20):
        assert walk(calls.begin(A), status_error(500), status_error(500)) == [A, A, A]

    assert calls.failures(A) == 0
    assert calls.transitions == []


@pytest.mark.parametrize("last", [status_error(429), ClientDisconnectedError(), status_error(400)])
def test_a_failure_stands_when_the_last_attempt_says_nothing(last: BaseException) -> None:
    calls = Calls()
    calls.register(A)
    walk(calls.begin(A), status_error(500), last)

    assert calls.failures(A) == 1


def test_a_failure_counts_where_another_deployment_answers() -> None:
    calls = Calls()
    calls.register(A, B)
    assert walk(calls.begin(A, B), status_error(500)) == [A, B]

    assert (calls.failures(A), calls.failures(B)) == (1, 0)


def test_a_probe_is_judged_at_once() -> None:
    calls = Calls(policy=BreakerPolicy(consecutive=1))
    walk(calls.begin(A), status_error(503, headers={"retry-after": "5"}))
    calls.clock.advance(10)
    sequence = calls.begin(A)
    probe = sequence.first()

    assert failed(sequence, probe) is None, "it is open again: nobody is asked"
    assert [transition.after for transition in calls.transitions[-2:]] == [State.HALF_OPEN, State.OPEN]


def test_that_nobody_else_can_be_told_does_not_hide_why_the_first_one_failed() -> None:
    calls = Calls()
    sequence = calls.begin(A, B)
    first = UpstreamConnectError("refused")
    second = failed(sequence, sequence.first(), first)
    assert second is not None
    untold = TranslationError("cannot be said there", param="audio")
    assert failed(sequence, second, untold, can_move=False) is None

    with pytest.raises(UpstreamConnectError) as caught:
        sequence.raise_cause(untold)
    assert caught.value is first
    sequence.raise_cause(untold)


def test_a_call_that_nobody_can_be_told_fails_for_that() -> None:
    sequence = Calls().begin(A)
    untold = TranslationError("cannot be said there", param="audio")
    assert failed(sequence, sequence.first(), untold) is None
    sequence.raise_cause(untold)


def test_an_end_counts_once() -> None:
    calls = Calls()
    calls.register(A)
    sequence = calls.begin(A)
    planned = sequence.first()
    planned.on_content()
    sequence.succeeded(planned, None)
    planned.on_content()
    assert planned.end(SERVER_ERROR) is None
    failed(sequence, planned, can_move=False)

    assert calls.failures(A) == 0


def test_an_answer_that_says_itself_that_it_failed_counts_as_that() -> None:
    calls = Calls()
    calls.register(A)
    sequence = calls.begin(A)
    attempt = Attempt(deployment=named(A), started=0.0, failure=UpstreamError("failed"))
    sequence.succeeded(sequence.first(), attempt)

    assert calls.failures(A) == 1


# The order.


@pytest.mark.parametrize(
    ("balance", "affinity", "first"),
    [(Balance.ORDER, None, A), (Balance.WEIGHT, None, B), (Balance.AFFINITY, b"13", A), (Balance.AFFINITY, None, B)],
)
def test_the_balance_of_the_route_says_who_is_first(balance: Balance, affinity: bytes | None, first: str) -> None:
    calls = Calls()
    deployments = (named(A), Deployment(provider="b", model="m", weight=9))
    balanced = Route(name="fast", deployments=deployments, balance=balance)

    assert (
        calls.failover.begin(balanced, body=b"", started=calls.clock(), affinity=affinity).first().deployment.key
        == first
    )


def test_the_quickest_is_found_by_its_first_content() -> None:
    calls = Calls()
    for seconds in (2.0, 0.1):
        sequence = calls.begin(A, B, balance=Balance.LATENCY)
        planned = sequence.first()
        calls.clock.advance(seconds)
        planned.on_content()
        sequence.succeeded(planned, None)
    whole = calls.begin(A, B, balance=Balance.LATENCY)
    planned = whole.first()
    assert planned.deployment.key == B
    whole.succeeded(planned, None)
    lost = calls.begin(A, B, balance=Balance.LATENCY)
    failed(lost, lost.first(), can_move=False)

    assert calls.latencies.cost(A) > calls.latencies.cost(B)
