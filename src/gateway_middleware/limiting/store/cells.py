"""The limits of one plan in the memory of this process: looked up once, taken and settled in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.limiting.limit import Claim, LimitStatus, Standing, Unit
from gateway_middleware.limiting.store.window import LEASE, Leases, Window, weighed

if TYPE_CHECKING:
    from gateway_middleware.limiting.store.memory import MemoryStore

_UNITS = (Unit.REQUESTS, Unit.TOKENS, Unit.SPEND)


class Taken(msgspec.Struct, frozen=True, gc=False):
    """What a call has taken of each limit of a plan.

    `costs` are of requests, tokens and spend; `standing` is in the order of the claims.
    """

    costs: tuple[int, int, int]
    standing: Sequence[Standing]
    now: int


class Cells:
    """Where the limits of one plan are counted, at the weight of the store.

    `claims` are what one call takes, with those of slots last. A plan outlives its windows: those that have passed are
    dropped by the store, whose `generation` tells that they have to be looked up again.
    """

    __slots__ = ("_claims", "_generation", "_slots", "_store", "_windows", "has_slots", "keys")

    def __init__(self, store: MemoryStore, claims: Sequence[Claim]) -> None:
        self._store = store
        self._claims = claims
        self._generation = -1
        self._windows: list[tuple[Window, int, int]] = []
        self._slots: list[tuple[Leases, int]] = []
        self.keys = [claim.key for claim in claims]
        self.has_slots = claims[-1].limit.period is None

    @property
    def weight(self) -> int:
        """How many units of a limit each unit takes."""
        return self._store.weight

    def slot_keys(self) -> list[str]:
        """The keys under which a call holds a slot."""
        return [claim.key for claim in self._claims if claim.limit.period is None]

    def _look_up(self) -> None:
        self._generation = self._store.generation
        cells = [(self._store.cell(claim), claim.limit) for claim in self._claims]
        self._windows = [(c, _UNITS.index(limit.unit), limit.amount) for c, limit in cells if isinstance(c, Window)]
        self._slots = [(c, limit.amount // self._store.weight or 1) for c, limit in cells if isinstance(c, Leases)]

    def take(self, tokens: int, spend: int, owner: bytes) -> Taken | None:
        """Take a request, so many tokens and micro-dollars, and slots; None, and nothing taken, unless all fits."""
        store = self._store
        if self._generation != store.generation:
            self._look_up()
        now, weight = store.now(), store.weight
        costs = (1, tokens, spend)
        standing: list[Standing] = []
        for window, unit, amount in self._windows:
            time = now + store.wall_offset if window.is_calendar else now
            if not window.since <= time < window.until:
                window.turn(time)
            cost = costs[unit] * weight
            if cost > amount:
                cost = weighed(costs[unit], amount, weight)
            total = window.total + cost
            if total > amount:
                self._put_back(costs, len(standing))
                return None
            window.amount += cost
            window.total = total
            standing.append(((amount - total) // weight, window.eases - time, window.ends - time, window.newest))
        if self._slots and not self._hold(owner, now, standing):
            self._put_back(costs, len(self._windows))
            return None
        return Taken(costs, standing, now)

    def _hold(self, owner: bytes, now: int, standing: list[Standing]) -> bool:
        """Take a slot of each limit, if all have one."""
        for leases, amount in self._slots:
            leases.advance(now)
            left = amount - len(leases.expiries) - 1
            if left < 0:
                self._release(owner)
                return False
            leases.expiries[owner] = now + LEASE
            standing.append((left, 0, 0, 0))
        return True

    def _put_back(self, costs: tuple[int, int, int], count: int) -> None:
        """Undo what was taken in the same moment from the first `count` windows."""
        for window, unit, amount in self._windows[:count]:
            cost = weighed(costs[unit], amount, self._store.weight)
            window.amount -= cost
            window.total -= cost

    def _release(self, owner: bytes) -> None:
        for leases, _ in self._slots:
            leases.expiries.pop(owner, None)

    def settle(self, taken: Taken, owner: bytes, used: tuple[int | None, int | None, int | None]) -> None:
        """Count what was really `used` of requests, tokens and spend (None: as much as was taken); free the slots."""
        store = self._store
        if self._generation != store.generation:
            self._look_up()
        costs, now = taken.costs, store.now()
        for (window, unit, amount), stood in zip(self._windows, taken.standing, strict=False):
            really = used[unit]
            if really is not None and really != costs[unit]:
                time = now + store.wall_offset if window.is_calendar else now
                window.settle(costs[unit], really, amount, time, stood[3], store.weight)
        self._release(owner)

    def statuses(self, taken: Taken) -> tuple[LimitStatus, ...]:
        """How all limits stood when that was taken; which of the buckets is the oldest is told as of now."""
        costs = dict(zip(_UNITS, taken.costs, strict=True))
        return tuple(
            LimitStatus(
                msgspec.structs.replace(claim, cost=costs.get(claim.limit.unit, 1)),
                remaining,
                wait=0,
                is_taken=True,
                oldest=self._oldest(claim, bucket),
                newest=bucket,
                now=self._time(claim, taken.now),
            )
            for claim, (remaining, _, _, bucket) in zip(self._claims, taken.standing, strict=True)
        )

    def _oldest(self, claim: Claim, bucket: int) -> int:
        cell = self._store.cell(claim)
        return min(cell.oldest, bucket) if isinstance(cell, Window) else 0

    def _time(self, claim: Claim, now: int) -> int:
        return now + self._store.wall_offset if claim.limit.is_calendar else now
