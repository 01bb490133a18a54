"""What follows from each class of failure."""

from __future__ import annotations

import pytest

from breaker_cases import status_error, stream_error
from clock import EPOCH
from gateway_middleware.breaker.failure.classes import FailureClass as F
from gateway_middleware.breaker.failure.rules import (
    ALARMING,
    RULES,
    BreakerScope,
    Cooldown,
    CooldownScope,
    Fallback,
    Judgement,
    Retry,
    Verdict,
    judge,
    judged_for_client,
)
from gateway_middleware.core import errors
from gateway_middleware.core.domain import Outcome
from gateway_middleware.core.outcomes import outcome_of

NEITHER = None
TABLE = [
    # class, verdict, scope, retry, cooldown, fallback
    (F.DNS, "failure", "host", "anywhere", NEITHER, NEITHER),
    (F.CONNECT, "failure", "host", "anywhere", NEITHER, NEITHER),
    (F.TLS, "failure", "host", "anywhere", NEITHER, NEITHER),
    (F.TIMEOUT_CONNECT, "failure", "host", "anywhere", NEITHER, NEITHER),
    (F.TIMEOUT_FIRST_BYTE, "failure", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.TIMEOUT_IDLE, "failure", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.TIMEOUT_TOTAL, "failure", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.SERVER_ERROR, "failure", "deployment", "anywhere", NEITHER, NEITHER),
    (F.OVERLOADED, "failure", "deployment", "anywhere", NEITHER, NEITHER),
    (F.STREAM_ERROR, "failure", "deployment", "anywhere", NEITHER, NEITHER),
    (F.TRUNCATED, "failure", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.STALE_CONNECTION, "neutral", "deployment", "at_once", NEITHER, NEITHER),
    (F.GARBAGE, "failure", "deployment", "anywhere", NEITHER, NEITHER),
    (F.TOO_LONG, "neutral", "deployment", "never", NEITHER, NEITHER),
    (F.RATE_LIMITED, "neutral", "deployment", "other_deployment", ("deployment", None), NEITHER),
    (F.TOO_LARGE_FOR_LIMIT, "neutral", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.QUOTA_EXHAUSTED, "neutral", "deployment", "other_credential", ("credential", 300.0), NEITHER),
    (F.CREDIT_EXHAUSTED, "neutral", "deployment", "other_credential", ("credential", 300.0), NEITHER),
    (F.PROVIDER_AUTH, "neutral", "deployment", "other_credential", ("credential", 60.0), NEITHER),
    (F.MODEL_DENIED, "neutral", "deployment", "other_deployment", ("deployment", 60.0), NEITHER),
    (F.REQUEST_DENIED, "neutral", "deployment", "other_credential", NEITHER, NEITHER),
    (F.MODEL_NOT_FOUND, "neutral", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.NOT_SERVED, "neutral", "deployment", "other_deployment", NEITHER, NEITHER),
    (F.CONTENT_FILTER, "neutral", "deployment", "never", NEITHER, "content_policy"),
    (F.CONTEXT_WINDOW, "neutral", "deployment", "never", NEITHER, "context_window"),
    (F.CLIENT_ERROR, "neutral", "deployment", "never", NEITHER, NEITHER),
    (F.REFUSED, "neutral", "deployment", "never", NEITHER, NEITHER),
    (F.CLIENT_LEFT, "neutral", "deployment", "never", NEITHER, NEITHER),
    (F.GATEWAY_FAULT, "neutral", "deployment", "never", NEITHER, NEITHER),
]


@pytest.mark.parametrize(("name", "verdict", "scope", "retry", "cooldown", "fallback"), TABLE)
def test_rules(
    name: F, verdict: str, scope: str, retry: str, cooldown: tuple[str, float | None] | None, fallback: str | None
) -> None:
    rule = RULES[name]
    assert rule.failure_class is name
    assert (rule.verdict, rule.breaker, rule.retry) == (Verdict(verdict), BreakerScope(scope), Retry(retry))
    assert rule.cooldown == (Cooldown(CooldownScope(cooldown[0]), cooldown[1]) if cooldown else None)
    assert rule.fallback == (Fallback(fallback) if fallback else None)


def test_every_class_has_its_rule_and_what_cools_a_credential_is_an_alarm() -> None:
    assert set(RULES) == set(F) == {row[0] for row in TABLE}
    for rule in RULES.values():
        cools_all = rule.cooldown is not None and rule.cooldown.scope is CooldownScope.CREDENTIAL
        assert rule.is_alarming or not cools_all
    assert {F.QUOTA_EXHAUSTED, F.CREDIT_EXHAUSTED, F.PROVIDER_AUTH, F.MODEL_DENIED} == set(ALARMING)


def test_success() -> None:
    assert judge(None, wall=EPOCH) == Judgement(outcome=Outcome.SUCCESS, verdict=Verdict.SUCCESS)


