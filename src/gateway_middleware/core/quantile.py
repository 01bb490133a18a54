"""A quantile of the last values, for many keys."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_KEPT = 64
_MAX_VALUE = 2**32 - 1


class RecentQuantile:
    """The `q` quantile of the last 64 values, exact (the next larger value where it falls between two)."""

    __slots__ = ("_next", "_ordered", "_q", "_values", "count", "value")

    def __init__(self, q: float) -> None:
        self._q = q
        self._values = array("I")
        self._ordered = array("I")
        self._next = 0
        self.count = 0
        self.value = 0

    def add(self, value: int) -> None:
        """Take a value into account; the oldest makes room."""
        value = min(max(value, 0), _MAX_VALUE)
        self.count += 1
        ordered = self._ordered
        if len(self._values) < _KEPT:
            self._values.append(value)
        else:
            del ordered[bisect_left(ordered, self._values[self._next])]
            self._values[self._next] = value
            self._next = (self._next + 1) % _KEPT
        insort(ordered, value)
        self.value = ordered[min(int(self._q * len(ordered)), len(ordered) - 1)]


class Quantiles(Generic[K]):
    """One `RecentQuantile` for each key; the one that was fed longest ago makes room for a new one."""

    def __init__(self, q: float, *, max_keys: int) -> None:
        self._q = q
        self._max_keys = max_keys
        self._quantiles: OrderedDict[K, RecentQuantile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._quantiles)

    def add(self, key: K, value: int) -> None:
        """Take a value into account."""
        quantile = self._quantiles.get(key)
        if quantile is None:
            if len(self._quantiles) >= self._max_keys:
                self._quantiles.popitem(last=False)
            quantile = self._quantiles[key] = RecentQuantile(self._q)
        else:
            self._quantiles.move_to_end(key)
        quantile.add(value)

    def get(self, key: K, *, at_least: int) -> int | None:
        """The quantile, or None before there are so many values."""
        quantile = self._quantiles.get(key)
        return quantile.value if quantile is not None and quantile.count >= at_least else None
