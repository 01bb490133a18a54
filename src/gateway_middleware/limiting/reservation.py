"""What a call has taken: reserved before it, settled or cancelled after it, exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.errors import RateLimitedError
from gateway_middleware.limiting.limit import (
    MAX_AMOUNT,
    NEVER,
    Change,
    Claim,
    Decision,
    LimitStatus,
    Standing,
    Store,
    Unit,
)
from gateway_middleware.limiting.store.cells import Cells, Taken
from gateway_middleware.limiting.store.fallback import FallbackStore
from gateway_middleware.limiting.store.memory import MemoryStore

_TOKENS, _SPEND, _CONCURRENCY = Unit.TOKENS, Unit.SPEND, Unit.CONCURRENCY
_RENEWALS_A_LEASE = 3
_TICK_SECONDS = 0.25
_FEW_KEYS = 256
"""So many may stay in memory where nobody calls."""
_log = logging.getLogger("gateway_middleware")


class LimitReachedError(RateLimitedError):
    """A limit refused the call; `status` says which, and `decision` how all of them stand."""

    def __init__(self, decision: Decision, status: LimitStatus) -> None:
        super().__init__(_message(status), retry_after=_retry_after(decision, status), code=_code(status))
        self.decision = decision
        self.limit_status = status
        self.limit_headers: HeaderList = []
        """How all limits stand, for the answer."""

    @property
    def headers(self) -> HeaderList:
        """What can never fit need not be tried again: the official SDKs obey this header."""
        return [*self.limit_headers, *([(b"x-should-retry", b"false")] if self.limit_status.wait == NEVER else [])]


def _code(status: LimitStatus) -> str:
    return "request_exceeds_limit" if status.wait == NEVER else "rate_limit_exceeded"


def _retry_after(decision: Decision, status: LimitStatus) -> float:
    seconds = decision.retry_after
    return float(status.claim.limit.seconds) if seconds is None else seconds


def _message(status: LimitStatus) -> str:
    claim, limit = status.claim, status.claim.limit
    if status.wait == NEVER:
        amount = f"${claim.cost / 1e6:,.2f}" if limit.unit is Unit.SPEND else f"{claim.cost:,} {limit.unit}"
        return f"This request needs about {amount}, more than the whole limit of {limit.phrase} ({limit.name})."
    seconds = status.wait / 1e6
    return f"Rate limit reached: {limit.phrase} ({limit.name}). Try again in {seconds:.3g} s."


class Reservation:
    """The claims of one admitted call. The first `settle` or `cancel` counts; later ones do nothing."""

    __slots__ = ("__weakref__", "_decision", "_is_open", "_limiter", "_standing")

    def __init__(self, reservations: Reservations, decision: Decision) -> None:
        self._limiter = reservations
        self._decision = decision
        self._standing: Sequence[Standing] | None = None
        self._is_open = True

    @property
    def decision(self) -> Decision:
        """How it was admitted."""
        return self._decision

    @property
    def standing(self) -> Sequence[Standing]:
        """How the limits stand, in the order of the claims."""
        if self._standing is None:
            self._standing = [status.standing for status in self._decision.statuses]
        return self._standing

    @property
    def is_degraded(self) -> bool:
        """Whether it was decided here because the shared store is away."""
        return self._decision.is_degraded

    @property
    def owner(self) -> bytes:
        """The name of the call that holds its slots."""
        return self._decision.owner

    def slot_keys(self) -> list[str]:
        """The keys of the slots that it took."""
        return [status.claim.key for status in _slots(self._decision)]

    @property
    def is_open(self) -> bool:
        """Whether it still has to be settled or cancelled."""
        return self._is_open

    def settle(self, *, tokens: int | None = None, spend: int | None = None) -> Coroutine[Any, Any, None]:
        """Correct tokens and spend (micro-dollars) to what was really used and give the slot back.

        None leaves what was reserved. What has to be sent is sent before the first await, so a cancelled task settles
        too; when this returns, every later call of this process finds the slot free.
        """
        return self._end(requests=None, tokens=tokens, spend=spend)

    def cancel(self) -> Coroutine[Any, Any, None]:
        """Give everything back: the provider failed and the call did not happen."""
        return self._end(requests=0, tokens=0, spend=0)

    async def _end(self, *, requests: int | None, tokens: int | None, spend: int | None) -> None:
        sent = self.end(requests=requests, tokens=tokens, spend=spend)
        if sent is not None:
            await sent

    def end(
        self, *, requests: int | None = None, tokens: int | None = None, spend: int | None = None
    ) -> Awaitable[object] | None:
        """The same without a coroutine, for whoever has many to end: what is returned has to be waited for."""
        if not self._is_open:
            return None
        self._is_open = False
        return self._limiter.end(self, requests=requests, tokens=tokens, spend=spend)


class PlannedReservation(Reservation):
    """The same of a call that follows a plan, taken from its cells: it has its decision made when one is asked for."""

    __slots__ = ("_cells", "_owner", "_taken")
    is_degraded = False

    def __init__(self, reservations: Reservations, cells: Cells, taken: Taken, owner: bytes) -> None:
        self._limiter = reservations
        self._is_open = True
        self._cells = cells
        self._owner = owner
        self._taken = taken

    @property
    def standing(self) -> Sequence[Standing]:
        """How the limits stand, in the order of the claims."""
        return self._taken.standing

    @property
    def decision(self) -> Decision:
        """How it was admitted. Which bucket is the oldest is told as of now."""
        return Decision(True, self._cells.statuses(self._taken), self._owner, self._cells.weight)

    @property
    def owner(self) -> bytes:
        return self._owner

    def slot_keys(self) -> list[str]:
        return self._cells.slot_keys()

    def end(self, *, requests: int | None = None, tokens: int | None = None, spend: int | None = None) -> None:
        """Correct what was taken to what was really used, at once."""
        if self._is_open:
            self._is_open = False
            if self._limiter.is_resting:
                self._limiter.start_late()
            self._cells.settle(self._taken, self._owner, (requests, tokens, spend))
            self._limiter.ended(self._owner, self._cells.keys)


def _changes(decision: Decision, *, requests: int | None, tokens: int | None, spend: int | None) -> list[Change]:
    """What has to be corrected of a decision, and given back."""
    changes = []
    for status in decision.statuses:
        if not status.is_taken:
            continue
        claim = status.claim
        unit = claim.limit.unit
        used = tokens if unit is _TOKENS else spend if unit is _SPEND else requests
        if unit is _CONCURRENCY:
            changes.append(Change(claim, None, 0))
        elif used is not None and used != claim.cost:
            changes.append(Change(claim, status.newest, min(max(used, 0), MAX_AMOUNT) - claim.cost))
    return changes


class Reservations:
    """Reserves on a `Store`, keeps the leases of live calls alive, and closes the store in the end.

    `owner_prefix` must differ between replicas. The housekeeping runs four times a second in the event loop in which it
    was started. Where this process alone counts it rests (`is_resting`) while nobody calls and no lease is held: the
    next reservation, or the end of one, begins it anew.
    """

    def __init__(self, store: Store, *, owner_prefix: bytes | None = None) -> None:
        self.store = store
        self._prefix = secrets.token_bytes(8) if owner_prefix is None else owner_prefix
        self.is_resting = False
        self._count = self._count_at_tick = 0
        self._ticks = 0
        self._renew_every = max(round(store.lease_seconds / _RENEWALS_A_LEASE / _TICK_SECONDS), 1)
        self._memory = store if isinstance(store, MemoryStore) else None
        self._leased: dict[bytes, weakref.ref[Reservation]] = {}
        """By owner. One that nobody has any more is dropped at the next renewal."""
        self._on_release: list[Callable[[Sequence[str]], None]] = []
        self._housekeeping: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """What `start` does, once a store that others share has answered, or half a second has passed."""
        if isinstance(self.store, FallbackStore):
            await self.store.open()
        self.start()

    def start(self) -> None:
        """Begin the housekeeping, unless it runs."""
        self._is_closed = False
        self.start_late()

    def start_late(self) -> None:
        """What `start` does, for a host that forgot it; after `aclose` nothing. Cheap enough for every call."""
        if not self._is_closed and (self._housekeeping is None or self._housekeeping.done()):
            self._housekeeping = asyncio.get_running_loop().create_task(self._keep_house())
            self.is_resting = False
            if self._memory is not None:
                self._memory.tick()  # the time of day may have been set meanwhile

    async def aclose(self) -> None:
        """End the housekeeping and close the store. Twice is once."""
        self._is_closed = True
        self.is_resting = False
        task, self._housekeeping = self._housekeeping, None
        try:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            await self.store.aclose()

    async def _keep_house(self) -> None:
        while not self.is_resting:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self.tick()
            except Exception:  # noqa: BLE001  # a fault of housekeeping must not end it
                _log.exception("Housekeeping of rate limits failed; it goes on")
            self.is_resting = self._may_rest()

    def _may_rest(self) -> bool:
        before, self._count_at_tick = self._count_at_tick, self._count
        is_quiet = before == self._count and not self._leased
        return is_quiet and self._memory is not None and len(self._memory) <= _FEW_KEYS

    def on_release(self, notify: Callable[[Sequence[str]], None]) -> None:
        """Have `notify` called with the keys under which something may have been given back."""
        self._on_release.append(notify)

    @property
    def leased(self) -> int:
        """How many live calls hold a concurrency slot."""
        return len(self._live())

    def _live(self) -> list[Reservation]:
        return [reservation for ref in self._leased.values() if (reservation := ref()) is not None]

    async def decide(self, claims: Sequence[Claim], *, is_dry: bool = False) -> Decision:
        """Take all claims or none and say how it stands. Dry: take nothing."""
        decision = self._admit(claims, is_dry=is_dry)
        return decision if isinstance(decision, Decision) else await decision

    def _admit(self, claims: Sequence[Claim], *, is_dry: bool) -> Decision | Awaitable[Decision]:
        if self.is_resting:
            self.start_late()
        self._count += 1
        return self.store.admit(claims, self._prefix + self._count.to_bytes(8), is_dry=is_dry)

    async def reserve(self, claims: Sequence[Claim]) -> Reservation:
        """Take all claims. Raises `LimitReachedError` when a limit refuses: then nothing was taken."""
        decision = self._admit(claims, is_dry=False)
        return self.accept(decision if isinstance(decision, Decision) else await decision)

    def cells(self, claims: Sequence[Claim]) -> Cells | None:
        """Where claims are counted that are taken again and again; None where they are counted by others too."""
        memory = self._memory
        return Cells(memory, claims) if memory is not None and claims else None

    def take_planned(self, cells: Cells, tokens: int, spend: int) -> PlannedReservation | None:
        """A request, so many tokens and micro-dollars, and slots; None, and nothing taken, unless all fits."""
        self._count += 1
        owner = self._prefix + self._count.to_bytes(8)
        taken = cells.take(tokens, spend, owner)
        if taken is None:
            return None
        reservation = PlannedReservation(self, cells, taken, owner)
        if cells.has_slots:
            self._leased[owner] = weakref.ref(reservation)
        return reservation

    def ended(self, owner: bytes, keys: Sequence[str]) -> None:
        """For reservations only: this one has ended, and has given back what it did not use under these keys."""
        self._leased.pop(owner, None)
        for notify in self._on_release:
            notify(keys)

    def accept(self, decision: Decision) -> Reservation:
        """The reservation of an admitted decision. Raises `LimitReachedError` for a refused one."""
        refused = None if decision.is_admitted else decision.refused
        if refused is not None:
            raise LimitReachedError(decision, refused)
        reservation = Reservation(self, decision)
        for status in decision.statuses:
            if status.is_taken and status.claim.limit.period is None:
                self._leased[decision.owner] = weakref.ref(reservation)
                break
        return reservation

    def end(
        self, reservation: Reservation, *, requests: int | None, tokens: int | None, spend: int | None
    ) -> Awaitable[object] | None:
        """For `Reservation` only."""
        if self.is_resting:
            self.start_late()
        decision = reservation.decision
        changes = _changes(decision, requests=requests, tokens=tokens, spend=spend)
        sent = self.store.settle(decision, changes) if changes else None
        self.ended(decision.owner, [change.claim.key for change in changes])
        return sent

    async def tick(self) -> None:
        """A slice of housekeeping; renews the leases of live calls three times in a lease."""
        self._ticks += 1
        housekeeping = self.store.tick()
        if housekeeping is not None:
            await housekeeping
        if self._ticks % self._renew_every == 0 and self._leased:
            live = self._live()
            self._leased = {reservation.owner: self._leased[reservation.owner] for reservation in live}
            await self._renew(live)

    async def _renew(self, live: Sequence[Reservation]) -> None:
        renewing = self.store.renew([(key, r.owner) for r in live for key in r.slot_keys()])
        if renewing is None:
            return
        await renewing
        # A renewal that was carried out late has taken the leases anew of calls that ended in the meantime.
        for reservation in live:
            if not reservation.is_open:
                decision = reservation.decision
                released = self.store.settle(decision, [Change(s.claim, None, 0) for s in _slots(decision)])
                if released is not None:
                    await released


def _slots(decision: Decision) -> Iterator[LimitStatus]:
    """The slots that were taken."""
    return (s for s in decision.statuses if s.is_taken and s.claim.limit.period is None)
