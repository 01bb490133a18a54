"""Limits counted in this process: many keys, one dictionary lookup each, no locks (one event loop)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import Change, Claim, Decision, LimitStatus, Unit
from gateway_middleware.limiting.period import MICROSECONDS, Period
from gateway_middleware.limiting.store.window import LEASE_SECONDS, Leases, Window

Cell: TypeAlias = "Window | Leases"
_LEASE = int(LEASE_SECONDS * MICROSECONDS)
_TOKENS, _SPEND = Unit.TOKENS, Unit.SPEND
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
        self._wall_offset = 0
        self._compare_clocks()

    def __len__(self) -> int:
        return len(self._cells) + len(self._unswept)

    def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision:
        """Take all claims or none; the keys of one call must differ."""
        now = int(self._clock() * MICROSECONDS + 0.5)
        wall, weight = now + self._wall_offset, self.weight
        if weight == 1 and not is_dry:
            taken = self._take(claims, owner, now, wall)
            if taken is not None:
                return Decision(True, tuple(taken), owner)
        probes: list[tuple[Claim, Cell, int]] = []
        takes = not is_dry
        is_admitted = True
        for claim in claims:
            cell = self._cells.get(claim.key) or self._fetch(claim)
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

    def _take(self, claims: Sequence[Claim], owner: bytes, now: int, wall: int) -> list[LimitStatus] | None:
        """Take everything in one go, as long as everything fits; None, and nothing taken, as soon as one does not."""
        statuses: list[LimitStatus] = []
        for claim in claims:
            cell = self._cells.get(claim.key) or self._fetch(claim)
            status = cell.take(claim, wall if cell.is_calendar else now, owner)
            if status is None:
                for taken in statuses:
                    (self._cells.get(taken.claim.key) or self._fetch(taken.claim)).put_back(taken.claim, owner)
                return None
            statuses.append(status)
        return statuses

    def _fetch(self, claim: Claim) -> Cell:
        return self._unswept.get(claim.key) or self._open(claim.key, claim.limit.period)

    def _open(self, key: str, period: Period | None) -> Cell:
        cell: Cell = Leases({}) if period is None else Window(period, not period.count)
        self._cells[key] = cell
        return cell

    def _find(self, key: str) -> Cell | None:
        return self._cells.get(key) or self._unswept.get(key)

    def _now(self, cell: Cell) -> int:
        now = int(self._clock() * MICROSECONDS + 0.5)
        return now + self._wall_offset if cell.is_calendar else now

    def settle(self, decision: Decision, changes: Sequence[Change]) -> None:
        """Apply corrections at the weight of the decision."""
        now = int(self._clock() * MICROSECONDS + 0.5)
        for change in changes:
            cell = self._cells.get(change.claim.key) or self._fetch(change.claim)
            if isinstance(cell, Window):
                cell.advance(now + self._wall_offset if cell.is_calendar else now)
                cell.correct(change, decision.weight)
            else:
                cell.release(decision.owner)

    def end(self, decision: Decision, *, requests: int | None, tokens: int | None, spend: int | None) -> None:
        """What `settle` does of a decision with the weight 1, for what was really used; None leaves what was taken."""
        now = int(self._clock() * MICROSECONDS + 0.5)
        for status in decision.statuses:
            claim = status.claim
            limit = claim.limit
            if limit.period is None:
                cell = self._cells.get(claim.key) or self._fetch(claim)
                if isinstance(cell, Leases):  # pragma: no branch  # a limit without a period has no other cell
                    cell.expiries.pop(decision.owner, None)
                continue
            unit = limit.unit
            used = tokens if unit is _TOKENS else spend if unit is _SPEND else requests
            if used is None or used == claim.cost or not status.is_taken:
                continue
            cell = self._cells.get(claim.key) or self._fetch(claim)
            if isinstance(cell, Window):  # pragma: no branch  # a limit with a period has no other cell
                cell.settle(claim, used, now + self._wall_offset if cell.is_calendar else now, status.newest)

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> None:
        """Prolong leases, or take them anew."""
        until = int(self._clock() * MICROSECONDS + 0.5) + _LEASE
        for key, owner in leases:
            cell = self._find(key) or self._open(key, None)
            if isinstance(cell, Leases):
                cell.hold(owner, until)

    def adopt(self, statuses: Sequence[LimitStatus], owner: bytes, untold: Mapping[str, int]) -> None:
        """Follow a decision that was taken elsewhere: its totals, and the leases that this process holds.

        `untold` are units by key that count here and are not known there yet.
        """
        for status in statuses:
            claim = status.claim
            cell = self._cells.get(claim.key) or self._fetch(claim)
            now = self._now(cell)
            cell.advance(now)
            if isinstance(cell, Window):
                cell.adopt(max(claim.limit.amount - status.remaining + untold.get(claim.key, 0), 0))
            elif status.is_taken:
                cell.hold(owner, now + _LEASE)

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

    def clear(self) -> None:
        """Drop everything."""
        self._cells, self._unswept = {}, {}

    def tick(self) -> None:
        """Sweep so much that every key is looked at once a minute, at four ticks a second."""
        self._compare_clocks()
        self.sweep(max(_SLICE, len(self) // _TICKS_A_CYCLE))

    def _compare_clocks(self) -> None:
        self._wall_offset = int((self._wall() - self._clock()) * MICROSECONDS)

    async def aclose(self) -> None:
        """Nothing is open."""

    def sweep(self, count: int) -> None:
        """Look at `count` keys and release those whose windows have passed."""
        now = int(self._clock() * MICROSECONDS + 0.5)
        if not self._unswept:
            self._unswept, self._cells = self._cells, {}
        cells, unswept = self._cells, self._unswept
        for _ in range(min(count, len(unswept))):
            key, cell = unswept.popitem()
            if not cell.is_idle(now + self._wall_offset if cell.is_calendar else now):
                cells[key] = cell
