"""The durable journal of calls: what was admitted is on disk before the provider is asked, and metered once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path
from typing import Self
from uuid import uuid4

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.call_end import closed, encode, one_line, voided
from gateway_middleware.metering.journal.housekeeping import Housekeeping, OnFull, Retention
from gateway_middleware.metering.journal.recovery import Appraise
from gateway_middleware.metering.journal.segment import CLOSE, OPEN, VOID
from gateway_middleware.metering.journal.segment_log import SegmentLog
from gateway_middleware.metering.journal.spool import Spool, Synchronous
from gateway_middleware.metering.journal.state import (
    JournalCounts,
    JournalLosses,
    JournalState,
    JournalUnavailableError,
    Reconciliation,
)
from gateway_middleware.metering.journal.writer import Writer
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent

_DEGRADED_SHARE = 0.8
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
    that are made up after a crash. Durations are seconds.
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
        appraise: Appraise | None = None,
    ) -> None:
        self.spool = Spool(path, wall=wall, synchronous=synchronous)
        self.on_commit: Callable[[], None] | None = None
        """Called from another thread whenever new events are in the spool. Must not block."""
        self._retention = Retention(cap=cap, on_full=on_full, keeps=keeps)
        self._calls: dict[str, tuple[OpenCall, bytes]] = {}
        self._admitted = self._closed = self._voided = self._refused = 0
        self._is_running = False
        self._life = threading.Lock()
        self._writer = Writer(
            self.spool, commit_delay=commit_delay, tick=self._tick, notify=self._notify, release=self._release
        )
        self._segments = SegmentLog(
            path,
            clock=clock,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            carry=self._carried,
            retire=self._writer.put,
        )
        self._housekeeping = Housekeeping(
            self.spool, self._segments, self._retention, wall=wall, clock=clock, appraise=appraise
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
            self._segments.owner = owner = uuid4().hex[:12]
            try:
                self._housekeeping.begin()
                self._segments.repair()
                self._is_running = True
                self._writer.start(owner)
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
            return self._writer.stop(timeout)

    async def aclose(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - the deadline is the thread's
        """Stop, without blocking the event loop."""
        return await asyncio.to_thread(self.stop, timeout)

    def open(self, entry: OpenCall) -> None:
        """Write down that a provider is about to be asked. Raises JournalUnavailableError: then do not ask it."""
        if self._segments.fault is not None or self._is_full:
            raise self._refusal()
        written = self._segments.append(OPEN, encode(entry))
        if written is None:
            raise self._refusal()
        self._calls[entry.id] = (entry, written.record)
        self._admitted += 1

    def close(self, event: UsageEvent) -> None:
        """Write down what an attempt used. Never raises for the disk: what cannot be written now is kept for later."""
        body = one_line(encode(event))
        if self._calls.pop(event.id, None) is None:
            self._admitted += 1  # nobody announced it, and still it is to be billed
        self._closed += 1
        self._writer.put(closed(self._appended(CLOSE, body), event, body))

    def void(self, call_id: str) -> None:
        """Write down that a call cost nothing, for example because it was refused."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        self._voided += 1
        self._writer.put(voided(self._appended(VOID, encode(call_id)), call[0]))

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until what has been closed so far is in the spool; False when that took too long. Blocks."""
        return self._writer.flush(timeout) if self._is_running else not self._writer.waiting

    @property
    def counts(self) -> JournalCounts:
        """Where every admitted call is."""
        known, orphaned = self._writer.known, self._housekeeping.orphaned
        return JournalCounts(
            admitted=self._admitted + orphaned - known,
            closed=self._closed - known,
            open=len(self._calls),
            orphaned=orphaned,
            voided=self._voided,
        )

    @property
    def losses(self) -> JournalLosses:
        """What was refused, dropped or unreadable."""
        return JournalLosses(
            refused=self._refused,
            dropped=self._housekeeping.dropped,
            damaged=self._housekeeping.damaged,
            quarantined=self.spool.quarantined,
        )

    @property
    def state(self) -> JournalState:
        """Whether calls are taken, for readiness."""
        if self._segments.fault is not None:
            return JournalState("unavailable", self._segments.fault)
        if self._is_full:
            return JournalState("unavailable", "the usage spool is full")
        trouble = self._writer.fault or self._housekeeping.trouble
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
        under_way = Counter(call.tenant for call, _ in list(self._calls.values()))
        return Reconciliation(self.spool.reconcile(first, last), dict(under_way))

    def adopt(self) -> None:
        """Take in what other processes left when they died. Blocks. Raises `sqlite3.Error` or OSError."""
        self._housekeeping.adopt()

    def _tick(self) -> None:
        """Keep house: the writer thread calls this about twice a second."""
        if self._is_running:
            self._housekeeping.look()
        if self._is_running and self._segments.fault is not None:
            self._segments.repair()

    def _notify(self) -> None:
        if self.on_commit is not None:
            self.on_commit()

    @property
    def _load(self) -> int:
        return self.spool.gauge.backlog + self._writer.waiting + len(self._calls)

    @property
    def _is_full(self) -> bool:
        cap = self._retention.cap
        if self._retention.rejects:
            return self._load >= cap
        return self._writer.waiting >= cap  # memory has an end, whatever may be dropped from the disk

    def _refusal(self) -> JournalUnavailableError:
        self._refused += 1
        return JournalUnavailableError(f"The call cannot be metered now: {self.state.reason}.", retry_after=1.0)

    def _appended(self, kind: bytes, body: bytes) -> int | None:
        written = self._segments.append(kind, body)
        return None if written is None else written.sequence

    def _carried(self) -> bytes:
        """The records of the calls under way: both threads ask for them."""
        return b"".join([record for _, record in list(self._calls.values())])

    def _release(self) -> None:
        """Nobody writes any more: give everything back, whatever of it fails."""
        is_finished = not self._calls and not self._writer.waiting
        with contextlib.ExitStack() as stack:
            stack.callback(self.spool.close)
            stack.callback(self._writer.give_up)
            if self._segments.is_open and is_finished:
                stack.callback(self.spool.forget, self._writer.owner)
            if self._segments.is_open:
                stack.callback(self._housekeeping.end)
            stack.callback(self._segments.close, is_finished=is_finished)
