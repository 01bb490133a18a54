"""A clock, dice and ready-made judgements for the tests of the breaker room."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from clock import Clock
from gateway_middleware.breaker.budget import RetryBudget
from gateway_middleware.breaker.cooldown import Cooldowns, Throttling
from gateway_middleware.breaker.events import CooldownEvent
from gateway_middleware.breaker.failover import AttemptSequence, Failover
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import RULES, Judgement
from gateway_middleware.breaker.selection import Latencies, Selector
from gateway_middleware.breaker.state.factory import BreakerFactory
from gateway_middleware.breaker.state.machine import CircuitBreaker, Permit
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.registry import BreakerRegistry
from gateway_middleware.breaker.state.transitions import State, Transition
from gateway_middleware.core.domain import Deployment, Route, Timeouts
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


class Calls:
    """A failover over deployments that exist in name only; `events` are the cooldowns it told of."""

    def __init__(self, *, mode: Mode = Mode.ON, max_attempts: int = 3, policy: BreakerPolicy | None = None) -> None:
        self.clock = Clock()
        self._numbers = count()
        self.events: list[CooldownEvent] = []
        self.transitions: list[Transition] = []
        self.timeouts = Timeouts()
        factory = BreakerFactory(
            clock=self.clock, wall=self.clock.wall, random=no_jitter, on_transition=self.transitions.append
        )
        self.registry = BreakerRegistry(policy or BreakerPolicy(mode=mode), factory=factory)
        self.cooldowns = Cooldowns(self.clock)
        self.latencies = Latencies(self.clock)
        self.budget = RetryBudget(self.clock)
        self.failover = Failover(
            registry=self.registry,
            throttling=Throttling(self.cooldowns, mode=mode, on_cooldown=self.events.append),
            budget=self.budget,
            selector=Selector(self.latencies, no_jitter),
            provider_of=self._provider_of,
            clock=self.clock,
            wall=self.clock.wall,
            random=no_jitter,
            max_attempts=max_attempts,
        )

    def _provider_of(self, to: Deployment) -> Any:
        return SimpleNamespace(origin=origin(f"{to.provider}.example.com"), timeouts=self.timeouts)

    def begin(
        self, *names: str, body: bytes | None = None, affinity: bytes | None = None, **options: Any
    ) -> AttemptSequence:
        """A call on a route over `provider/model` names, with a body that no call had before unless it is given."""
        body = b"%d" % next(self._numbers) if body is None else body
        return self.failover.begin(route(*names, **options), body=body, started=self.clock(), affinity=affinity)

    def failures(self, name: str) -> int:
        """What the breaker of a deployment has counted."""
        return self.registry.snapshot()[name.partition("/")[0]].deployments[name].failures

    def register(self, *names: str) -> None:
        for name in names:
            self.registry.register(named(name), self._provider_of(named(name)).origin)


def named(name: str) -> Deployment:
    provider, _, model = name.partition("/")
    return Deployment(provider=provider, model=model)


def route(*names: str, **options: Any) -> Route:
    return Route(name="fast", deployments=tuple(named(name) for name in names), **options)
