"""Limits counted in this process: many keys, one dictionary lookup each, no locks (one event loop)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import Change, Claim, Decision, LimitStatus
from gateway_middleware.limiting.period import MICROSECONDS, Period
from gateway_middleware.limiting.store.window import LEASE, LEASE_SECONDS, Leases, Window

Cell: TypeAlias = "Window | Leases"
_SLICE = 256
_TICKS_A_CYCLE = 240


class MemoryStore:
    """A `Store` whose answers come at once.

    Sliding windows and leases live on `clock`. Periods of the calendar live on `wall` (seconds since the epoch), which
    is compared with `clock` at each tick. Each unit of cost takes `weight` units of a limit: with n processes that do
    not share, a weight of n divides the limits by n.
    """

    lease_seconds: ClassVar[float] = LEASE_SECONDS

    def __init__(self, *, clock: Clock = time.monotonic, wall: Clock = time.time, weight: int = 1) -> None:
        self._clock = clock
        self._wall = wall
        self.weight = weight
        self._cells: dict[str, Cell] = {}
        self._unswept: dict[str, Cell] = {}
        self.generation = 0
        self.wall_offset = 0
        self._compare_clocks()

    def __len__(self) -> int:
        return len(self._cells) + len(self._unswept)

    def now(self) -> int:
        """Microseconds on the clock of sliding windows."""
        return int(self._clock() * MICROSECONDS + 0.5)

    def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision:
        """Take all claims or none; the keys of one call must differ."""
        now = self.now()
        wall, weight = now + self.wall_offset, self.weight
        probes: list[tuple[Claim, Cell, int]] = []
        takes = not is_dry
        is_admitted = True
        for claim in claims:
            cell = self.cell(claim)
            wait = cell.probe(claim, wall if cell.is_calendar else now, owner, weight)
            if wait and not claim.limit.is_shadow:
                is_admitted = takes = False
            probes.append((claim, cell, wait))
        # A list, not a generator: this is the hot path.
        statuses = [
            cell.stand(claim, wall if cell.is_calendar else now, owner, weight, wait, takes and not wait)
            for claim, cell, wait in probes
        ]
        return Decision(is_admitted, tuple(statuses), owner, weight)

    def cell(self, claim: Claim) -> Cell:
        """Where the claim is counted, until `generation` changes."""
        key = claim.key
        return self._cells.get(key) or self._unswept.get(key) or self._open(key, claim.limit.period)

    def _open(self, key: str, period: Period | None) -> Cell:
        cell: Cell = Leases({}) if period is None else Window(period, not period.count)
        self._cells[key] = cell
        return cell

    def _find(self, key: str) -> Cell | None:
        return self._cells.get(key) or self._unswept.get(key)

    def _now(self, cell: Cell) -> int:
        now = self.now()
        return now + self.wall_offset if cell.is_calendar else now

    def settle(self, decision: Decision, changes: Sequence[Change]) -> None:
        """Apply corrections at the weight of the decision."""
        now = self.now()
        for change in changes:
            cell = self.cell(change.claim)
            if isinstance(cell, Window):
                cell.advance(now + self.wall_offset if cell.is_calendar else now)
                cell.correct(change, decision.weight)
            else:
                cell.release(decision.owner)

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> None:
        """Prolong leases, or take them anew."""
        until = self.now() + LEASE
        for key, owner in leases:
            cell = self._find(key) or self._open(key, None)
            if isinstance(cell, Leases):
                cell.hold(owner, until)

    def leases(self) -> list[tuple[str, bytes]]:
        """All that are held, by key and owner."""
        now, held = self.now(), list[tuple[str, bytes]]()
        for cells in (self._cells, self._unswept):
            for key, cell in cells.items():
                if isinstance(cell, Leases):
                    cell.advance(now)
                    held += [(key, owner) for owner in cell.expiries]
        return held

    def adopt(self, statuses: Sequence[LimitStatus], owner: bytes, untold: Mapping[str, int]) -> None:
        """Follow a decision that was taken elsewhere: its totals, and the leases that this process holds.

        `untold` are units by key that count here and are not known there yet.
        """
        now = self.now()
        cells = self._cells
        for status in statuses:
            claim = status.claim
            cell = cells.get(claim.key) or self.cell(claim)
            cell.advance(now + self.wall_offset if cell.is_calendar else now)
            if isinstance(cell, Window):
                total = claim.limit.amount - status.remaining
                cell.adopt(max(total + untold.get(claim.key, 0), 0) if untold else total)
            elif status.is_taken:
                cell.hold(owner, now + LEASE)

    def used(self, key: str) -> int:
        """Units that count under a key now, or leases held."""
        cell = self._find(key)
        if cell is None:
            return 0
        cell.advance(self._now(cell))
        return cell.total if isinstance(cell, Window) else len(cell.expiries)

    def rest(self, key: str) -> float:
        """Seconds until nothing under a window's key counts any more."""
        cell = self._find(key)
        if not isinstance(cell, Window):
            return 0.0
        now = self._now(cell)
        cell.advance(now)
        return (cell.period.expires(cell.newest) - now) / MICROSECONDS if cell.total else 0.0

    def forget(self, key: str) -> None:
        """Drop what was counted under a key."""
        self._cells.pop(key, None)
        self._unswept.pop(key, None)
        self.generation += 1

    def clear(self) -> None:
        """Drop everything."""
        self._cells, self._unswept = {}, {}
        self.generation += 1

    def tick(self) -> None:
        """Sweep so much that every key is looked at once a minute, at four ticks a second."""
        self._compare_clocks()
        self.sweep(max(_SLICE, len(self) // _TICKS_A_CYCLE))

    def _compare_clocks(self) -> None:
        self.wall_offset = int((self._wall() - self._clock()) * MICROSECONDS)

    async def aclose(self) -> None:
        """Nothing is open."""

    def sweep(self, count: int) -> None:
        """Look at `count` keys and release those whose windows have passed."""
        now = self.now()
        if not self._unswept:
            self._unswept, self._cells = self._cells, {}
        cells, unswept = self._cells, self._unswept
        for _ in range(min(count, len(unswept))):
            key, cell = unswept.popitem()
            if cell.is_idle(now + self.wall_offset if cell.is_calendar else now):
                self.generation += 1
            else:
                cells[key] = cell
