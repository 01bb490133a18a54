"""Usage events on disk until they are delivered, and the sums that stay when they are gone (SQLite, WAL)."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar
from uuid import uuid4

import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal import other_events, tables
from gateway_middleware.metering.journal.call_end import CallEnd, encode
from gateway_middleware.metering.journal.daily_line import DailyLine
from gateway_middleware.metering.journal.daily_total import DailyTotal
from gateway_middleware.metering.journal.lines import LineTable, lines_between, lines_of_tenant
from gateway_middleware.metering.journal.salvage import copy_of, salvage
from gateway_middleware.metering.journal.spool_files import connect, inode_of, lock_file, move_aside
from gateway_middleware.metering.kept_event import KeptEvent, OtherEvent, decode_kept

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_BROKEN = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))

Synchronous = Literal["FULL", "NORMAL"]


class Gauge(NamedTuple):
    """How many events wait for delivery, since when the oldest does, and how many will never be delivered."""

    backlog: int = 0
    oldest: float | None = None
    dead_letters: int = 0


class Spool:
    """One file for all workers of a host. Every method may be called from any thread, and blocks.

    Methods raise `sqlite3.Error` or OSError when the disk does not obey; nothing is half done then. A file that is
    corrupt is moved aside, what is readable in it is copied into a new one, and the call goes on.
    """

    def __init__(self, path: Path, *, wall: Clock = time.time, synchronous: Synchronous = "FULL") -> None:
        self.path = path
        self.gauge = Gauge()
        self.quarantined = 0
        """Corrupt files that were moved aside."""
        self._wall = wall
        self._synchronous = synchronous
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._lines = LineTable()
        self._inode = -1
        self._guard = -1
        self._lead = -1

    @property
    def backlog(self) -> int:
        """Events that wait for delivery, of all workers; as of the last look."""
        return self.gauge.backlog

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest undelivered call began; 0 when there is none."""
        return 0.0 if self.gauge.oldest is None else max(0.0, self._wall() - self.gauge.oldest)

    @property
    def dead_letters(self) -> int:
        """Events that the sink refused for good. They are kept."""
        return self.gauge.dead_letters

    def pending(self, limit: int, *, exclude: frozenset[str] = frozenset()) -> list[KeptEvent]:
        """The oldest undelivered events that are not excluded. Empty where another worker delivers already."""
        with self._lock:
            if not self._leads():
                return []
            while rows := self._run(lambda connection: tables.oldest(connection, limit, exclude)):
                events = [event for row in rows if (event := self._decoded(*row)) is not None]
                if events:
                    return events
            return []

    def add(self, event: OtherEvent) -> None:
        """Keep an event that is no call's, until it is delivered."""
        self.count(self._run(lambda connection: other_events.add(connection, (event.id, event.time, encode(event)))))

    def announce(self, event: OtherEvent) -> None:
        """Keep an event whose end is not known yet: it waits for `settle`, or, if that never comes, for `release`."""
        self._run(lambda connection: other_events.announce(connection, (event.id, event.time, encode(event))))

    def settle(self, event: OtherEvent) -> None:
        """Have an event that was announced delivered as it is now. Nothing where it was released before."""
        self.count(self._run(lambda connection: other_events.settle(connection, (event.id, event.time, encode(event)))))

    def release(self, before: float) -> int:
        """Have delivered what was announced before a time and never settled: its process has died; returns how many."""
        released = self._run(lambda connection: other_events.release(connection, before))
        self.count(released)
        return released

    def add_since(self, name: str, events: Sequence[OtherEvent]) -> frozenset[str]:
        """Keep those events that are later than all that any process has kept under this name; their ids."""
        rows = [(event.id, event.time, encode(event)) for event in events]
        added = self._run(lambda connection: other_events.add_since(connection, name, rows))
        self.count(len(added))
        return added

    def add_unless_last(self, name: str, fact: str, event: OtherEvent, *, within: float) -> bool:
        """Keep an event unless the last of that name, of any process, was about the same fact, seconds ago at most."""
        row = (event.id, event.time, encode(event))
        added = self._run(lambda connection: other_events.add_unless_last(connection, name, fact, row, within=within))
        self.count(added)
        return added > 0

    def delivered(self, ids: Sequence[str]) -> None:
        """Forget events that the sink has."""
        self.count(-self._run(lambda connection: tables.remove(connection, ids)))

    def dead(self, event_id: str, reason: str) -> None:
        """Set an event aside that the sink will never take."""
        now = self._wall()
        buried = self._run(lambda connection: tables.bury(connection, event_id, reason, now))
        self.count(-buried, dead=buried)

    def fold(self, owner: str, ends: Sequence[CallEnd], *, is_last: bool = False) -> tables.Folded:
        """Take in what a process has settled, exactly once. The gauge is for the caller to move.

        `is_last` says that the process is dead and that this is all of it.
        """
        return self._run(lambda connection: tables.fold(connection, owner, ends, is_last=is_last, lines=self._lines))

    def progress(self, owner: str) -> tables.Progress:
        """How far a process was taken in."""
        return self._run(lambda connection: tables.progress(connection, owner))

    def forget(self, owner: str) -> None:
        """The process has left no segment behind."""
        self._run(lambda connection: tables.forget(connection, owner))

    def shed(self, max_events: int) -> int:
        """Drop the oldest events above a number; returns how many."""
        return self._measured(lambda connection: tables.shed(connection, max_events))

    def expire(self, before: float) -> int:
        """Drop the events of calls that began before a time, in seconds since the epoch; returns how many."""
        return self._measured(lambda connection: tables.expire(connection, before))

    def recount(self) -> None:
        """Count all rows: in between the count is kept by whoever writes."""
        self._measured(tables.recount)

    def known_time(self) -> float | None:
        """The time of day that an earlier process agreed on, see `AgreedTime`; None where there was none."""
        return self._run(tables.known_time)

    def mark_time(self, seconds: float) -> None:
        """Keep a time of day for the next process."""
        self._run(lambda connection: tables.mark_time(connection, seconds))

    def reconcile(self, first: date, last: date) -> list[DailyTotal]:
        """The sums of each tenant and day between two days in UTC, both included, whatever was delivered."""
        return self._run(lambda connection: tables.totals(connection, first.isoformat(), last.isoformat()))

    def split(self, first: date, last: date) -> tuple[list[DailyTotal], list[DailyLine]]:
        """The sums as of one moment, and the lines of what was charged alike, which they are made of."""
        days = first.isoformat(), last.isoformat()
        return self._run(lambda connection: (tables.totals(connection, *days), lines_between(connection, *days)))

    def split_of(self, tenant: str, first: date, last: date) -> tuple[list[DailyTotal], list[DailyLine]]:
        """The same of one tenant."""
        days = first.isoformat(), last.isoformat()

        def both(connection: sqlite3.Connection) -> tuple[list[DailyTotal], list[DailyLine]]:
            own = [total for total in tables.totals(connection, *days) if total.tenant == tenant]
            return own, lines_of_tenant(connection, tenant, [total.day for total in own])

        return self._run(both)

    def count(self, change: int, *, dead: int = 0) -> None:
        """Move the gauge without a look at the file."""
        with self._lock:
            backlog, oldest, dead_letters = self.gauge
            self.gauge = Gauge(max(0, backlog + change), oldest, dead_letters + dead)

    def measure(self) -> Gauge:
        """Look at the file again: other workers write to it too."""
        self._measured(lambda _: None)
        return self.gauge

    def check(self) -> None:
        """Read the whole file, and replace it when it is corrupt."""
        self._run(tables.check)

    def close(self) -> None:
        """Give everything back. The next call would open it again."""
        with self._lock, contextlib.ExitStack() as stack:
            stack.callback(self._unlock)
            stack.callback(self._disconnect)
            if self._connection is not None:
                fcntl.flock(self._guarded(), fcntl.LOCK_EX)

    def _unlock(self) -> None:
        fds, self._guard, self._lead = (self._guard, self._lead), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def _decoded(self, event_id: str, body: bytes) -> KeptEvent | None:
        try:
            return decode_kept(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.dead(event_id, "undecodable")
            return None

    def _measured(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def both(connection: sqlite3.Connection) -> tuple[_T, tuple[int, float | None, int]]:
            return work(connection), tables.gauge(connection)

        with self._lock:
            answer, gauge = self._run(both)
            self.gauge = Gauge(*gauge)
        return answer

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            try:
                return self._transact(work)
            except sqlite3.DatabaseError as error:
                if not self._is_broken(getattr(error, "sqlite_errorcode", 0)):
                    raise
                self._replace(error)
                return self._transact(work)

    def _is_broken(self, code: int) -> bool:
        """Tell a broken file from a disk that does not obey. A broken header may make SQLite refuse to write."""
        return code & 0xFF in _BROKEN or (code == sqlite3.SQLITE_READONLY and os.access(self.path, os.W_OK))

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        guard = self._guarded()
        fcntl.flock(guard, fcntl.LOCK_SH)  # while anybody is inside, nobody moves the file aside
        try:
            if not self._is_connected:
                fcntl.flock(guard, fcntl.LOCK_EX)  # SQLite does not wait for who makes or ends a WAL: we do
            connection = self._connected()
            try:
                connection.execute("BEGIN IMMEDIATE")
                answer = work(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            return answer
        finally:
            fcntl.flock(guard, fcntl.LOCK_UN)

    def _guarded(self) -> int:
        if self._guard < 0:
            self._guard = lock_file(self.path, "lock")
        return self._guard

    def _leads(self) -> bool:
        if self._lead >= 0:
            return True
        fd = lock_file(self.path, "deliver")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._lead = fd
        return True

    @property
    def _is_connected(self) -> bool:
        return self._connection is not None and inode_of(self.path) == self._inode

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_connected:
            return self._connection
        self._disconnect()
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # the WAL inherits the mode of the file
        self._inode = inode_of(self.path)
        connection = connect(self.path)
        try:
            tables.prepare(connection, self._synchronous)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        guard = self._guarded()
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            if inode_of(self.path) != self._inode:
                return  # another worker has done it
            self._disconnect()
            aside = self.path.with_name(f"{self.path.name}.{uuid4().hex[:12]}.quarantine")
            copy = copy_of(self.path)
            move_aside(self.path, aside)
            rows = salvage(copy, self._connected())
            self.quarantined += 1
            _log.error("usage spool is corrupt (%s): moved to %s, %d rows saved", error, aside.name, rows)
        finally:
            fcntl.flock(guard, fcntl.LOCK_UN)
