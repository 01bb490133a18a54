"""How often, and how much at a time, a sink is asked to take events."""

from __future__ import annotations

from collections.abc import Callable

from gateway_middleware.core.domain import Clock

_REGROW_SECONDS = 5.0


class Backoff:
    """Full jitter: up to `base` seconds after the first failure, doubling up to `cap`; never before a `Retry-After`.

    Each attempt takes part in the `round` in which it began. Those that fail together count once, and what began before
    a failure proves nothing about the time after it.
    """

    def __init__(self, *, clock: Clock, random: Callable[[], float], base: float = 0.5, cap: float = 60.0) -> None:
        self._clock = clock
        self._random = random
        self._base, self._cap = base, cap
        self._jittered_until = self._asked_until = 0.0
        self.failures = 0
        self.round = 0

    @property
    def until(self) -> float:
        """No attempt before this time of the clock."""
        return max(self._jittered_until, self._asked_until)

    def failed(self, began_in: int, *, retry_after: float) -> None:
        """An attempt failed, and was asked to wait for some seconds."""
        now = self._clock()
        self._asked_until = max(self._asked_until, now + retry_after)
        if began_in != self.round:
            return
        self.round += 1
        self._jittered_until = now + self._random() * min(self._cap, self._base * 2.0 ** min(self.failures, 30))
        self.failures += 1

    def succeeded(self, began_in: int) -> bool:
        """An attempt succeeded. Says whether that ends the failures."""
        if began_in != self.round:
            return False
        self.failures = 0
        return True

    def hurry(self) -> None:
        """Try once more now, unless a `Retry-After` asked to wait."""
        self._jittered_until = 0.0


class BatchSize:
    """How many events at a time: half of what was too large; doubled after each full batch once 5 s have passed.

    A sink that will never take more is asked in vain once in 5 s; one that does is back at `max_size` within seconds.
    """

    def __init__(self, max_size: int, *, clock: Clock) -> None:
        self._max_size = max_size
        self._clock = clock
        self._grows_at = 0.0
        self.size = max_size

    def too_large(self, sent: int) -> None:
        """A batch of `sent` was refused for its size."""
        self.size = min(self.size, max(1, sent // 2))
        self._grows_at = self._clock() + _REGROW_SECONDS

    def taken(self, sent: int) -> None:
        """A batch of `sent` was taken."""
        if sent >= self.size:
            self.size = min(self._max_size, sent if self._clock() < self._grows_at else sent * 2)
