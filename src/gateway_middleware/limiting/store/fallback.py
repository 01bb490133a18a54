"""The shared store with a net under it: while it is out, each replica takes its share of the limits.

While the shared store answers, its totals are followed in memory, so that the share begins where the limit stood. While
it is out, each unit of cost counts as many times as there are live replicas. When it is back, it is told what was
admitted meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Protocol

import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import (
    Change,
    Claim,
    Decision,
    OutagePolicy,
    Standing,
    Store,
)
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.window import LEASE_SECONDS
from gateway_middleware.redis.caller import RedisError

_FAILURES = 5
_CLOSED_WAIT = 1_000_000
_PROBE_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0
_MOST_OWED = 100_000
_SLICE = 200


class SharedStore(Store, Protocol):
    """A store that several replicas use."""

    async def heartbeat(self, replica: bytes) -> int:
        """Say that this replica lives; returns how many do. Raises `RedisError`."""
        ...


class StoreChange(msgspec.Struct, frozen=True):
    """The shared store went out, or came back. `reason` is for the log."""

    is_degraded: bool
    reason: str
    replicas: int


class OutageStore:
    """A `Store` that never fails.

    After five failures in a row (an answer that takes more than the deadline is one) no call waits for the shared store
    any more; it is probed in `tick` once a second. `on_change` is called once for each change. `replicas` is the number
    to divide by as long as no heartbeat has told another one. `replica` must differ between processes, restarted ones
    included.
    """

    lease_seconds: ClassVar[float] = LEASE_SECONDS

    def __init__(
        self,
        shared: SharedStore,
        local: MemoryStore,
        *,
        replica: bytes,
        clock: Clock,
        replicas: int = 1,
        on_change: Callable[[StoreChange], None] = lambda _: None,
    ) -> None:
        self._shared = shared
        self._local = local
        self._replica = replica
        self._clock = clock
        self.replicas = replicas
        self._on_change = on_change
        self.is_degraded = False
        self.failures = 0
        self._failures_in_a_row = 0
        self._beat_at = 0.0
        self._owed: dict[str, tuple[Claim, int]] = {}
        self._unsettled: list[tuple[Decision, Sequence[Change]]] = []
        self._told = 0

    def admit(
        self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False
    ) -> Decision | Awaitable[Decision]:  # fmt: skip
        """Take all claims or none; at once while the shared store is out."""
        if self.is_degraded:
            return self._admit_here(claims, owner, is_dry=is_dry)
        return self._admit_there(claims, owner, is_dry=is_dry)

    async def _admit_there(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        try:
            found = self._shared.admit(claims, owner, is_dry=is_dry)
            decision = found if isinstance(found, Decision) else await found
        except RedisError as error:
            self._count_failure(error)
            return self._admit_here(claims, owner, is_dry=is_dry)
        self._failures_in_a_row = 0
        self._local.adopt(decision.standings, owner)
        return decision

    def _admit_here(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        closed = [c for c in claims if c.limit.on_outage is OutagePolicy.CLOSED and not c.limit.is_shadow]
        shared = [c for c in claims if c.limit.on_outage is OutagePolicy.SHARE or c.limit.is_shadow]
        self._local.weight = self.replicas
        found = self._local.admit(shared, owner, is_dry=is_dry or bool(closed))
        by_key = {s.claim.key: s for s in found.standings}
        standings = tuple(by_key.get(c.key) or _unasked(c) for c in claims)
        if found.is_admitted and not closed and not is_dry:
            for standing in found.standings:
                self._owe(standing.claim, standing.claim.cost if standing.is_taken else 0)
        return Decision(found.is_admitted and not closed, standings, owner, found.weight, is_degraded=True)

    def _owe(self, claim: Claim, amount: int) -> None:
        if claim.limit.span is not None and amount:
            before = self._owed.get(claim.key, (claim, 0))[1]
            if claim.key in self._owed or len(self._owed) < _MOST_OWED:
                self._owed[claim.key] = (claim, before + amount)

    def settle(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[object] | None:
        """Apply the changes where the decision was taken, and in what is told later."""
        self._release_here(decision, changes)
        if decision.is_degraded:
            return self._settle_here(decision, changes)
        if self.is_degraded:
            self._postpone(decision, changes)
            return None
        return self._settle_there(decision, changes, self._shared.settle(decision, changes))

    def _release_here(self, decision: Decision, changes: Sequence[Change]) -> None:
        leases = [c for c in changes if c.claim.limit.span is None]
        self._local.settle(decision, leases)

    def _settle_here(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[object] | None:
        self._local.settle(decision, [c for c in changes if c.claim.limit.span is not None])
        told = []
        for change in changes:
            if self.is_degraded or change.claim.key in self._owed:
                self._owe(change.claim, change.delta)
            elif change.delta >= 0 or change.claim.limit.is_calendar:
                told.append(Change(change.claim, None, change.delta))
        return self._settle_there(decision, told, self._shared.settle(decision, told)) if told else None

    async def _settle_there(
        self, decision: Decision, changes: Sequence[Change], sent: Awaitable[object] | None
    ) -> None:  # fmt: skip
        try:
            if sent is not None:
                await sent
        except RedisError as error:
            self._count_failure(error)
            self._postpone(decision, changes)

    def _postpone(self, decision: Decision, changes: Sequence[Change]) -> None:
        """Keep what may be sent twice without harm: leases, and the periods of the calendar. The rest slides out."""
        leases = [c for c in changes if c.claim.limit.span is None]
        periods = [c for c in changes if c.claim.limit.is_calendar]
        if len(self._unsettled) < _MOST_OWED:
            self._unsettled += [(decision, kept) for kept in (leases, periods) if kept]

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> Awaitable[object] | None:
        """Prolong leases in both places."""
        self._local.renew(leases)
        return None if self.is_degraded else self._renew_there(self._shared.renew(leases))

    async def _renew_there(self, sent: Awaitable[object] | None) -> None:
        try:
            if sent is not None:
                await sent
        except RedisError as error:
            self._count_failure(error)

    async def tick(self) -> None:
        """Housekeeping; heartbeat, and the probe of a store that is out."""
        self._local.tick()
        if self._clock() < self._beat_at:
            return
        self._beat_at = self._clock() + _PROBE_SECONDS
        try:
            seen = await self._shared.heartbeat(self._replica)
            await self._reconcile()
        except RedisError as error:
            self._count_failure(error)
            return
        self._failures_in_a_row = 0
        self._beat_at = self._clock() + _HEARTBEAT_SECONDS
        # The first to come back does not see the others yet.
        self.replicas = max(seen, self.replicas) if self.is_degraded else seen
        if self.is_degraded:
            self._change(is_degraded=False, reason="the shared store answers again")

    async def _reconcile(self) -> None:
        """Tell the shared store what happened without it. Raises `RedisError`; what was not told is told next time."""
        owed, self._owed = self._owed, {}
        unsettled, self._unsettled = self._unsettled, []
        self._told += 1
        owner = self._replica + b"owed" + self._told.to_bytes(8)
        told: list[tuple[Decision, Sequence[Change]]] = []
        told += [(Decision(True, (), owner + key.encode()), [Change(c, None, n)]) for key, (c, n) in owed.items() if n]
        told += unsettled
        for at in range(0, len(told), _SLICE):
            await self._tell(told[at : at + _SLICE], told[at + _SLICE :])

    async def _tell(
        self,
        messages: Sequence[tuple[Decision, Sequence[Change]]],
        others: Sequence[tuple[Decision, Sequence[Change]]],
    ) -> None:
        """Keeps the messages that failed, and the others then too, each under its owner: a period takes it once."""
        sent = [self._shared.settle(*message) or _nothing() for message in messages]
        results = await asyncio.gather(*sent, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            self._unsettled += [m for m, result in zip(messages, results, strict=True) if result is not None]
            self._unsettled += others
            raise failures[0]

    def _count_failure(self, error: RedisError) -> None:
        self.failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES and not self.is_degraded:
            self._beat_at = self._clock() + _PROBE_SECONDS
            self._change(is_degraded=True, reason=str(error))

    def _change(self, *, is_degraded: bool, reason: str) -> None:
        self.is_degraded = is_degraded
        self._on_change(StoreChange(is_degraded, reason, self.replicas))


async def _nothing() -> None:
    """What an answer that came at once has left to wait for."""


def _unasked(claim: Claim) -> Standing:
    """The standing of a limit that is not counted during an outage."""
    is_closed = claim.limit.on_outage is OutagePolicy.CLOSED
    wait = _CLOSED_WAIT if is_closed else 0
    return Standing(claim, 0 if is_closed else claim.limit.amount, wait, False, 0, 0, 0)
