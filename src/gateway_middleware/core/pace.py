"""Whether a body moves: bytes per second over the time in which somebody waits for it."""

from __future__ import annotations

MIN_BODY_RATE = 1024
"""Bytes per second that the body of a request must bring."""


class Pace:
    """Every `seconds` of waiting must bring `rate` bytes per second. Times are monotonic.

    A window ends as soon as it has brought its bytes, so that a burst does not pay for the silence after it.
    """

    __slots__ = ("_bytes", "_needed", "_seconds", "_since", "_waited")

    def __init__(self, seconds: float, rate: float) -> None:
        self._seconds = seconds
        self._needed = seconds * rate
        self._bytes = 0
        self._waited = 0.0
        self._since: float | None = None

    def count(self, size: int, now: float) -> None:
        """So many bytes have come."""
        self._bytes += size
        if self._bytes >= self._needed:
            self._bytes, self._waited = 0, 0.0
            if self._since is not None:
                self._since = now

    def start(self, now: float) -> float:
        """Somebody waits from now on. The time at which `is_too_slow` is to be asked."""
        if self._since is None:
            self._since = now
        return self._since + self._seconds - self._waited

    def stop(self, now: float) -> None:
        """Nobody waits any more."""
        if self._since is not None:
            self._waited += now - self._since
            self._since = None

    def is_too_slow(self, now: float) -> bool:
        """Whether it was waited for as long as a window may be."""
        waited = self._waited if self._since is None else self._waited + now - self._since
        return waited >= self._seconds
