"""Falls back to per-replica limits while the shared store is unreachable, and reconciles afterwards.

While the shared store answers, its totals are followed in memory, so that a replica's share begins where the limit
stood. While it does not, each unit of cost counts as many times as there are live replicas. When it is back, it is told
what was admitted meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Protocol, TypeVar

import msgspec
from cachetools import TTLCache

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import Change, Claim, Decision, LimitStatus, OutagePolicy, Store
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.window import LEASE_SECONDS
from gateway_middleware.redis.caller import RedisError

_FAILURES = 5
_CLOSED_WAIT = 1_000_000
_PROBE_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0
_RETURN_SECONDS = 3.0
"""After the shared store's first answer: by then every replica has probed it too, and told it all."""
_FIRST_LOOKS = 5
_LOOK_SECONDS = 0.05
_LAST_WORDS_SECONDS = 1.0
_MAX_OWED = 100_000
_SLICE = 200
_REFUND_SECONDS = 3600.0
"""A call that lasts longer than this gets nothing back of what was told for it."""
_log = logging.getLogger("gateway_middleware")
T = TypeVar("T")


class SharedStore(Store, Protocol):
    """A store that several replicas use. What it returns may raise."""

    @property
    def keeps_order(self) -> bool:
        """Whether what is asked later finds done what was asked before."""
        ...

    async def count(self, owner: bytes, change: Change) -> int:
        """Count a change of one window once, however often it is sent under this owner; returns the current bucket."""
        ...

    async def release(self, leases: Sequence[tuple[str, bytes]]) -> None:
        """Give leases back, given as key and owner. Twice is once."""
        ...

    async def heartbeat(self, replica: bytes) -> int:
        """Say that this replica lives; returns how many do."""
        ...


class _Report(msgspec.Struct, frozen=True):
    """What the shared store has to learn of one window: units that it does not know, or a correction of known ones.

    `number` is that of the report with which the units were told first.
    """

    owner: bytes
    number: int
    change: Change


class StoreChange(msgspec.Struct, frozen=True):
    """The shared store went out, or came back. `reason` is for the log."""

    is_degraded: bool
    reason: str
    replicas: int


