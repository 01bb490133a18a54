"""A directory that the workers of one server share: one SQLite file, written ahead (WAL)."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from gateway_middleware.fleet import tables
from gateway_middleware.fleet.entries import Entry, Owned, Owner, Process
from gateway_middleware.fleet.store import PAGE, News, StoreAwayError

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

T = TypeVar("T")
Version: TypeAlias = "tuple[tuple[int, int, int], ...]"
FILE = "fleet.db"
_BUSY_SECONDS = 2.0
"""How long a writer waits for others. Readers never wait."""
_PRESENCE_SECONDS = 2.0
_TICK_SECONDS = 0.05
"""Longer than the times of files are apart: a file that was written longer ago has another time after a write."""


class DirectoryStore:
    """A `FleetStore` in a directory of a local disk, for processes of one machine.

    All that touches the disk happens in one thread of this store's own. What was committed outlives a process that is
    killed; entries outlive a loss of power as well. `wall` is the clock of the store: one for all, as it is that of
    the machine.
    """

    name: ClassVar[str] = "directory"

    def __init__(self, directory: Path, *, wall: Clock = time.time) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-gateway-fleet")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._presence_due = 0.0
        self._noted: Process | None = None
        self._read_at: tuple[int, int] | None = None
        self._last: News | None = None
        self._still_at: Version | None = None

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store these; they are on disk when it returns."""
        await self._run(lambda connection: self._append(connection, entries))

    async def news(self, position: int, process: Process) -> News:
        """What came after a position."""
        return await self._run(lambda connection: self._news(connection, position, process))

    def is_still(self, process: Process) -> bool:
        """Whether nobody has written since the last `news`, as the files say, and this process is noted already."""
        return (
            self._still_at is not None
            and process == self._noted
            and 0 < self._presence_due - self._wall() <= _PRESENCE_SECONDS
            and self._still_at == _version(self._path)
        )

    async def leave(self, process: Process) -> None:
        """The process is about to end."""

        def forget(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                tables.forget_process(connection, process)

        await self._run(forget)

    async def remember(self, owned: Sequence[Owned]) -> None:
        """Store owners."""

        def write(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                tables.remember(connection, owned, self._wall())

        await self._run(write)

    async def owners(self, digests: Sequence[bytes]) -> Mapping[bytes, Owner]:
        """Those that are known."""
        return await self._run(lambda connection: tables.owners(connection, digests, self._wall()))

    async def aclose(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # In the thread.

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._opened())
        except (OSError, sqlite3.Error) as error:
            self._close()
            raise StoreAwayError(f"{self._path}: {type(error).__name__}: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        """The connection; a new one where the file was removed or replaced."""
        if self._connection is not None and self._inode != _inode(self._path):
            self._close()
        if self._connection is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = _connect(self._path)
            self._inode = _inode(self._path)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._read_at = self._last = self._noted = self._still_at = None

    def _append(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        try:
            with _transaction(connection):
                tables.append(connection, entries, self._wall())
        finally:
            connection.execute("PRAGMA synchronous=NORMAL")

    def _news(self, connection: sqlite3.Connection, position: int, process: Process) -> News:
        now = self._wall()
        if process != self._noted or not 0 <= self._presence_due - now <= _PRESENCE_SECONDS:
            with _transaction(connection):
                tables.note_process(connection, process, now)
            self._noted, self._presence_due = process, now + _PRESENCE_SECONDS
            self._read_at = None
        # Changes when another process has written; this one reads what it has written itself at its next change.
        state = (connection.execute("PRAGMA data_version").fetchone()[0], position)
        if self._last is None or state != self._read_at:
            end, entries = tables.entries_after(connection, position, now)
            has_more = len(entries) == PAGE
            known = tables.processes(connection, now)
            self._last = News(tables.epoch(connection), end, entries, known, has_more=has_more)
            self._read_at = None if has_more else (state[0], end)
            self._still_at = None
            return self._last
        if self._still_at is None or self._still_at != _version(self._path):
            self._still_at = self._settled(connection, state[0])
        return News(self._last.epoch, position, (), self._last.processes)

    def _settled(self, connection: sqlite3.Connection, data_version: int) -> Version | None:
        """The files that this version of the data is all of; None where somebody writes, or has just done so.

        Whoever commits writes the file first and makes it visible last, which a slow disk sets apart by any time. So
        the files are looked at while nobody else can be about to commit.
        """
        connection.execute("PRAGMA busy_timeout=0")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return None
        else:
            version = _version(self._path)
            is_same = connection.execute("PRAGMA data_version").fetchone()[0] == data_version
            connection.execute("ROLLBACK")
            return version if is_same and version is not None and _is_old(version) else None
        finally:
            connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000:.0f}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute("PRAGMA synchronous=NORMAL")
        with _transaction(connection):
            tables.create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(path: Path) -> Version | None:
    """Changes with every write to the file or to what is written ahead of it; None where one of them is missing."""
    try:
        files = path.stat(), path.with_name(f"{FILE}-wal").stat()
    except OSError:
        return None
    return tuple((file.st_ino, file.st_size, file.st_mtime_ns) for file in files)


def _is_old(version: Version) -> bool:
    """By the clock of the machine, which files go by."""
    return time.time() - max(written for _, _, written in version) / 1e9 >= _TICK_SECONDS


def _inode(path: Path) -> int:
    """0 where there is no file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
