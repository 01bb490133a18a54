"""The durable journal of calls: what was admitted is on disk before the provider is asked, and metered once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Self
from uuid import uuid4

from gateway_middleware.core.domain import Clock
from gateway_middleware.core.outbox import Entry, Outbox
from gateway_middleware.metering.journal.call_end import Ending, OnEnds, encode
from gateway_middleware.metering.journal.follower import Follower
from gateway_middleware.metering.journal.house_thread import HouseThread
from gateway_middleware.metering.journal.housekeeping import Housekeeping, OnFull, Retention
from gateway_middleware.metering.journal.keeper_status import KeeperStatus
from gateway_middleware.metering.journal.keeping import Keeping, KeptBy, LeftToKeeper, OwnKeeper
from gateway_middleware.metering.journal.recovery import Appraise
from gateway_middleware.metering.journal.segment import CLOSE, END, KEPT_BY_OTHERS, OPEN, VOID
from gateway_middleware.metering.journal.segment_log import SegmentLog
from gateway_middleware.metering.journal.slow_disk import Aside, DiskPace
from gateway_middleware.metering.journal.spool import Spool, Synchronous
from gateway_middleware.metering.journal.state import (
    JournalCounts,
    JournalLosses,
    JournalState,
    JournalUnavailableError,
    Reconciliation,
)
from gateway_middleware.metering.journal.turn import Draft, UnderWay, on_one_line
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent

_DEGRADED_SHARE = 0.8
_POLL_SECONDS = 0.02
_RECONCILE_SECONDS = 1.0
"""How long the sums of what has just ended are waited for."""


class Journal:
    """Calls in, usage events out. `open`, `close` and `void` belong to one thread, the event loop's, and never wait.

    Every upstream attempt that may be billed has an entry of its own, with an id of its own, and ends in one `close` or
    `void`. An entry without an end becomes an estimated event when its process is found dead. Files are `<path>`
    (SQLite) and `<path>.*`; several processes may share them on one host, never over a network file system.

    It has a life: `async with journal:`, or `start` and `stop`; before and after that calls are refused. `cap` bounds
    the undelivered events of all workers together with the open calls of this one. `keeps`: there is no sink, so events
    are kept for that many seconds (never more than `cap`), and nobody is refused for them. `appraise` prices the events
    that are made up after a crash; `on_ends` is given what its thread has taken in. `write` writes to a file
    descriptor. Durations are seconds.

    While the disk is slow a thread appends: then nothing that is recorded is on disk before `pending` is done.

    With an `outbox`, what `enter`, `close` and `void` record in one turn of its loop is one write, before anything of
    that turn leaves; without one each is written at once. Who folds what has ended into SQLite is the `keeper`: a
    thread of this journal, or the process of `python -m gateway_middleware keep`.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall: Clock = time.time,
        clock: Clock = time.monotonic,
        cap: int = 100_000,
        on_full: OnFull = "reject",
        keeps: float | None = None,
        synchronous: Synchronous = "FULL",
        segment_bytes: int = 8 * 2**20,
        segment_seconds: float = 60.0,
        commit_delay: float = 0.005,
        write: Callable[[int, bytes], int] = os.write,
        appraise: Appraise | None = None,
        outbox: Outbox | None = None,
        keeper: KeptBy = "thread",
        on_ends: OnEnds = lambda _: None,
    ) -> None:
        self.spool = Spool(path, wall=wall, synchronous=synchronous)
        self.on_commit: Callable[[], None] | None = None
        """Called from another thread whenever new events are in the spool. Must not block."""
        self._retention = Retention(cap=cap, on_full=on_full, keeps=keeps)
        self._cap, self._rejects = cap, self._retention.rejects
        self._outbox = outbox
        if outbox is not None:
            outbox.write_first(self)
        self._calls: dict[str, UnderWay] = {}
        self._turn: list[Draft] = []
        self._writing: Sequence[Draft] = []
        self._appending = threading.Lock()
        self._pace = DiskPace(clock)
        self._aside: Aside | None = None  # what the thread of a slow disk appends
        self._turn_written: asyncio.Future[None] | None = None
        self._is_stuck = False  # what has ended waits in memory until the thread can write it
        self._admitted = self._closed = self._voided = self._refused = self._ended = 0
        self._is_running = False
        self._life = threading.Lock()
        self._segments = SegmentLog(
            path,
            clock=clock,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            write=write,
            carry=self._carried,
            retire=lambda segment: self._keeping.retire(segment),
        )
        self._is_left_to_keeper = keeper == "process"
        self._keeping: Keeping = (
            LeftToKeeper(self._segments, self.spool, clock=clock)
            if self._is_left_to_keeper
            else OwnKeeper(
                self._segments,
                self.spool,
                Follower(self.spool, notify=self._notify, on_ends=on_ends),
                Housekeeping(self.spool, self._retention, wall=wall, clock=clock, appraise=appraise, on_ends=on_ends),
            )
        )
        self._thread = HouseThread(work=self._work, release=self._release, delay=commit_delay)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self.start)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Self]:
        """The same as `async with journal:`."""
        async with self:
            yield self

    def start(self) -> None:
        """Take in what dead processes left, and begin. Blocks. Never fails for the disk: see `state`."""
        with self._life:
            if self._is_running:
                return
            self._admitted -= len(self._calls)  # those of an earlier life are adopted as a dead process's would be
            self._calls.clear()
            self._ended = self._keeping.taken + len(self._turn)
            self._segments.owner = (KEPT_BY_OTHERS if self._is_left_to_keeper else "") + uuid4().hex[:12]
            try:
                self._keeping.begin()
                self._segments.look()
                self._is_running = True
                self._thread.start()
            except BaseException:
                self._is_running = False
                self._segments.fault = "stopped"
                self._release()
                raise

    def stop(self, timeout: float = 5.0) -> bool:
        """Commit everything; False when that took too long. Blocks. Calls still open are left to be adopted.

        Nothing is open afterwards: if the disk does not answer in time, as soon as it does.
        """
        with self._life:
            self._is_running = False
            self._segments.fault = "stopped"
            aside = self._aside
            if aside is not None and aside.is_done.wait(timeout):
                self._take_aside(aside)
            return self._thread.stop(timeout) and not self.waiting

    async def aclose(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - the deadline is the thread's
        """Stop, without blocking the event loop."""
        return await asyncio.to_thread(self.stop, timeout)

    def open(self, entry: OpenCall) -> Entry:
        """Write down that a provider is about to be asked. Raises JournalUnavailableError: then do not ask it.

        It is on disk, unless the disk is slow: see `Entry.written`.
        """
        call = self.enter(entry)
        self.commit()
        if call.fault is not None:
            raise call.fault
        return call

    def enter(self, entry: OpenCall) -> Entry:
        """As `open`, but on disk with the next `commit`: see `Entry`. Raises JournalUnavailableError."""
        if self._segments.fault is not None or self._is_stuck or self._is_full:
            raise self._refusal()
        call = self._calls[entry.id] = UnderWay(entry)
        self._admitted += 1
        self._record(Draft(OPEN, encode(entry), call))
        if self._is_slow:
            call.written = self.pending
        return call

    @property
    def pending(self) -> asyncio.Future[None] | None:
        """While the disk is slow: done when all is on disk that was recorded so far. It does not fail."""
        if self._is_stuck:
            return None  # what has ended waits in memory, and nobody for it
        if not self._turn:
            return None if self._aside is None else self._aside.written
        if self._turn_written is None and self._is_slow:
            self._turn_written = asyncio.get_running_loop().create_future()
        return self._turn_written

    @property
    def _is_slow(self) -> bool:
        return self._aside is not None or (self._pace.is_slow and _runs_in_a_loop())

    def close(self, event: UsageEvent) -> None:
        """Write down what an attempt used. Never raises for the disk: what cannot be written now is kept for later."""
        call = self._calls.pop(event.id, None)
        if call is None:
            self._admitted += 1  # nobody announced it, and still it is to be billed
        self._closed += 1
        ending = None if call is None else Ending.of(event, call.entry)
        kind, told = (CLOSE, event) if ending is None else (END, ending)
        self._end(Draft(kind, on_one_line(encode(told)), call))

    def void(self, call_id: str) -> None:
        """Write down that a call cost nothing, for example because it was refused."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        self._voided += 1
        self._end(Draft(VOID, encode(call_id), call))

    def commit(self) -> None:
        """Have everything that was recorded so far on disk, in one write. Never raises: see `Entry.fault`."""
        if not self._turn:  # only this thread adds to it
            return
        with self._appending:
            if not self._turn or self._is_stuck:
                return
            if not (self._is_slow and self._append_aside()):
                self._append()
        self._thread.wake()

    def _end(self, draft: Draft) -> None:
        self._record(draft)
        if self._outbox is None:
            self.commit()

    def _record(self, draft: Draft) -> None:
        with self._appending:
            is_first = not self._turn
            self._turn.append(draft)
            self._ended += draft.kind != OPEN
        if is_first and self._outbox is not None:
            self._outbox.commit_soon()

    def _append(self) -> None:
        """On the event loop, while the disk is well."""
        self._writing = turn = self._turn
        self._turn, began = [], self._pace.now()
        self._take(turn, self._segments.append(turn), self._ended)
        self._pace.note(began, self._pace.now())

    def _append_aside(self) -> bool:
        """In a thread; False where none can be had."""
        if self._aside is not None:
            return True  # this turn is appended after the one that is being appended
        written = self._turn_written or asyncio.get_running_loop().create_future()
        aside = Aside(self._turn, ended=self._ended, pace=self._pace, written=written)
        try:
            aside.start(self._segments.append, self._aside_ended)
        except RuntimeError:
            written.set_result(None)
            self._turn_written = None
            return False
        self._aside, self._writing = aside, self._turn
        self._turn, self._turn_written = [], None
        return True

    def _take_aside(self, aside: Aside) -> None:
        """What a thread has appended is taken once: in the event loop, or by whoever stops the journal."""
        with self._appending:
            if aside.is_taken:
                return
            aside.is_taken, self._aside = True, None
            self._pace.note(*aside.times)
            self._take(aside.turn, aside.lines, aside.ended)

    def _aside_ended(self, aside: Aside) -> None:
        self._take_aside(aside)
        aside.release()
        if self._is_stuck and self._turn_written is not None:
            self._turn_written.set_result(None)
            self._turn_written = None
        self.commit()
        self._thread.wake()

    def _take(self, turn: Sequence[Draft], written: list[bytes] | None, ended: int) -> None:
        self._is_stuck = written is None
        if written is None:
            self._turn = self._not_written([*turn, *self._turn])
        else:
            self._keeping.wrote(self._segments.sequence, ended)
            for (kind, _, call), line in zip(turn, written, strict=True):
                if kind == OPEN and call is not None:
                    call.line = line
        self._writing = []

    def _not_written(self, turn: list[Draft]) -> list[Draft]:
        """Refuse the calls that begin in this turn; the ends of others are still to be written."""
        for kind, _, call in turn:
            if kind == OPEN and call is not None and self._calls.pop(call.entry.id, None) is not None:
                self._admitted -= 1
                call.fault = self._refusal()
        return [draft for draft in turn if draft.kind != OPEN]

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until what has been closed so far is in the spool; False when that took too long. Blocks."""
        if not self._is_running:
            return not self.waiting
        ended, until = self._ended, time.monotonic() + timeout
        while self._thread.flush(max(0.0, until - time.monotonic())):
            if self._keeping.taken >= ended or not self._is_left_to_keeper:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    @property
    def waiting(self) -> int:
        """Ended calls that are not in the spool yet."""
        return max(0, self._ended - self._keeping.taken)

    @property
    def counts(self) -> JournalCounts:
        """Where every admitted call is."""
        tally = self._keeping.tally
        return JournalCounts(
            admitted=self._admitted + tally.orphaned - tally.known,
            closed=self._closed - tally.known,
            open=len(self._calls),
            orphaned=tally.orphaned,
            voided=self._voided,
        )

    @property
    def losses(self) -> JournalLosses:
        """What was refused, dropped or unreadable."""
        tally = self._keeping.tally
        return JournalLosses(
            refused=self._refused,
            dropped=tally.dropped,
            damaged=tally.damaged,
            quarantined=self._keeping.quarantined,
        )

    @property
    def keeper_status(self) -> KeeperStatus | None:
        """What the keeper process has told last; None where a thread keeps, or none has told yet."""
        return self._keeping.status

    @property
    def state(self) -> JournalState:
        """Whether calls are taken, for readiness."""
        if self._segments.fault is not None or self._is_stuck:
            return JournalState("unavailable", self._segments.fault or "the call journal is being repaired")
        if self._is_full:
            return JournalState("unavailable", "the usage spool is full")
        trouble = self._thread.fault or self._segments.trouble or self._keeping.trouble
        if trouble is not None:
            return JournalState("degraded", trouble)
        if self._retention.keeps is None and self._load >= self._retention.cap * _DEGRADED_SHARE:
            return JournalState("degraded", "the usage spool is nearly full")
        return JournalState()

    @property
    def is_degraded(self) -> bool:
        """Something is wrong, or soon will be."""
        return self.state.status != "ok"

    def reconcile(self, first: date, last: date) -> Reconciliation:
        """What has ended between two days in UTC, both included, up to now. Blocks."""
        self.flush(_RECONCILE_SECONDS)
        under_way = Counter(call.entry.tenant for call in list(self._calls.values()))
        return Reconciliation(self.spool.reconcile(first, last), dict(under_way))

    def adopt(self) -> None:
        """Take in what other processes left when they died. Blocks. Raises `sqlite3.Error` or OSError."""
        self._keeping.adopt()

    def _work(self) -> None:
        """What the thread does whenever something has ended, and twice a second."""
        if self._is_running:
            self._segments.look()
        if self._is_stuck:
            self._append_again()
        self._keeping.work()

    def _append_again(self) -> None:
        """In the thread: what has ended and could not be written. No call is taken meanwhile."""
        with self._appending:
            self._writing = turn = self._turn
            self._turn, ended = [], self._ended
        written = self._segments.append(turn)
        with self._appending:
            self._take(turn, written, ended)

    def _notify(self) -> None:
        if self.on_commit is not None:
            self.on_commit()

    @property
    def _load(self) -> int:
        return self.spool.gauge.backlog + self.waiting + len(self._calls)

    @property
    def _is_full(self) -> bool:
        waiting = self._ended - self._keeping.taken
        if self._rejects:
            return self.spool.gauge.backlog + waiting + len(self._calls) >= self._cap
        return waiting >= self._cap  # the disk has an end, whatever may be dropped from it

    def _refusal(self) -> JournalUnavailableError:
        self._refused += 1
        return JournalUnavailableError(f"The call cannot be metered now: {self.state.reason}.", retry_after=1.0)

    def _carried(self) -> bytes:
        """The entries of calls whose ends are not on disk: both threads ask for them."""
        ending = [draft.call for draft in (*self._writing, *self._turn) if draft.call is not None]
        return b"".join([call.line for call in dict.fromkeys([*ending, *list(self._calls.values())])])

    def _release(self) -> None:
        """Nobody writes any more: give everything back, whatever of it fails."""
        is_finished = not self._calls and not self.waiting
        with contextlib.ExitStack() as stack:
            stack.callback(self.spool.close)
            stack.callback(self._keeping.release, is_finished=is_finished)
            if self._turn:
                stack.callback(self._spool_directly)

    def _spool_directly(self) -> None:
        """The last resort for what has ended: no record of it can be written."""
        ends = [draft.end() for draft in self._turn if draft.kind != OPEN]
        self.spool.fold(self._segments.owner, ends)
        self._turn = []
        self._ended -= len(ends)


def _runs_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
