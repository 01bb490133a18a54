"""Calls that wait for a slot: bounded, fair between tenants, priorities first. No I/O, no clock of its own."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

E = TypeVar("E")

QUEUE_PER_TENANT = 64
QUEUE_TOTAL = 1024
_SMOOTHING = 0.2


class Entry(Generic[E]):
    """One waiting call. A higher `priority` goes first."""

    __slots__ = ("content", "is_gone", "priority", "tenant")

    def __init__(self, content: E, tenant: str, *, priority: int = 0) -> None:
        self.content = content
        self.tenant = tenant
        self.priority = priority
        self.is_gone = False


class _Lane(Generic[E]):
    """The entries of one tenant at one priority, oldest first."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: deque[Entry[E]] = deque()

    def head(self) -> Entry[E] | None:
        while self.entries and self.entries[0].is_gone:
            self.entries.popleft()
        return self.entries[0] if self.entries else None


class FairQueue(Generic[E]):
    """Round robin over tenants: each in turn may let one call through."""

    def __init__(self, *, per_tenant: int = QUEUE_PER_TENANT, total: int = QUEUE_TOTAL) -> None:
        self._per_tenant = per_tenant
        self._total = total
        self._lanes: dict[int, OrderedDict[str, _Lane[E]]] = {}
        self._waiting: dict[str, int] = {}
        self._size = 0
        self._interval = 0.0
        self._served_at: float | None = None

    def __len__(self) -> int:
        return self._size

    def waiting(self, tenant: str) -> int:
        """How many of a tenant wait."""
        return self._waiting.get(tenant, 0)

    @property
    def is_full(self) -> bool:
        """Whether nobody at all may wait any more."""
        return self._size >= self._total

    def is_full_for(self, tenant: str) -> bool:
        """Whether this tenant has its share of the queue."""
        return self.waiting(tenant) >= self._per_tenant

    def expected_wait(self, tenant: str) -> float:
        """Seconds until a new call of this tenant would have its turn, as things go now; 0.0 while nothing is known.

        In one round each waiting tenant has a turn, so a short line is not behind a long one.
        """
        mine = self.waiting(tenant) + 1
        ahead = sum(min(count, mine) for name, count in self._waiting.items() if name != tenant)
        return (mine + ahead) * self._interval

    def put(self, entry: Entry[E]) -> None:
        """Append; the caller has looked at `is_full` and `is_full_for`."""
        lanes = self._lanes.setdefault(entry.priority, OrderedDict())
        lanes.setdefault(entry.tenant, _Lane()).entries.append(entry)
        self._waiting[entry.tenant] = self.waiting(entry.tenant) + 1
        self._size += 1

    def remove(self, entry: Entry[E]) -> None:
        """Take an entry out, wherever it stands. Twice is once."""
        if entry.is_gone:
            return
        entry.is_gone = True
        self._size -= 1
        left = self._waiting[entry.tenant] - 1
        if left:
            self._waiting[entry.tenant] = left
        else:
            del self._waiting[entry.tenant]

    def serve(self, entry: Entry[E], now: float) -> None:
        """The entry has got its slot: take it out; its tenant's turn is over."""
        if entry.is_gone:
            return
        self.remove(entry)
        self._lanes[entry.priority].move_to_end(entry.tenant)  # even if the walk ends here
        if self._served_at is not None and self._size:
            gap = now - self._served_at
            self._interval = gap if not self._interval else self._interval + _SMOOTHING * (gap - self._interval)
        self._served_at = now if self._size else None

    def turns(self) -> Iterator[Entry[E]]:
        """Heads in the order in which they may try, in turn between tenants, each until it is refused.

        The caller serves an entry (or lets it be) before it asks for the next one. A tenant whose head is let be is
        skipped for the rest of this walk: another tenant's limit may have room.
        """
        for priority in sorted(self._lanes, reverse=True):
            lanes = self._lanes[priority]
            yield from self._round(lanes)
            if not lanes:
                del self._lanes[priority]

    def _round(self, lanes: OrderedDict[str, _Lane[E]]) -> Iterator[Entry[E]]:
        active = deque(lanes)
        while active:
            tenant = active.popleft()
            head = lanes[tenant].head()
            if head is not None:
                yield head
            is_skipped = head is not None and not head.is_gone
            if lanes[tenant].head() is None:
                del lanes[tenant]
            elif not is_skipped:
                lanes.move_to_end(tenant)
                active.append(tenant)
