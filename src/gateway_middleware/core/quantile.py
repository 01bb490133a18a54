"""A quantile of the last values, for many keys."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_KEPT = 64
_LARGEST = 2**32 - 1


class RecentQuantile:
    """The `q` quantile of the last 64 values, exact (the next larger value where it falls between two)."""

    __slots__ = ("_next", "_q", "_values", "count", "value")

    def __init__(self, q: float) -> None:
        self._q = q
        self._values = array("I")
        self._next = 0
        self.count = 0
        self.value = 0

    def add(self, value: int) -> None:
        """Take a value into account; the oldest makes room."""
        value = min(max(value, 0), _LARGEST)
        self.count += 1
        if len(self._values) < _KEPT:
            self._values.append(value)
        else:
            self._values[self._next] = value
            self._next = (self._next + 1) % _KEPT
        ordered = sorted(self._values)
        self.value = ordered[min(int(self._q * len(ordered)), len(ordered) - 1)]


class Quantiles(Generic[K]):
    """One `RecentQuantile` for each key; the one that was fed longest ago makes room for a new one."""

    def __init__(self, q: float, *, most: int) -> None:
        self._q = q
        self._most = most
        self._found: OrderedDict[K, RecentQuantile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, key: K, value: int) -> None:
        """Take a value into account."""
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= self._most:
                self._found.popitem(last=False)
            found = self._found[key] = RecentQuantile(self._q)
        else:
            self._found.move_to_end(key)
        found.add(value)

    def get(self, key: K, *, at_least: int) -> int | None:
        """The quantile, or None before there are so many values."""
        found = self._found.get(key)
        return found.value if found is not None and found.count >= at_least else None
