"""Bytes to a file descriptor without ever waiting for its reader."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from queue import Full, Queue

_ATOMIC_BYTES = 4096
"""PIPE_BUF of Linux: a pipe never mixes writes of up to that many bytes with those of another process."""


class FdSink:
    """Writes to a file descriptor from a thread of its own.

    At most `capacity` pieces wait. When the reader is slower than that, or gone, lines are dropped and counted.
    """

    def __init__(self, fd: int, *, capacity: int = 128) -> None:
        self._fd = fd
        self._queue: Queue[bytes | None] = Queue(capacity)
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def __call__(self, lines: bytes) -> None:
        """Take whole lines. Never blocks."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="gateway-log", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(lines)
        except Full:
            self.dropped += lines.count(b"\n")

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most that many seconds. The sink may be used again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._queue.put(None, timeout=timeout)
        except Full:
            return
        thread.join(timeout)

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            for piece in _whole_lines(lines):
                self._write_or_drop(piece)

    def _write_or_drop(self, piece: bytes) -> None:
        try:
            self._write(piece)
        except OSError:
            self.dropped += piece.count(b"\n")

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select([], [self._fd], [])


def _whole_lines(lines: bytes) -> Iterator[bytes]:
    """Pieces of whole lines that several processes can write to one pipe."""
    start = 0
    while len(lines) - start > _ATOMIC_BYTES:
        end = lines.rfind(b"\n", start, start + _ATOMIC_BYTES) + 1 or lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]
