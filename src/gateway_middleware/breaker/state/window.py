"""Counts of the last seconds, in buckets: O(1) in time, constant in memory."""

from __future__ import annotations

SUCCESS, FAILURE, SLOW = 0, 1, 2
"""The columns of a breaker's window."""


class Window:
    """Counts in `columns`, kept for `seconds` in `buckets` of equal length.

    `now` is monotonic seconds. What is counted stays for between `seconds` less one bucket and `seconds`. `totals` are
    right after any call that takes `now`. A clock that steps back counts in the newest bucket.
    """

    __slots__ = ("_counts", "_newest", "_row", "_until", "_width", "totals")

    def __init__(self, seconds: float = 60.0, *, buckets: int = 10, columns: int = 3) -> None:
        self._width = seconds / buckets
        self._counts = [[0] * columns for _ in range(buckets)]
        self.totals = [0] * columns
        self._newest = 0
        self._row = self._counts[0]
        self._until = float("-inf")

    def add(self, now: float, column: int) -> int:
        """Count one; returns the number of the bucket it was counted in."""
        if now >= self._until:
            self._turn(now)
        self._row[column] += 1
        self.totals[column] += 1
        return self._newest

    def take_back(self, now: float, column: int, bucket: int) -> None:
        """Uncount one that was counted in this bucket. What has left the window is gone already."""
        self.advance(now)
        if self._newest - bucket < len(self._counts):
            self._counts[bucket % len(self._counts)][column] -= 1
            self.totals[column] -= 1

    def advance(self, now: float) -> None:
        """Forget what is too old."""
        if now >= self._until:
            self._turn(now)

    def clear(self) -> None:
        """Forget everything."""
        for row in self._counts:
            row[:] = [0] * len(row)
        self.totals[:] = [0] * len(self.totals)

    def _turn(self, now: float) -> None:
        number, size = int(now // self._width), len(self._counts)
        for stale in range(max(self._newest + 1, number - size + 1), number + 1):
            self._drop(self._counts[stale % size])
        self._newest, self._row = number, self._counts[number % size]
        self._until = (number + 1) * self._width

    def _drop(self, row: list[int]) -> None:
        for column, count in enumerate(row):
            self.totals[column] -= count
            row[column] = 0
