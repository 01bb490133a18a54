"""The time of day as far as the monotonic clock confirms it: what is deleted for its age must be old by both."""

from __future__ import annotations

from gateway_middleware.core.domain import Clock


class AgreedTime:
    """Seconds since the epoch that a jump of the wall clock does not move forward.

    It goes on from what was known when it was anchored by as much as the monotonic `clock` has moved, and is never
    later than `wall`. Time in which no process ran is not in it: things are kept longer, never shorter.
    """

    def __init__(self, *, wall: Clock, clock: Clock) -> None:
        self._wall = wall
        self._clock = clock
        self._base = wall()
        self._anchored_at = clock()

    def anchor(self, known: float | None) -> None:
        """Go on from the time that an earlier process agreed on; None: there was none, the wall clock is believed."""
        self._base = self._wall() if known is None else min(known, self._wall())
        self._anchored_at = self._clock()

    @property
    def steady(self) -> float:
        """The same without a look at the wall clock: for the next process."""
        return self._base + self._clock() - self._anchored_at

    def __call__(self) -> float:
        return min(self.steady, self._wall())
