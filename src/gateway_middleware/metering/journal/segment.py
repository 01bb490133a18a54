r"""The append-only file of one process: what it has admitted and settled, written before anything else happens.

One record is one line between two newlines, `\n<crc32> <kind><sequence> <json>\n`: a damaged byte costs the record it
is in, never its neighbours. Records are appended by a single write, which ends with a line of one dot, and survive the
death of the process: who follows a file takes what stands before the last dot, for what follows may be cut back.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from zlib import crc32

_log = logging.getLogger(__name__)
OPEN = b"o"
CLOSE = b"c"
END = b"e"
VOID = b"v"
SUFFIX = ".open"
_DOT = b"\n.\n"
_KINDS = frozenset((OPEN, CLOSE, END, VOID))
"""END is the close of a call whose entry is in the same file or in an earlier one: what the entry does not tell."""


class Record(NamedTuple):
    """A line that is whole. `sequence` counts all records of one process, over all its segments."""

    kind: bytes
    sequence: int
    body: bytes


def frame(kind: bytes, sequence: int, body: bytes) -> bytes:
    """A line around `body`, which is one JSON value and holds no newline."""
    payload = b"".join((kind, str(sequence).encode(), b" ", body))
    return b"".join((b"\n", crc32(payload).to_bytes(4, "big").hex().encode(), b" ", payload, b"\n"))


def whole(content: bytes) -> bytes:
    """The part of it that nobody takes back."""
    return content[: content.rfind(_DOT) + len(_DOT)] if _DOT in content else b""


def scan(content: bytes) -> tuple[list[Record], list[bytes]]:
    """Every intact record, and every line that is not one."""
    records: list[Record] = []
    damaged: list[bytes] = []
    for line in content.split(b"\n"):
        if not line or line == b".":
            continue
        record = _parse(line)
        if record is None:
            damaged.append(line)
        else:
            records.append(record)
    return records, damaged


def _parse(line: bytes) -> Record | None:
    payload = line[9:]
    if line[:9] != b"%08x " % crc32(payload):
        return None
    head, _, body = payload.partition(b" ")
    kind, digits = head[:1], head[1:]
    if kind not in _KINDS or not digits.isdigit():
        return None
    return Record(kind, int(digits), body)


class Segment:
    """A file of records, locked for as long as its process lives: a lock that can be taken means a dead owner."""

    __slots__ = ("_fd", "_to_file", "path", "size")

    def __init__(self, path: Path, fd: int, write: Callable[[int, bytes], int] = os.write) -> None:
        self._to_file = write
        self.path = path
        self.size = os.fstat(fd).st_size
        self._fd = fd

    @classmethod
    def create(cls, spool: Path, owner: str, write: Callable[[int, bytes], int] = os.write) -> Segment:
        """A new, empty, locked segment. Raises OSError."""
        while True:
            path = spool.with_name(f"{spool.name}.{owner}-{uuid4().hex[:12]}{SUFFIX}")
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return cls(path, fd, write)
            os.close(fd)  # an adopter was quicker than the lock and took the empty file for an abandoned one

    @classmethod
    def claim(cls, path: Path) -> Segment | None:
        """The segment of a dead process, locked; None while its owner, or another adopter, has it."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink:
            return cls(path, fd)
        os.close(fd)
        return None

    @classmethod
    def beside(cls, path: Path) -> Segment | None:
        """The segment of a process that lives, not locked; None where it is not there any more."""
        try:
            return cls(path, os.open(path, os.O_RDWR | os.O_APPEND))
        except FileNotFoundError:
            return None

    @property
    def is_left(self) -> bool:
        """Whether its writer has left it, or has not locked it yet: then it is locked here until it is closed."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def is_gone(self) -> bool:
        """Whether somebody has deleted or replaced the file: what is written to it now is lost with the process."""
        try:
            return not os.path.samestat(os.fstat(self._fd), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True

    def append(self, records: bytes) -> None:
        """Write all of them or nothing. Raises OSError."""
        self._write(records + _DOT)

    def _write(self, content: bytes) -> None:
        written = self._to_file(self._fd, content)
        if written != len(content):
            self._cut_back()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        finally:
            self.size = os.fstat(self._fd).st_size

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        """All of it, or so many bytes from an offset; also of a file that somebody has deleted."""
        return os.pread(self._fd, self.size_on_disk - offset if size is None else size, offset)

    @property
    def size_on_disk(self) -> int:
        """Its bytes, whoever has written them."""
        return os.fstat(self._fd).st_size

    def probe(self, size: int = 4096) -> None:
        """Raise OSError unless there is room for `size` more bytes. What is in the segment stays as it is."""
        before = self.size
        self._write(b"\n" * size)
        self.size = before
        self._cut_back()

    def discard(self) -> None:
        """Remove the file, then give up the lock: never the other way round."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give up the lock and leave the file to whoever adopts it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


KEPT_BY_OTHERS = "k"
"""The first letter of the owner of segments that are left to a keeper while their process lives."""


def is_left_to_a_keeper(path: Path, spool: Path) -> bool:
    """Whether a keeper is to follow a segment."""
    return owner_of(path, spool).startswith(KEPT_BY_OTHERS)


def owner_of(path: Path, spool: Path) -> str:
    """The process that wrote a segment."""
    return key_of(path, spool).partition("-")[0]


def key_of(path: Path, spool: Path) -> str:
    """Under which name the spool remembers how much of a segment it has."""
    return path.name[len(spool.name) + 1 : -len(SUFFIX)]


def segments_of(spool: Path, owner: str = "*") -> list[Path]:
    """Segments beside the spool, in the order in which they are locked."""
    prefix = f"{spool.name}." if owner == "*" else f"{spool.name}.{owner}-"
    return sorted(
        path for path in spool.parent.iterdir() if path.name.startswith(prefix) and path.name.endswith(SUFFIX)
    )


def quarantine(path: Path, damaged: list[bytes]) -> None:
    """Keep what cannot be read of a segment beside it."""
    aside = path.with_name(path.name.removesuffix(SUFFIX) + ".quarantine")
    with os.fdopen(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "wb") as file:
        file.write(b"\n".join(damaged) + b"\n")
    _log.error("%d damaged records of the call journal are kept in %s", len(damaged), aside.name)
