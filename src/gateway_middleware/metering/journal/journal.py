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
from gateway_middleware.metering.journal.beside import EndsBeside
from gateway_middleware.metering.journal.call_end import CallEnd, Ending, OnEnds, encode
from gateway_middleware.metering.journal.follower import Follower
from gateway_middleware.metering.journal.house_thread import HouseThread
from gateway_middleware.metering.journal.housekeeping import Housekeeping, OnFull, Retention
from gateway_middleware.metering.journal.keeper_status import KeeperStatus
from gateway_middleware.metering.journal.keeping import Keeping, KeptBy, LeftToKeeper, OwnKeeper
from gateway_middleware.metering.journal.recovery import Appraise
from gateway_middleware.metering.journal.segment import CLOSE, END, KEPT_BY_OTHERS, OPEN, VOID
from gateway_middleware.metering.journal.segment_log import SegmentLog
from gateway_middleware.metering.journal.spool import Spool, Synchronous
from gateway_middleware.metering.journal.state import (
    JournalCounts,
    JournalLosses,
    JournalState,
    JournalUnavailableError,
    Reconciliation,
)
from gateway_middleware.metering.journal.turn import Draft, UnderWay, on_one_line
from gateway_middleware.metering.journal.turn_writer import TurnWriter
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
    that are made up after a crash. `write` writes to a file descriptor. Durations are seconds.

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
    ) -> None:
        self.spool = Spool(path, wall=wall, synchronous=synchronous)
        self.on_commit: Callable[[], None] | None = None
        """Called from another thread whenever new events are in the spool. Must not block."""
        self.on_ends: OnEnds | None = None
        """Given, in another thread, what is taken into the spool. Must not block."""
        self._retention = Retention(cap=cap, on_full=on_full, keeps=keeps)
        self._cap, self._rejects = cap, self._retention.rejects
        self._calls: dict[str, UnderWay] = {}
        self._admitted = self._closed = self._voided = self._refused = 0
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
        self._has_outbox, self._is_left_to_keeper = outbox is not None, keeper == "process"
        self._keeping = self._left_to_keeper(clock) if keeper == "process" else self._own_keeper(wall, clock, appraise)
        self._thread = HouseThread(work=self._work, release=self._release, delay=commit_delay)
        self._writer = TurnWriter(
            self._segments,
            clock=clock,
            outbox=outbox,
            refuse=self._refuse,
            on_written=lambda ended: self._keeping.wrote(self._segments.sequence, ended),
            wake=self._thread.wake,
        )

    def _left_to_keeper(self, clock: Clock) -> Keeping:
        return LeftToKeeper(self._segments, self.spool, clock=clock)

    def _own_keeper(self, wall: Clock, clock: Clock, appraise: Appraise | None) -> Keeping:
        return OwnKeeper(
            self._segments,
            self.spool,
            Follower(self.spool, notify=self._notify, on_ends=self._pass_on),
            Housekeeping(self.spool, self._retention, wall=wall, clock=clock, appraise=appraise, on_ends=self._pass_on),
        )

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
            self._writer.begin(self._keeping.taken)
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
            self._writer.wait_for_thread(timeout)
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
        writer = self._writer
        if self._segments.fault is not None or writer.is_stuck or self._is_full:
            raise self._refusal()
        call = self._calls[entry.id] = UnderWay(entry)
        self._admitted += 1
        writer.record(Draft(OPEN, encode(entry), call))
        if writer.is_slow:
            call.written = writer.pending
        return call

    @property
    def pending(self) -> asyncio.Future[None] | None:
        """While the disk is slow: done when all is on disk that was recorded so far. It does not fail."""
        return self._writer.pending

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
        self._writer.commit()

    def _end(self, draft: Draft) -> None:
        self._writer.record(draft)
        if not self._has_outbox:
            self._writer.commit()

    def _refuse(self, call: UnderWay) -> None:
        """It could not be written down, unless it has ended meanwhile."""
        if self._calls.pop(call.entry.id, None) is not None:
            self._admitted -= 1
            call.fault = self._refusal()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until what has been closed so far is in the spool; False when that took too long. Blocks."""
        if not self._is_running:
            return not self.waiting
        ended, until = self._writer.ended, time.monotonic() + timeout
        while self._thread.flush(max(0.0, until - time.monotonic())):
            if self._keeping.taken >= ended or not self._is_left_to_keeper:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def flush_all(self, timeout: float = 5.0) -> bool:
        """The same for all processes that share the files. Raises `sqlite3.Error`."""
        until = time.monotonic() + timeout
        if not self.flush(timeout):
            return False
        ends = EndsBeside(self.spool, own=self._segments.owner)
        while not ends.are_taken:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    @property
    def waiting(self) -> int:
        """Ended calls that are not in the spool yet."""
        return max(0, self._writer.ended - self._keeping.taken)

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
        if self._segments.fault is not None or self._writer.is_stuck:
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
    def is_disk_slow(self) -> bool:
        """Whether calls wait for a thread that writes; `state` may be `ok` all the same."""
        return self._writer.is_disk_slow

    @property
    def slow_writes(self) -> int:
        """How many writes took a tenth of a second or longer."""
        return self._writer.slow_writes

    @property
    def is_degraded(self) -> bool:
        """Something is wrong, or soon will be."""
        return self.state.status != "ok"

    def reconcile(self, first: date, last: date) -> Reconciliation:
        """What has ended in any process between two days in UTC, both included, up to now. Blocks."""
        self.flush_all(_RECONCILE_SECONDS)
        under_way = Counter(call.entry.tenant for call in list(self._calls.values()))
        return Reconciliation(self.spool.reconcile(first, last), dict(under_way))

    def adopt(self) -> None:
        """Take in what other processes left when they died. Blocks. Raises `sqlite3.Error` or OSError."""
        self._keeping.adopt()

    def _work(self) -> None:
        """What the thread does whenever something has ended, and twice a second."""
        if self._is_running:
            self._segments.look()
        if self._writer.is_stuck:
            self._writer.append_again()
        self._keeping.work()

    def _notify(self) -> None:
        if self.on_commit is not None:
            self.on_commit()

    def _pass_on(self, ends: Sequence[CallEnd]) -> None:
        if self.on_ends is not None:
            self.on_ends(ends)

    @property
    def _load(self) -> int:
        return self.spool.gauge.backlog + self.waiting + len(self._calls)

    @property
    def _is_full(self) -> bool:
        waiting = self._writer.ended - self._keeping.taken
        if self._rejects:
            return self.spool.gauge.backlog + waiting + len(self._calls) >= self._cap
        return waiting >= self._cap  # the disk has an end, whatever may be dropped from it

    def _refusal(self) -> JournalUnavailableError:
        self._refused += 1
        return JournalUnavailableError(f"The call cannot be metered now: {self.state.reason}.", retry_after=1.0)

    def _carried(self) -> bytes:
        """The entries of calls whose ends are not on disk: both threads ask for them."""
        calls = dict.fromkeys([*self._writer.unwritten(), *list(self._calls.values())])
        return b"".join([call.line for call in calls])

    def _release(self) -> None:
        """Nobody writes any more: give everything back, whatever of it fails."""
        is_finished = not self._calls and not self.waiting
        with contextlib.ExitStack() as stack:
            stack.callback(self.spool.close)
            stack.callback(self._keeping.release, is_finished=is_finished)
            stack.callback(self._writer.hand_over, self._spool_directly)

    def _spool_directly(self, ends: Sequence[Draft]) -> None:
        """The last resort for what has ended: no record of it can be written."""
        self.spool.fold(self._segments.owner, [draft.end() for draft in ends])
