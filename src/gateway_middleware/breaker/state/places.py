"""One deployment at one host: what it takes to be let through to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.failure.rules import Leaf, Verdict
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.transitions import State

if TYPE_CHECKING:
    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.state.permit import Permit
    from gateway_middleware.core.provider_api import Origin

SHUT = frozenset({State.OPEN, State.FORCED_OPEN})
"""States in which nobody is let through."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a deployment cannot take the call: the key and state of the leaf, and seconds until it is worth asking."""

    key: str
    state: State
    retry_after: float


class Admission:
    """Both permits of one attempt. Ends once, by the first of `settle` and `release`."""

    __slots__ = ("_deployment", "_endpoint")

    def __init__(self, deployment: Permit, endpoint: Permit) -> None:
        self._deployment = deployment
        self._endpoint = endpoint

    def provisional(self, ttft: float | None = None) -> None:
        """The first content has come, after `ttft` seconds."""
        self._endpoint.succeed()
        self._deployment.provisional(ttft)

    def settle(self, judgement: Judgement, ttft: float | None = None) -> None:
        """Tell both breakers how the attempt ended."""
        if judgement.verdict is Verdict.SUCCESS:
            self._endpoint.succeed()
            self._deployment.succeed(ttft)
            return
        if judgement.verdict is Verdict.FAILURE:
            (self._endpoint if judgement.leaf is Leaf.ENDPOINT else self._deployment).fail(judgement)
        if judgement.has_answered:
            self._endpoint.succeed()
        self.release()

    def release(self) -> None:
        """Nothing is known. After `settle` it does nothing."""
        self._deployment.release()
        self._endpoint.release()


class Place:
    """One deployment at its endpoint. `seen` is when it was last asked for."""

    __slots__ = ("breaker", "endpoint", "is_configured", "origin", "provider", "seen")

    def __init__(self, provider: str, origin: Origin, breaker: CircuitBreaker, endpoint: CircuitBreaker) -> None:
        self.provider = provider
        self.origin = origin
        self.breaker = breaker
        self.endpoint = endpoint
        self.is_configured = False
        self.seen = float("-inf")

    def refusal(self) -> Refusal:
        """The leaf that keeps it shut for longer."""
        by = max(self.endpoint, self.breaker, key=CircuitBreaker.retry_after)
        return Refusal(by.key, by.state, by.retry_after())

    @property
    def state(self) -> State:
        """What a caller meets: a closed deployment at a host that is out takes no calls."""
        own, host = self.breaker.current_state(), self.endpoint.current_state()
        if own in SHUT:
            return own
        return host if host in SHUT or host is State.HALF_OPEN else own
