"""What the gateway makes of an attempt: one table from the class of a failure to everything that follows from it.

The table says what may be done *before* the first content has gone to the client; after it nothing is ever retried.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway_middleware.breaker.failure.classes import FailureClass, classify
from gateway_middleware.breaker.failure.retry_after import requested_wait, retry_after
from gateway_middleware.core.domain import Outcome
from gateway_middleware.core.errors import UpstreamStatusError, UpstreamStreamError


class Verdict(StrEnum):
    """What a breaker makes of an outcome. NEUTRAL says nothing about the provider's health."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class BreakerScope(StrEnum):
    """Which breaker a failure is for: that of the host, or that of the deployment on it."""

    HOST = "host"
    DEPLOYMENT = "deployment"


class Retry(StrEnum):
    """Where the call may go next.

    AT_ONCE: the same deployment, over a fresh connection. ANYWHERE: another deployment first, then the same one, after
    its cooldown.
    """

    NEVER = "never"
    AT_ONCE = "at_once"
    OTHER_CREDENTIAL = "other_credential"
    OTHER_DEPLOYMENT = "other_deployment"
    ANYWHERE = "anywhere"


class Fallback(StrEnum):
    """The list of a route that is for this failure alone."""

    CONTEXT_WINDOW = "context_window"
    CONTENT_POLICY = "content_policy"


class CooldownScope(StrEnum):
    """What is left alone: the deployment under this credential, or everything under this credential."""

    DEPLOYMENT = "deployment"
    CREDENTIAL = "credential"


