"""What callers of a breaker hold in their hands: a permit, a refusal, a picture of how things stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.breaker.state.transitions import State
from gateway_middleware.core.errors import UnavailableError

if TYPE_CHECKING:
    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.state.machine import CircuitBreaker
    from gateway_middleware.core.domain import HeaderList

_LONGEST_RETRY = 60.0


class CircuitOpenError(UnavailableError):
    """The breaker of what would take this call is open."""

    code = "circuit_open"

    @property
    def headers(self) -> HeaderList:
        """Official SDKs retry a 503 by themselves: not when that is of no use for a minute."""
        return [(b"x-should-retry", b"false")] if (self.retry_after or 0.0) > _LONGEST_RETRY else []


class CoolingDownError(UnavailableError):
    """Whoever could take this call has asked the gateway to come back later."""

    code = "provider_cooling_down"


class Permit:
    """Leave to make one attempt. Ends once, by the first of `succeed`, `fail` and `release`; later ends do nothing."""

    __slots__ = ("_breaker", "bucket", "generation")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self.generation = generation
        self.bucket: int | None = None
        """Where the success is counted that may have to be replaced."""

    def provisional(self, ttft: float | None = None) -> None:
        """The first content has come, after `ttft` seconds: a success until the contrary is known. Ends a probe."""
        if self._breaker is not None:
            self._breaker.on_content(self, ttft)

    def succeed(self, ttft: float | None = None) -> None:
        """The response is complete."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_success(self, ttft)

    def fail(self, judgement: Judgement) -> None:
        """The provider failed; replaces a provisional success."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_failure(self, judgement)

    def release(self) -> None:
        """Nothing is known, or nothing more: the attempt said nothing about the provider."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_release(self)


class BreakerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker as an operator sees it.

    `since` and `forced_until` are seconds since the epoch, all other times are durations. `successes`, `failures`,
    `slow` and `failure_ratio` are those of the window. `why` counts the last failures by class. `refused` counts calls
    since the last transition; in shadow mode those that would have been refused.
    """

    state: State
    mode: Mode
    since: float
    reason: str
    generation: int
    consecutive_failures: int
    successes: int
    failures: int
    slow: int
    failure_ratio: float | None
    why: dict[str, int]
    refused: int
    next_probe_in: float | None
    next_open_seconds: float
    forced_until: float | None
