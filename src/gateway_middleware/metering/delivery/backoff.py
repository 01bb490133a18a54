"""How often, and how much at a time, a consumer is asked to take events."""

from __future__ import annotations

from collections.abc import Callable

from gateway_middleware.core.domain import Clock

_FULL_BATCHES = 20


class Backoff:
    """Full jitter: up to `least` seconds after the first failure, doubling up to `most`; never before it was told.

    Each attempt takes part in the `round` in which it began. Those that fail together count once, and what began before
    a failure proves nothing about the time after it.
    """

    def __init__(self, *, clock: Clock, random: Callable[[], float], least: float = 0.5, most: float = 60.0) -> None:
        self._clock = clock
        self._random = random
        self._least, self._most = least, most
        self._own_until = self._told_until = 0.0
        self.failures = 0
        self.round = 0

    @property
    def until(self) -> float:
        """No attempt before this time of the clock."""
        return max(self._own_until, self._told_until)

    def failed(self, began_in: int, *, told: float) -> None:
        """An attempt failed, and was asked to wait `told` seconds."""
        now = self._clock()
        self._told_until = max(self._told_until, now + told)
        if began_in != self.round:
            return
        self.round += 1
        self._own_until = now + self._random() * min(self._most, self._least * 2.0 ** min(self.failures, 30))
        self.failures += 1

    def succeeded(self, began_in: int) -> bool:
        """An attempt succeeded. Says whether that ends the failures."""
        if began_in != self.round:
            return False
        self.failures = 0
        return True

    def hurry(self) -> None:
        """Try once more now, unless it was told to wait."""
        self._own_until = 0.0


class BatchSize:
    """How many events at a time: half of what was too much, and a tenth more after each twenty full batches."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._full = 0
        self.size = most

    def too_large(self, sent: int) -> None:
        """A batch of `sent` was refused for its size."""
        self._full = 0
        self.size = min(self.size, max(1, sent // 2))

    def taken(self, sent: int) -> None:
        """A batch of `sent` was taken."""
        if sent < self.size or self.size == self._most:
            return
        self.size = sent
        self._full += 1
        if self._full == _FULL_BATCHES:
            self._full = 0
            self.size = min(self._most, self.size + max(1, self.size // 10))