class Cooldown(msgspec.Struct, frozen=True):
    """Leave something alone for `seconds`; None: the provider did not say, so for longer each time."""

    scope: CooldownScope
    seconds: float | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that follows from one attempt.

    `has_answered`: an HTTP answer came, so the endpoint works. `min_open`: seconds the provider asked for with a
    failure, the least that a breaker which opens now stays open. `is_alarming`: an operator must look.
    """

    failure_class: FailureClass | None = None
    outcome: Outcome
    verdict: Verdict = Verdict.NEUTRAL
    breaker: BreakerScope = BreakerScope.DEPLOYMENT
    has_answered: bool = True
    cooldown: Cooldown | None = None
    retry: Retry = Retry.NEVER
    fallback: Fallback | None = None
    min_open: float | None = None
    is_alarming: bool = False

    @property
    def is_of_credential(self) -> bool:
        """Whether the provider has spoken of the credential, so that it may say otherwise of another one."""
        return self.failure_class in _OF_CREDENTIAL


_OF_CREDENTIAL = frozenset({
    FailureClass.RATE_LIMITED, FailureClass.TOO_LARGE_FOR_LIMIT, FailureClass.QUOTA_EXHAUSTED,
    FailureClass.CREDIT_EXHAUSTED, FailureClass.PROVIDER_AUTH, FailureClass.MODEL_DENIED, FailureClass.REQUEST_DENIED,
})  # fmt: skip
SUCCEEDED = Judgement(outcome=Outcome.SUCCESS, verdict=Verdict.SUCCESS)

_MAX_WAIT_WITHIN_CALL = 2.0
_FAILURE, _HOST = Verdict.FAILURE, BreakerScope.HOST
_QUOTA = Cooldown(CooldownScope.CREDENTIAL, 300.0)
_AUTH = Cooldown(CooldownScope.CREDENTIAL, 60.0)


def _unreachable(outcome: Outcome) -> Judgement:
    return Judgement(outcome=outcome, verdict=_FAILURE, breaker=_HOST, has_answered=False, retry=Retry.ANYWHERE)


def _silent() -> Judgement:
    """The provider may still work on the call, and bill it: it is not asked twice."""
    return Judgement(outcome=Outcome.TIMEOUT, verdict=_FAILURE, has_answered=False, retry=Retry.OTHER_DEPLOYMENT)


def _failed(outcome: Outcome, retry: Retry = Retry.ANYWHERE, *, has_answered: bool = True) -> Judgement:
    return Judgement(outcome=outcome, verdict=_FAILURE, has_answered=has_answered, retry=retry)


def _exhausted(outcome: Outcome, cooldown: Cooldown) -> Judgement:
    return Judgement(outcome=outcome, cooldown=cooldown, retry=Retry.OTHER_CREDENTIAL, is_alarming=True)


def _rejected(retry: Retry = Retry.NEVER, fallback: Fallback | None = None) -> Judgement:
    return Judgement(outcome=Outcome.CLIENT_ERROR, retry=retry, fallback=fallback)


def _ours(outcome: Outcome) -> Judgement:
    return Judgement(outcome=outcome, has_answered=False)


_ROWS: dict[FailureClass, Judgement] = {
    FailureClass.DNS: _unreachable(Outcome.CONNECT_ERROR),
    FailureClass.CONNECT: _unreachable(Outcome.CONNECT_ERROR),
    FailureClass.TLS: _unreachable(Outcome.CONNECT_ERROR),
    FailureClass.TIMEOUT_CONNECT: _unreachable(Outcome.TIMEOUT),
    FailureClass.TIMEOUT_FIRST_BYTE: _silent(),
    FailureClass.TIMEOUT_IDLE: _silent(),
    FailureClass.TIMEOUT_TOTAL: _silent(),
    FailureClass.SERVER_ERROR: _failed(Outcome.SERVER_ERROR),
    FailureClass.OVERLOADED: _failed(Outcome.SERVER_ERROR),
    FailureClass.STREAM_ERROR: _failed(Outcome.STREAM_ERROR),
    FailureClass.TRUNCATED: _failed(Outcome.PROTOCOL_ERROR, Retry.OTHER_DEPLOYMENT, has_answered=False),
    FailureClass.STALE_CONNECTION: Judgement(outcome=Outcome.PROTOCOL_ERROR, has_answered=False, retry=Retry.AT_ONCE),
    FailureClass.GARBAGE: _failed(Outcome.PROTOCOL_ERROR, has_answered=False),
    FailureClass.TOO_LONG: Judgement(outcome=Outcome.PROTOCOL_ERROR),
    FailureClass.RATE_LIMITED: Judgement(
        outcome=Outcome.THROTTLED, cooldown=Cooldown(CooldownScope.DEPLOYMENT), retry=Retry.OTHER_DEPLOYMENT
    ),
    FailureClass.TOO_LARGE_FOR_LIMIT: Judgement(outcome=Outcome.THROTTLED, retry=Retry.OTHER_DEPLOYMENT),
    FailureClass.QUOTA_EXHAUSTED: _exhausted(Outcome.THROTTLED, _QUOTA),
    FailureClass.CREDIT_EXHAUSTED: _exhausted(Outcome.THROTTLED, _QUOTA),
    FailureClass.PROVIDER_AUTH: _exhausted(Outcome.PROVIDER_AUTH, _AUTH),
    FailureClass.MODEL_DENIED: Judgement(
        outcome=Outcome.PROVIDER_AUTH,
        cooldown=Cooldown(CooldownScope.DEPLOYMENT, 60.0),
        retry=Retry.OTHER_DEPLOYMENT,
        is_alarming=True,
    ),
    FailureClass.REQUEST_DENIED: Judgement(outcome=Outcome.PROVIDER_AUTH, retry=Retry.OTHER_CREDENTIAL),
    FailureClass.MODEL_NOT_FOUND: _rejected(Retry.OTHER_DEPLOYMENT),
    FailureClass.NOT_SERVED: _rejected(Retry.OTHER_DEPLOYMENT),
    FailureClass.CONTENT_FILTER: _rejected(fallback=Fallback.CONTENT_POLICY),
    FailureClass.CONTEXT_WINDOW: _rejected(fallback=Fallback.CONTEXT_WINDOW),
    FailureClass.CLIENT_ERROR: _rejected(),
    FailureClass.REFUSED: _ours(Outcome.REFUSED),
    FailureClass.CLIENT_LEFT: _ours(Outcome.CLIENT_DISCONNECT),
    FailureClass.GATEWAY_FAULT: _ours(Outcome.GATEWAY_ERROR),
}
RULES: dict[FailureClass, Judgement] = {
    name: msgspec.structs.replace(row, failure_class=name) for name, row in _ROWS.items()
}
"""The judgement of each class, before what the single answer asked for."""
ALARMING = tuple(name for name, rule in RULES.items() if rule.is_alarming)
"""Classes that an operator must look at: no time heals them."""


_REFUSED_TO_CLIENT = frozenset({FailureClass.PROVIDER_AUTH, FailureClass.MODEL_DENIED, FailureClass.REQUEST_DENIED})
_SPENT_BY_CLIENT = frozenset({FailureClass.QUOTA_EXHAUSTED, FailureClass.CREDIT_EXHAUSTED})


def judged_for_client(judgement: Judgement) -> Judgement:
    """The same of an attempt with the caller's own credential, which is nobody else's affair.

    A refusal of it goes to the caller, whose client may renew it: nobody else is asked, at the cost of others. An
    account without credit is the caller's to fill, so it is not left alone.
    """
    failure = judgement.failure_class
    if failure in _REFUSED_TO_CLIENT:
        return Judgement(failure_class=failure, outcome=Outcome.CLIENT_ERROR)
    if failure in _SPENT_BY_CLIENT:
        return msgspec.structs.replace(judgement, cooldown=None, is_alarming=False)
    return judgement


def judge(error: BaseException | None, *, wall: float) -> Judgement:
    """The judgement of an attempt that ended with this error (None: it succeeded).

    `wall` is the time of day, for waits that are given as a date. Ratelimit headers are read from
    `UpstreamStatusError.upstream_headers`, which must hold all headers of the provider.
    """
    if error is None:
        return SUCCEEDED
    judgement = RULES[classify(error)]
    if isinstance(error, UpstreamStatusError):
        return _as_requested(
            _patient(judgement, requested_wait(error.upstream_headers, error.message, wall=wall)), error, wall
        )
    if isinstance(error, UpstreamStreamError):
        patient = _patient(judgement, requested_wait([], error.message, wall=wall))
        return msgspec.structs.replace(patient, outcome=Outcome.STREAM_ERROR)
    return judgement


def _patient(judgement: Judgement, wait: float | None) -> Judgement:
    """The same with the wait that the provider named. After a short one it may be asked again."""
    cooldown = judgement.cooldown
    if wait is None or cooldown is None or cooldown.scope is not CooldownScope.DEPLOYMENT:
        return judgement
    retry = Retry.ANYWHERE if wait <= _MAX_WAIT_WITHIN_CALL else judgement.retry
    return msgspec.structs.replace(judgement, cooldown=Cooldown(cooldown.scope, wait), retry=retry)


def _as_requested(judgement: Judgement, error: UpstreamStatusError, wall: float) -> Judgement:
    """The same with what the provider asked for along with a failure: time, and not to be asked again."""
    if judgement.verdict is not Verdict.FAILURE:
        return judgement
    headers = error.upstream_headers
    retry = Retry.OTHER_DEPLOYMENT if (b"x-should-retry", b"false") in headers else judgement.retry
    return msgspec.structs.replace(judgement, min_open=retry_after(headers, wall=wall), retry=retry)
