"""The two breakers of a deployment: its own, and that of the host it is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.failure.rules import BreakerScope, Verdict
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.transitions import State

if TYPE_CHECKING:
    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.state.machine import Permit
    from gateway_middleware.core.domain import Deployment
    from gateway_middleware.core.provider_api import Origin

SHUT = frozenset({State.OPEN, State.FORCED_OPEN})
"""States in which nobody is let through."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a deployment cannot take the call: key and state of the breaker, and seconds until it is worth asking."""

    key: str
    state: State
    retry_after: float


class Admission:
    """Both permits of one attempt. Ends once, by the first of `settle`, `withdraw` and `release`."""

    __slots__ = ("_deployment", "_host")

    def __init__(self, deployment: Permit, host: Permit) -> None:
        self._deployment = deployment
        self._host = host

    @property
    def is_probe(self) -> bool:
        """Whether one of the breakers waits for how this attempt ends."""
        return self._deployment.is_probe or self._host.is_probe

    def provisional(self, ttft: float | None = None) -> None:
        """The first content has come, after `ttft` seconds."""
        self._host.succeed()
        self._deployment.provisional(ttft)

    def settle(self, judgement: Judgement, ttft: float | None = None) -> None:
        """Tell both breakers how the attempt ended."""
        if judgement.verdict is Verdict.SUCCESS:
            self._host.succeed()
            self._deployment.succeed(ttft)
            return
        if judgement.verdict is Verdict.FAILURE:
            (self._host if judgement.breaker is BreakerScope.HOST else self._deployment).fail(judgement)
        if judgement.has_answered:
            self._host.succeed()
        self.release()

    def withdraw(self, *, has_answered: bool) -> None:
        """The attempt failed, but not for what the deployment is: not even its first content counts any more."""
        if has_answered:
            self._host.succeed()
        self._deployment.withdraw()
        self.release()

    def release(self) -> None:
        """Nothing is known. After `settle` it does nothing."""
        self._deployment.release()
        self._host.release()


class BreakerPair:
    """The breaker of a deployment and that of its host. `seen` is when it was last asked for."""

    __slots__ = ("breaker", "deployment", "host", "is_configured", "origin", "seen")

    def __init__(self, deployment: Deployment, origin: Origin, breaker: CircuitBreaker, host: CircuitBreaker) -> None:
        self.deployment = deployment
        self.origin = origin
        self.breaker = breaker
        self.host = host
        self.is_configured = False
        self.seen = float("-inf")

    def refusal(self) -> Refusal:
        """By the breaker that keeps the deployment shut for longer."""
        by = max(self.host, self.breaker, key=CircuitBreaker.retry_after)
        return Refusal(by.key, by.state, by.retry_after())

    @property
    def state(self) -> State:
        """What a caller meets: a closed deployment at a host that is out takes no calls."""
        own, host = self.breaker.current_state(), self.host.current_state()
        if own in SHUT:
            return own
        return host if host in SHUT or host is State.HALF_OPEN else own
