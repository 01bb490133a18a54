"""Bounds for what is kept by names that come from outside: no number of tenants or models fills the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_TENANTS = 1000
"""Tenants that metrics tell apart: a resolver of the host's own may know any number."""
OTHER = "other"


class BoundedNames:
    """The first `max_names` names stand for themselves, all others are `other`: the label of a metric."""

    __slots__ = ("_max_names", "_names")

    def __init__(self, max_names: int = MAX_TENANTS) -> None:
        self._max_names = max_names
        self._names: set[str] = set()

    def __call__(self, name: str) -> str:
        """The name itself, or `other`."""
        if name not in self._names:
            if len(self._names) >= self._max_names:
                return OTHER
            self._names.add(name)
        return name


def make_room(
    entries: MutableMapping[K, V],
    max_entries: int,
    *,
    rank: Callable[[K], Any],
    candidates: Iterable[K] | None = None,
) -> None:
    """Delete an eighth, lowest `rank` first, when `entries` holds `max_entries`; else do nothing.

    Only `candidates` (default: all) may go. An eighth at once, so that a full mapping is not sorted at each insertion.
    """
    if len(entries) >= max_entries:
        for key in sorted(entries if candidates is None else candidates, key=rank)[: max_entries // 8 + 1]:
            del entries[key]
