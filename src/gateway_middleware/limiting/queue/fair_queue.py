"""Calls that wait for a slot: bounded, fair between tenants, priorities first. No I/O, no clock of its own."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

E = TypeVar("E")

QUEUE_PER_TENANT = 64
QUEUE_TOTAL = 1024
_SMOOTHING = 0.2


class Entry(Generic[E]):
    """One waiting call. A higher `priority` goes first; `cost` is what its turn costs its tenant."""

    __slots__ = ("content", "cost", "is_gone", "priority", "tenant")

    def __init__(self, content: E, tenant: str, *, priority: int = 0, cost: int = 1) -> None:
        self.content = content
        self.tenant = tenant
        self.priority = priority
        self.cost = max(cost, 1)
        self.is_gone = False


class _Lane(Generic[E]):
    """The entries of one tenant at one priority, with the credit of deficit round robin."""

    __slots__ = ("credit", "entries")

    def __init__(self) -> None:
        self.entries: deque[Entry[E]] = deque()
        self.credit = 0

    def head(self) -> Entry[E] | None:
        while self.entries and self.entries[0].is_gone:
            self.entries.popleft()
        return self.entries[0] if self.entries else None


class FairQueue(Generic[E]):
    """Deficit round robin over tenants: each turn gives a tenant `quantum` units of cost."""

    def __init__(self, *, per_tenant: int = QUEUE_PER_TENANT, total: int = QUEUE_TOTAL, quantum: int = 1) -> None:
        self._per_tenant = per_tenant
        self._total = total
        self._quantum = max(quantum, 1)
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
        """The entry has got its slot: take it out and charge its tenant."""
        if entry.is_gone:
            return
        self.remove(entry)
        self._charge(entry)
        if self._served_at is not None and self._size:
            gap = now - self._served_at
            self._interval = gap if not self._interval else self._interval + _SMOOTHING * (gap - self._interval)
        self._served_at = now if self._size else None

    def _charge(self, entry: Entry[E]) -> None:
        lanes = self._lanes.get(entry.priority)
        lane = lanes.get(entry.tenant) if lanes is not None else None
        if lanes is None or lane is None:
            return
        lane.credit -= entry.cost
        head = lane.head()
        if head is None or lane.credit < head.cost:
            lanes.move_to_end(entry.tenant)  # its turn is over, even if the walk ends here

    def turns(self) -> Iterator[Entry[E]]:
        """Heads in the order in which they may try, each tenant until it is refused or its credit is used up.

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
            lane = lanes[tenant]
            head = lane.head()
            if head is None:
                del lanes[tenant]
                continue
            if lane.credit < head.cost:
                lane.credit += self._quantum
            is_refused = yield from self._turn(lane)
            if lane.head() is None:
                del lanes[tenant]
                continue
            if not is_refused:
                lanes.move_to_end(tenant)
                active.append(tenant)

    def _turn(self, lane: _Lane[E]) -> Generator[Entry[E], None, bool]:
        """Offers heads while there is credit; returns whether one was let be."""
        while (head := lane.head()) is not None and lane.credit >= head.cost:
            yield head
            if not head.is_gone:
                return True
        return False
