"""The one clock of the suite: it moves when it is told to."""

from __future__ import annotations

import asyncio
import math

EPOCH = 1_800_000_000.0
"""The time of day at the start of every test."""
_NOISE = 1e-4


class Clock:
    """Monotonic seconds; `wall` is the time of day that goes with them, `sleep` lets time pass instead of waiting.

    It ticks in whole microseconds, so that sums are exact. What is no whole number of them is rounded up: whoever
    advances it by the rest of a wait has waited long enough.
    """

    def __init__(self, seconds: float = 1000.0, *, epoch: float = EPOCH) -> None:
        self._start = self.micro = round(seconds * 1e6)
        """The microseconds now."""
        self._epoch = epoch
        self.sleeps: list[float] = []
        """What `sleep` was asked for."""

    def __call__(self) -> float:
        return self.micro / 1e6

    def wall(self) -> float:
        return self._epoch + (self.micro - self._start) / 1e6

    def advance(self, seconds: float) -> None:
        ticks = seconds * 1e6
        self.micro += round(ticks) if abs(ticks - round(ticks)) < _NOISE else math.ceil(ticks)

    def step(self, seconds: float) -> None:
        """The time of day is set by so much, forward or back; no time passes. A suspended machine sees the same."""
        self._epoch += seconds

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)
