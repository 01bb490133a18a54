"""A clock, dice and ready-made judgements for the tests of the breaker room."""

from __future__ import annotations

from collections.abc import Callable

from clock import Clock
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import RULES, Judgement
from gateway_middleware.breaker.state.machine import CircuitBreaker, Permit
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.breaker.state.transitions import State, Transition
from gateway_middleware.core.domain import Deployment
from gateway_middleware.core.errors import UpstreamStatusError, UpstreamStreamError
from gateway_middleware.core.provider_api import Origin

SERVER_ERROR = RULES[FailureClass.SERVER_ERROR]
CONNECT_ERROR = RULES[FailureClass.CONNECT]


def no_jitter() -> float:
    return 0.5


def make_breaker(
    clock: Clock,
    policy: BreakerPolicy | None = None,
    *,
    random: Callable[[], float] = no_jitter,
    log: list[Transition] | None = None,
) -> CircuitBreaker:
    return CircuitBreaker(
        policy or BreakerPolicy(),
        clock=clock,
        wall=clock.wall,
        random=random,
        key="openai/gpt-5",
        on_transition=log.append if log is not None else None,
    )


def taken(breaker: CircuitBreaker) -> Permit:
    permit = breaker.try_acquire()
    assert permit is not None
    return permit


def fail(breaker: CircuitBreaker, times: int = 1, judgement: Judgement = SERVER_ERROR) -> None:
    for _ in range(times):
        taken(breaker).fail(judgement)


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        taken(breaker).succeed()


def half_open(breaker: CircuitBreaker, clock: Clock) -> Permit:
    """Trip it, wait, and take the probe."""
    fail(breaker, 5)
    clock.advance(breaker.retry_after())
    permit = taken(breaker)
    assert breaker.state is State.HALF_OPEN
    return permit


def status_error(
    status: int, body: bytes = b"", *, headers: dict[str, str] | None = None, message: str = "failed"
) -> UpstreamStatusError:
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return UpstreamStatusError(message, upstream_status=status, upstream_headers=pairs, body=body)


def stream_error(kind: str | None, code: str | None = None, message: str = "failed") -> UpstreamStreamError:
    return UpstreamStreamError(message, provider_type=kind, provider_code=code, frame=b"")


def deployment(name: str = "gpt-5", provider: str = "openai") -> Deployment:
    return Deployment(provider=provider, model=name)


def origin(host: str = "api.example.com", port: int = 443) -> Origin:
    return Origin(host=host, port=port, is_tls=True)