SAME_AS_GROUND = [
    None,
    errors.UpstreamConnectError("x"),
    errors.UpstreamTimeoutError("x", phase="idle"),
    errors.UpstreamTimeoutError("x", phase="connect"),
    errors.UpstreamProtocolError("x"),
    errors.UpstreamProtocolError("closed the connection"),
    errors.ProviderAuthError("x"),
    errors.ClientDisconnectedError(),
    errors.RateLimitedError("x"),
    errors.InvalidRequestError("x"),
    ValueError(),
    stream_error("overloaded_error"),
    stream_error("rate_limit_error"),
    stream_error(None),
    status_error(400),
    status_error(404),
    status_error(429),
    status_error(500),
    status_error(529),
]


@pytest.mark.parametrize("error", SAME_AS_GROUND, ids=repr)
def test_outcomes_are_those_of_the_ground_floor(error: BaseException | None) -> None:
    assert judge(error, wall=EPOCH).outcome is outcome_of(error)


@pytest.mark.parametrize(("status", "outcome"), [(408, Outcome.SERVER_ERROR), (402, Outcome.THROTTLED)])
def test_outcomes_that_are_not_the_clients_fault(status: int, outcome: Outcome) -> None:
    assert judge(status_error(status), wall=EPOCH).outcome is outcome


def test_a_throttle_waits_as_long_as_the_provider_says() -> None:
    judgement = judge(status_error(429, headers={"retry-after": "21"}), wall=EPOCH)
    assert judgement.cooldown == Cooldown(CooldownScope.DEPLOYMENT, 21.0)
    assert judgement.retry is Retry.OTHER_DEPLOYMENT
    assert judgement.min_open is None


def test_after_a_short_wait_the_same_deployment_may_be_asked_again() -> None:
    judgement = judge(status_error(429, message="Please try again in 1.5s."), wall=EPOCH)
    assert judgement.cooldown == Cooldown(CooldownScope.DEPLOYMENT, 1.5)
    assert judgement.retry is Retry.ANYWHERE


def test_a_throttle_inside_a_stream_waits_as_well() -> None:
    judgement = judge(stream_error("rate_limit_error", message="Please try again in 9s."), wall=EPOCH)
    assert judgement.cooldown == Cooldown(CooldownScope.DEPLOYMENT, 9.0)
    assert judgement.verdict is Verdict.NEUTRAL


def test_a_named_wait_does_not_shorten_the_rest_of_a_credential() -> None:
    body = b'{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"no"}}'
    judgement = judge(status_error(429, body, headers={"retry-after": "1"}), wall=EPOCH)
    assert judgement.cooldown == Cooldown(CooldownScope.CREDENTIAL, 300.0)


@pytest.mark.parametrize("status", [500, 503, 529])
def test_retry_after_of_a_failure_is_the_least_open_time(status: int) -> None:
    assert judge(status_error(status, headers={"retry-after": "4"}), wall=EPOCH).min_open == 4.0
    assert judge(status_error(status), wall=EPOCH).min_open is None
    assert judge(status_error(400, headers={"retry-after": "4"}), wall=EPOCH).min_open is None


def test_a_provider_that_says_so_is_not_asked_again() -> None:
    assert judge(status_error(500, headers={"x-should-retry": "false"}), wall=EPOCH).retry is Retry.OTHER_DEPLOYMENT
    assert judge(status_error(500, headers={"x-should-retry": "true"}), wall=EPOCH).retry is Retry.ANYWHERE
    assert judge(status_error(400, headers={"x-should-retry": "true"}), wall=EPOCH).retry is Retry.NEVER


def test_what_shows_that_the_host_works() -> None:
    answered = {name for name, rule in RULES.items() if rule.has_answered}
    assert {F.SERVER_ERROR, F.RATE_LIMITED, F.CLIENT_ERROR, F.PROVIDER_AUTH} <= answered
    assert not answered & {F.CONNECT, F.TIMEOUT_FIRST_BYTE, F.TRUNCATED, F.CLIENT_LEFT, F.REFUSED, F.GATEWAY_FAULT}


CLIENTS = [
    (F.PROVIDER_AUTH, Outcome.CLIENT_ERROR, Retry.NEVER, None),
    (F.MODEL_DENIED, Outcome.CLIENT_ERROR, Retry.NEVER, None),
    (F.REQUEST_DENIED, Outcome.CLIENT_ERROR, Retry.NEVER, None),
    (F.QUOTA_EXHAUSTED, Outcome.THROTTLED, Retry.OTHER_CREDENTIAL, None),
    (F.CREDIT_EXHAUSTED, Outcome.THROTTLED, Retry.OTHER_CREDENTIAL, None),
]


@pytest.mark.parametrize(("name", "outcome", "retry", "cooldown"), CLIENTS)
def test_what_a_provider_says_of_a_callers_own_credential(
    name: F, outcome: Outcome, retry: Retry, cooldown: Cooldown | None
) -> None:
    judgement = judged_for_client(RULES[name])
    assert (judgement.outcome, judgement.retry, judgement.cooldown) == (outcome, retry, cooldown)
    assert (judgement.verdict, judgement.failure_class, judgement.is_alarming) == (Verdict.NEUTRAL, name, False)


@pytest.mark.parametrize("name", sorted(set(F) - {row[0] for row in CLIENTS}))
def test_everything_else_is_the_same_for_all(name: F) -> None:
    assert judged_for_client(RULES[name]) is RULES[name]
