"""Which entries are new, which hold, and what order they are in. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway_middleware.core.bounded import make_room
from gateway_middleware.fleet.entries import Entry

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

MAX_ENTRIES = 100_000
_MICROSECONDS = 1_000_000
_GREATEST_VERSION = 2**53
"""Redis computes in doubles. Nothing honest comes near: it is the year 2255."""


class SharedLog:
    """The entries that one process knows, the newest of each name, until they expire.

    Entries may come in any order, from several stores and more than once. Versions are a hybrid logical clock: a
    process whose clock is behind still writes what counts as newer than all that it has read.
    """

    def __init__(self, origin: str, *, clock: Clock, wall: Clock, max_entries: int = MAX_ENTRIES) -> None:
        self.origin = origin
        self._clock = clock
        self._wall = wall
        self._max_entries = max_entries
        self._entries: dict[tuple[str, str], tuple[Entry, float | None]] = {}
        self._ends: list[tuple[float, tuple[str, str]]] = []
        """A heap of when entries end, as they were written: those of replaced entries are passed over."""
        self._version = 0

    def __len__(self) -> int:
        """How many entries are held."""
        return len(self._entries)

    def write(self, kind: str, key: str, body: bytes, seconds: float | None) -> Entry:
        """A new entry of this process, newer than all that are known."""
        self._version = max(self._version + 1, int(self._wall() * _MICROSECONDS))
        entry = Entry(kind=kind, key=key, body=body, origin=self.origin, version=self._version, seconds=seconds)
        self._keep(entry)
        return entry

    def read(self, entries: Iterable[Entry]) -> list[Entry]:
        """Take entries of a store; returns those that say something new, oldest first."""
        return [entry for entry in sorted(entries, key=lambda entry: entry.order) if self._is_news(entry)]

    def _is_news(self, entry: Entry) -> bool:
        has_expired = entry.seconds is not None and entry.seconds <= 0
        if has_expired or not 0 < entry.version < _GREATEST_VERSION:
            return False
        self._version = max(self._version, entry.version)
        known = self.find(*entry.name)
        if known is not None and entry.order <= known.order:
            return False
        self._keep(entry)
        return True

    def find(self, kind: str, key: str) -> Entry | None:
        """The entry that holds now, with the seconds that are left of it."""
        entry, until = self._entries.get((kind, key), (None, None))
        if entry is None or until is None:
            return entry
        left = until - self._clock()
        if left > 0:
            return replace(entry, seconds=left)
        del self._entries[kind, key]
        return None

    def live(self) -> list[Entry]:
        """All that hold now, oldest first."""
        found = [self.find(*name) for name in list(self._entries)]
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.order)

    def _keep(self, entry: Entry) -> None:
        if entry.name not in self._entries:
            make_room(self._entries, self._max_entries, rank=lambda name: self._entries[name][0].order)
        until = None if entry.seconds is None else self._clock() + entry.seconds
        self._entries[entry.name] = entry, until
        if until is not None:
            heappush(self._ends, (until, entry.name))
        self._forget_expired()

    def _forget_expired(self) -> None:
        while self._ends and self._ends[0][0] <= self._clock():
            self.find(*heappop(self._ends)[1])