class FallbackStore:
    """A `Store` that never fails, whatever the shared store raises.

    A call that the shared store does not answer is decided here. After five failures in a row no call waits for the
    shared store any more; it is probed in `tick` once a second. When it answers again, each replica goes on with its
    share until all have told what they admitted: the first one would find room that others have taken. `on_change` is
    called once for each change.
    `min_replicas` is the least number to divide by, and the number as long as the shared store has told none. `replica`
    must differ between processes, restarted ones included.
    """

    lease_seconds: ClassVar[float] = LEASE_SECONDS

    def __init__(
        self,
        shared: SharedStore,
        local: MemoryStore,
        *,
        replica: bytes,
        clock: Clock,
        min_replicas: int = 1,
        on_change: Callable[[StoreChange], None] = lambda _: None,
    ) -> None:
        self._shared = shared
        self._local = local
        self._replica = replica
        self._clock = clock
        self._min_replicas = min_replicas
        self._live_replicas = 1
        self._on_change = on_change
        self.is_degraded = False
        self.failures = 0
        self._failures_in_a_row = 0
        self._beat_at = 0.0
        self._answers_since: float | None = None
        """Since when the shared store answers again."""
        self._next_report = 1
        self._owed: dict[tuple[str, int], tuple[Claim, int]] = {}
        """By key and report."""
        self._unconfirmed: dict[bytes, _Report] = {}
        """Reports by their owner, until the shared store has answered."""
        self._buckets: TTLCache[tuple[str, int], int] = TTLCache(_MAX_OWED, _REFUND_SECONDS, timer=clock)
        """Where the units of a key and a report are counted."""
        self._unsettled: dict[bytes, tuple[Decision, Sequence[Change]]] = {}
        self._unreleased: TTLCache[tuple[str, bytes], None] = TTLCache(_MAX_OWED, LEASE_SECONDS, timer=clock)
        """Leases by key and owner. An older one has expired over there."""
        self._reconciling = asyncio.Lock()
        self._sending: set[asyncio.Future[object]] = set()

    @property
    def replicas(self) -> int:
        """By how many the limits are divided while the shared store is out."""
        return max(self._live_replicas, self._min_replicas)

    @property
    def untold(self) -> int:
        """How many corrections the shared store has not confirmed yet."""
        return (
            len(self._owed) + len(self._unconfirmed) + len(self._unsettled) + len(self._unreleased) + len(self._sending)
        )

    def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision | Awaitable[Decision]:
        """Take all claims or none; at once while the shared store is out."""
        if self.is_degraded:
            return self._admit_here(claims, owner, is_dry=is_dry)
        return self._admit_there(claims, owner, is_dry=is_dry)

    async def _admit_there(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        try:
            answer = self._shared.admit(claims, owner, is_dry=is_dry)
            decision = answer if isinstance(answer, Decision) else await answer
        except Exception as error:  # noqa: BLE001  # no call fails because of the store
            self._note_failure(error)
            return self._admit_here(claims, owner, is_dry=is_dry)
        self._failures_in_a_row = 0
        self._local.adopt(decision.statuses, owner, self._untold(claims) if self._owed else {})
        return decision

    def _untold(self, claims: Sequence[Claim]) -> dict[str, int]:
        """Units by key that were admitted here and are not in the totals of the shared store."""
        keys = [(claim.key, self._next_report) for claim in claims]
        return {key[0]: self._owed[key][1] for key in keys if key in self._owed}

    def _admit_here(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        closed = [c for c in claims if c.limit.on_outage is OutagePolicy.CLOSED and not c.limit.is_shadow]
        shared = [c for c in claims if c.limit.on_outage is OutagePolicy.SHARE or c.limit.is_shadow]
        self._local.weight = self.replicas
        decision = self._local.admit(shared, owner, is_dry=is_dry or bool(closed))
        by_key = {s.claim.key: s for s in decision.statuses}
        statuses = tuple(by_key.get(c.key) or _uncounted(c) for c in claims)
        if decision.is_admitted and not closed and not is_dry:
            for status in decision.statuses:
                self._owe(status.claim, status.claim.cost if status.is_taken else 0, self._next_report)
        is_admitted = decision.is_admitted and not closed
        return Decision(is_admitted, statuses, owner, decision.weight, is_degraded=True, report=self._next_report)

    def _owe(self, claim: Claim, amount: int, report: int) -> None:
        """Have the shared store told within a second of its being well. `report` is where the claim was told first."""
        if claim.limit.period is None or not amount:
            return
        key = claim.key, report
        before = self._owed.get(key, (claim, 0))[1]
        if key in self._owed or len(self._owed) < _MAX_OWED:
            self._owed[key] = (claim, before + amount)
        self._beat_at = min(self._beat_at, self._clock() + _PROBE_SECONDS)

    def settle(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[object] | None:
        """Apply the changes where the decision was taken, and in what is told later.

        Of a shared store that keeps order nothing has to be waited for: what is asked here later finds it done.
        """
        leases = [c for c in changes if c.claim.limit.period is None]
        self._local.settle(decision, leases)
        if decision.is_degraded:
            self._settle_windows_here(decision, [c for c in changes if c.claim.limit.period is not None])
            # An admission that was answered too late may have taken a lease over there.
            if leases and not self.is_degraded:
                return self._settle_there(decision, leases)
            self._release_later(decision, leases)
            return None
        if self.is_degraded:
            self._settle_later(decision, changes)
            return None
        return self._settle_there(decision, changes)

    def _settle_windows_here(self, decision: Decision, changes: Sequence[Change]) -> None:
        self._local.settle(decision, changes)
        for change in changes:
            self._owe(change.claim, change.delta, decision.report)

    def _settle_later(self, decision: Decision, changes: Sequence[Change]) -> None:
        """The shared store is out: it is told once, when it is back, in which bucket something has changed."""
        self._release_later(decision, changes)
        for change in changes:
            if change.bucket is not None:
                report = -1 - change.bucket
                self._buckets[change.claim.key, report] = change.bucket
                self._owe(change.claim, change.delta, report)

    def _release_later(self, decision: Decision, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.claim.limit.period is None:
                self._unreleased[change.claim.key, decision.owner] = None
                self._beat_at = min(self._beat_at, self._clock() + _PROBE_SECONDS)

    def _settle_there(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[object] | None:
        """What it returns never fails; the settlement goes on when nobody waits for it."""
        try:
            sent = self._shared.settle(decision, changes)
        except Exception as error:  # noqa: BLE001  # no call fails because of the store
            self._fail_settlement(decision, changes, error)
            return None
        if sent is None:
            return None
        future = asyncio.ensure_future(sent)
        self._sending.add(future)
        future.add_done_callback(lambda done: self._conclude(decision, changes, done))
        return None if self._shared.keeps_order else asyncio.ensure_future(asyncio.wait([future]))

    def _conclude(self, decision: Decision, changes: Sequence[Change], done: asyncio.Future[object]) -> None:
        self._sending.discard(done)
        error = RedisError("the settlement was cancelled") if done.cancelled() else done.exception()
        if error is not None:
            self._fail_settlement(decision, changes, error)

    def _fail_settlement(self, decision: Decision, changes: Sequence[Change], error: BaseException) -> None:
        self._note_failure(error)
        self._postpone(decision, changes)

    def _postpone(self, decision: Decision, changes: Sequence[Change]) -> None:
        """Send again, later, what may have been carried out and can be sent twice without harm.

        That is leases, and all of it where a period of the calendar is touched. What is lost of a sliding window slides
        out.
        """
        if not any(c.claim.limit.is_calendar for c in changes):
            self._release_later(decision, changes)
        elif len(self._unsettled) < _MAX_OWED:
            self._unsettled[decision.owner] = (decision, changes)
            self._beat_at = min(self._beat_at, self._clock() + _PROBE_SECONDS)

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> Awaitable[object] | None:
        """Prolong leases in both places."""
        self._local.renew(leases)
        return None if self.is_degraded else self._renew_there(leases)

    async def _renew_there(self, leases: Sequence[tuple[str, bytes]]) -> None:
        try:
            sent = self._shared.renew(leases)
            if sent is not None:
                await sent
        except Exception as error:  # noqa: BLE001  # no call fails because of the store
            self._note_failure(error)

    async def open(self) -> None:
        """Wait for the first answer of the shared store, for half a second or so, before there are calls.

        A client of a cluster has to find its nodes first, which takes longer than any call may wait.
        """
        for _ in range(_FIRST_LOOKS):
            try:
                self._live_replicas = await self._shared.heartbeat(self._replica)
            except Exception:  # noqa: BLE001  # calls will notice, and say so
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                self._beat_at = self._clock() + _HEARTBEAT_SECONDS
                return

    async def tick(self) -> None:
        """Housekeeping; heartbeat, what is owed, and the probe of a store that is out."""
        self._local.tick()
        if self._clock() < self._beat_at:
            return
        self._beat_at = self._clock() + _PROBE_SECONDS
        try:
            seen = await self._shared.heartbeat(self._replica)
            # The first to come back does not see the others yet.
            self._live_replicas = max(seen, self._live_replicas) if self.is_degraded else seen
            self._beat_at = self._clock() + _HEARTBEAT_SECONDS
            await self._reconcile()
            if self.is_degraded:
                await self._tell_leases()
        except Exception as error:  # noqa: BLE001  # it is tried again
            self._note_failure(error)
            self._beat_at = self._clock() + _PROBE_SECONDS
            self._answers_since = None
            return
        self._failures_in_a_row = 0
        if self.is_degraded:
            self._return()

    def _return(self) -> None:
        """The shared store answers again; it decides again once all replicas have told it."""
        now = self._clock()
        self._answers_since = now if self._answers_since is None else self._answers_since
        if self.replicas > 1 and now < self._answers_since + _RETURN_SECONDS:
            self._beat_at = now
            return
        self._answers_since = None
        self._change(is_degraded=False, reason="the shared store answers again")

    async def _reconcile(self) -> None:
        """Tell the shared store what happened without it. What it does not confirm is told again next time."""
        async with self._reconciling:
            self._unconfirmed.update((report.owner, report) for report in self._new_reports())
            for leases in _slices(list(self._unreleased)):
                await self._shared.release(leases)
                for lease in leases:
                    self._unreleased.pop(lease, None)
            for names in _slices(list(self._unsettled)):
                await self._settle_again(names)
            for reports in _slices(list(self._unconfirmed.values())):
                await self._send_reports(reports)

    async def _tell_leases(self) -> None:
        """Have the shared store know every slot that is held here. What is given back meanwhile is told after this."""
        for leases in _slices(self._local.leases()):
            sent = self._shared.renew(leases)
            if sent is not None:
                await sent

    def _new_reports(self) -> list[_Report]:
        """What is owed by now. A correction of what is not confirmed yet stays owed."""
        owed, self._owed = self._owed, {}
        number, self._next_report = self._next_report, self._next_report + 1
        unconfirmed = {(r.change.claim.key, r.number) for r in self._unconfirmed.values()}
        reports = []
        for (key, told), (claim, amount) in owed.items():
            bucket = self._buckets.get((key, told))
            if (key, told) in unconfirmed:
                self._owed[key, told] = (claim, amount)
            elif amount > 0 or bucket is not None:
                owner = b"%b/%d/%d/%b" % (self._replica, number, told, key.encode())
                reports.append(_Report(owner, told, Change(claim, bucket, amount)))
        return reports

    async def _send_reports(self, reports: Sequence[_Report]) -> None:
        counted = [self._shared.count(report.owner, report.change) for report in reports]
        results = await asyncio.gather(*counted, return_exceptions=True)
        for report, result in zip(reports, results, strict=True):
            if not isinstance(result, BaseException):
                del self._unconfirmed[report.owner]
                if report.change.bucket is None:
                    self._buckets[report.change.claim.key, report.number] = result
        _raise_first(results)

    async def _settle_again(self, names: Sequence[bytes]) -> None:
        sent = [self._shared.settle(*self._unsettled[name]) or _nothing() for name in names]
        results = await asyncio.gather(*sent, return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if not isinstance(result, BaseException):
                del self._unsettled[name]
        _raise_first(results)

    def _note_failure(self, error: BaseException) -> None:
        if not isinstance(error, RedisError) and not self._failures_in_a_row:
            _log.error("Unexpected failure of the shared store of limits", exc_info=error)
        self.failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES and not self.is_degraded:
            self._beat_at = self._clock() + _PROBE_SECONDS
            self._change(is_degraded=True, reason=str(error))

    def _change(self, *, is_degraded: bool, reason: str) -> None:
        self.is_degraded = is_degraded
        self._on_change(StoreChange(is_degraded, reason, self.replicas))

    async def aclose(self) -> None:
        """Tell the shared store what it does not know yet, for a second at most, and close it."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                if self._sending:
                    await asyncio.wait(self._sending)  # those that fail are among what is told below
                if not self.is_degraded or self._answers_since is not None:
                    await self._reconcile()
        except Exception as error:  # noqa: BLE001  # it is closed in any case
            self._note_failure(error)
        finally:
            await self._shared.aclose()


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), _SLICE):
        yield items[at : at + _SLICE]


def _raise_first(results: Iterable[object]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _nothing() -> None:
    """What an answer that came at once has left to wait for."""


def _uncounted(claim: Claim) -> LimitStatus:
    """How a limit stands that is not counted during an outage."""
    is_closed = claim.limit.on_outage is OutagePolicy.CLOSED
    wait = _CLOSED_WAIT if is_closed else 0
    return LimitStatus(claim, 0 if is_closed else claim.limit.amount, wait, False, 0, 0, 0)
