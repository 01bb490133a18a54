"""The durable journal of calls: what was admitted is on disk before the provider is asked, and metered once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Literal, Self
from uuid import uuid4

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.call_end import closed, encode, one_line, voided
from gateway_middleware.metering.journal.recovery import Appraise, adopt
from gateway_middleware.metering.journal.segment import CLOSE, OPEN, VOID, Segment, frame
from gateway_middleware.metering.journal.spool import Spool, Synchronous
from gateway_middleware.metering.journal.state import (
    JournalCounts,
    JournalState,
    JournalUnavailableError,
    Reconciliation,
)
from gateway_middleware.metering.journal.writer import Writer
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent

_log = logging.getLogger(__name__)
_DEGRADED_SHARE = 0.8
_MEASURE_SECONDS = 1.0
_ADOPT_SECONDS = 10.0

OnFull = Literal["reject", "drop_oldest"]


class Journal:
    """Calls in, usage events out. `open`, `close` and `void` belong to one thread, the event loop's, and never wait.

    Every upstream attempt that may be billed has an entry of its own, with an id of its own, and ends in one `close` or
    `void`. An entry without an end becomes an estimated event when its process is found dead. Files are `<path>`
    (SQLite) and `<path>.*`; several processes may share them on one host, never over a network file system.

    `cap` bounds the undelivered events of all workers together with the open calls of this one. `keeps`: there is no
    sink, so events are kept for that many seconds (never more than `cap`), and nobody is refused for them. `appraise`
    prices the events that are made up after a crash. Durations are seconds.
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
        self.dropped = 0
        self.damaged = 0
        self.refused = 0
        self._wall = wall
        self._clock = clock
        self._cap = cap
        self._on_full = on_full
        self._keeps = keeps
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._appraise = appraise
        self._owner = uuid4().hex[:12]
        self._writer = Writer(self.spool, self._owner, commit_delay=commit_delay, tick=self.tick, notify=self._notify)
        self._segment: Segment | None = None
        self._spare: Segment | None = None
        self._is_running = False
        self._fault: str | None = "not started"
        self._neglect: str | None = None
        self._rotate_size = 0
        self._rotate_at = 0.0
        self._measure_at = 0.0
        self._adopt_at = 0.0
        self._sequence = 0
        self._calls: dict[str, tuple[OpenCall, bytes]] = {}
        self._admitted = self._closed = self._voided = self._orphaned = 0

    def start(self) -> None:
        """Take in what dead processes left, and begin. Blocks. Never fails for the disk: see `state`."""
        self._housekeep(self._first_look)
        self._repair()
        self._is_running = True
        self._writer.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Commit everything; False when that took too long. Blocks. Calls still open are left to be adopted."""
        self._is_running = False
        self._fault = "stopped"
        is_done = self._writer.stop(timeout)
        if is_done:
            self._leave()
        return is_done

    async def aclose(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - the deadline is the thread's
        """Stop, without blocking the event loop."""
        return await asyncio.to_thread(self.stop, timeout)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def open(self, entry: OpenCall) -> None:
        """Write down that a provider is about to be asked. Raises JournalUnavailableError: then do not ask it."""
        segment = self._segment
        if segment is None or self._fault is not None or self._is_full:
            raise self._refusal()
        if segment.size >= self._rotate_size or self._clock() >= self._rotate_at:
            segment = self._rotate(segment)
        self._sequence += 1
        record = frame(OPEN, self._sequence, encode(entry))
        try:
            segment.append(record)
        except OSError as error:
            self._fail(error)
            raise self._refusal() from error
        self._calls[entry.id] = (entry, record)
        self._admitted += 1

    def close(self, event: UsageEvent) -> None:
        """Write down what an attempt used. Never raises for the disk: what cannot be written now is kept for later."""
        body = one_line(encode(event))
        sequence = self._append(CLOSE, body)
        if self._calls.pop(event.id, None) is None:
            self._admitted += 1  # nobody announced it, and still it is to be billed
        self._closed += 1
        self._writer.put(closed(sequence, event, body))

    def void(self, call_id: str) -> None:
        """Write down that a call cost nothing, for example because it was refused."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        self._voided += 1
        self._writer.put(voided(self._append(VOID, encode(call_id)), call[0]))

    @property
    def counts(self) -> JournalCounts:
        """Where every admitted call is."""
        known = self._writer.known
        return JournalCounts(
            self._admitted + self._orphaned - known,
            self._closed - known,
            len(self._calls),
            self._orphaned,
            self._voided,
        )

    @property
    def state(self) -> JournalState:
        """Whether calls are taken, for readiness."""
        if self._fault is not None:
            return JournalState("unavailable", self._fault)
        if self._is_full:
            return JournalState("unavailable", "the usage spool is full")
        trouble = self._writer.fault or self._neglect
        if trouble is not None:
            return JournalState("degraded", trouble)
        if self._keeps is None and self._load >= self._cap * _DEGRADED_SHARE:
            return JournalState("degraded", "the usage spool is nearly full")
        return JournalState()

    @property
    def is_degraded(self) -> bool:
        """Something is wrong, or soon will be."""
        return self.state.status != "ok"

    def reconcile(self, first: date, last: date) -> Reconciliation:
        """What was settled between two days in UTC, both included. Blocks."""
        under_way = Counter(call.tenant for call, _ in list(self._calls.values()))
        return Reconciliation(self.spool.reconcile(first, last), dict(under_way))

    def adopt(self) -> None:
        """Take in what other processes left when they died. Blocks. Raises `sqlite3.Error` or OSError."""
        found = adopt(self.spool, appraise=self._appraise)
        self._orphaned += found.orphaned
        self.damaged += found.damaged
        if found.owners:
            self.spool.measure()

    def tick(self) -> None:
        """Keep house: the writer thread calls this about twice a second."""
        if self._is_running and self._fault is not None:
            self._repair()
        if self._is_running:
            self._housekeep(self._look)

    def _notify(self) -> None:
        if self.on_commit is not None:
            self.on_commit()

    @property
    def _load(self) -> int:
        return self.spool.gauge.backlog + self._writer.waiting + len(self._calls)

    @property
    def _is_full(self) -> bool:
        if self._keeps is None and self._on_full == "reject":
            return self._load >= self._cap
        return self._writer.waiting >= self._cap  # memory has an end, whatever may be dropped from the disk

    def _refusal(self) -> JournalUnavailableError:
        self.refused += 1
        return JournalUnavailableError(f"The call cannot be metered now: {self.state.reason}.", retry_after=1.0)

    def _append(self, kind: bytes, body: bytes) -> int | None:
        """The sequence of the record, None where it could not be written."""
        segment = self._segment
        if segment is None:
            return None
        self._sequence += 1
        try:
            segment.append(frame(kind, self._sequence, body))
        except OSError as error:
            self._fail(error)
            return None
        return self._sequence

    def _fail(self, error: OSError) -> None:
        if self._fault is None:
            _log.error("call journal cannot be written: %s", error)
            self._fault = f"the call journal cannot be written: {error.strerror}"

    def _rotate(self, old: Segment) -> Segment:
        """A new segment that begins with the calls under way; the old one where there is no room for it."""
        fresh, self._spare = self._spare, None
        try:
            fresh = fresh or Segment.create(self.spool.path, self._owner)
            fresh.append(b"".join(record for _, record in self._calls.values()))
        except OSError:
            if fresh is not None:
                fresh.discard()
            self._rotate_size = old.size + self._segment_bytes
            self._rotate_at = self._clock() + 1.0
            return old
        self._use(fresh)
        self._writer.put(old)
        return fresh

    def _use(self, segment: Segment) -> None:
        self._segment = segment
        self._rotate_size = segment.size + self._segment_bytes
        self._rotate_at = self._clock() + self._segment_seconds

    def _repair(self) -> None:
        """Take calls again if a new segment can be written."""
        try:
            if self._spare is None:
                self._spare = Segment.create(self.spool.path, self._owner)
            self._spare.probe()
        except OSError as error:
            self._fault = f"the call journal cannot be written: {error.strerror}"
            self._give_up_spare()
            return
        if self._segment is None:
            self._use(self._spare)
            self._spare = None
        else:
            self._rotate_at = 0.0
        self._fault = None

    def _give_up_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.discard()

    def _first_look(self) -> None:
        self.spool.path.parent.mkdir(parents=True, exist_ok=True)
        self.spool.check()
        self._look()

    def _look(self) -> None:
        now = self._clock()
        if self._spare is None:
            self._spare = Segment.create(self.spool.path, self._owner)
        if now >= self._measure_at:
            self._measure()
            self._measure_at = now + _MEASURE_SECONDS
        if now >= self._adopt_at:
            self.adopt()
            self._adopt_at = now + _ADOPT_SECONDS
        self._shed()

    def _measure(self) -> None:
        self.spool.measure()
        if self._keeps is not None:
            self.spool.shed(before=self._wall() - self._keeps)

    def _shed(self) -> None:
        if self.spool.gauge.backlog > self._cap and (self._keeps is not None or self._on_full == "drop_oldest"):
            self.dropped += self.spool.shed(most=self._cap)

    def _housekeep(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._neglect = None
        except Exception as error:  # noqa: BLE001 - the next look tries again, and `state` tells
            if self._neglect is None:
                _log.error("usage spool cannot be looked after: %r", error)
            self._neglect = f"the usage spool cannot be looked after: {error}"

    def _leave(self) -> None:
        """Nobody writes any more, and everything is in the spool."""
        self._give_up_spare()
        segment, self._segment = self._segment, None
        if segment is not None:
            if self._calls:
                segment.close()
            else:
                segment.discard()
                self._housekeep(lambda: self.spool.forget(self._owner))
        self.spool.close()
