"""The one thread that carries what has ended into the spool, many calls at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from gateway_middleware.metering.journal.call_end import CallEnd
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.metering.journal.spool import Spool

_log = logging.getLogger(__name__)
_MAX_GROUP = 512
_IDLE_SECONDS = 0.5
_RETRY_SECONDS = 0.5

Marker: TypeAlias = "Segment | threading.Event"
"""What waits until all calls put before it are in the spool: a segment is then discarded, an event is set."""


class Writer:
    """Folds the ends of calls in the order in which they were put, many in one transaction.

    `put` belongs to the event loop; everything else runs on the thread, or before it starts and after it ends. `tick`
    is called about twice a second, `notify` after every commit, `release` when the thread ends or was never started.
    What cannot be written is kept and tried again; `fault` says why.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        commit_delay: float,
        tick: Callable[[], None],
        notify: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self.owner = ""
        """Under which name the spool remembers how far it has got."""
        self.fault: str | None = None
        self.known = 0
        """Ends that were in the spool already."""
        self._spool = spool
        self._commit_delay = commit_delay
        self._tick = tick
        self._notify = notify
        self._release = release
        self._queue: deque[CallEnd | Marker] = deque()
        self._batch: list[CallEnd] = []
        self._marker: Marker | None = None
        self._wake = threading.Event()
        self._full = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Ended calls that are not in the spool yet."""
        return len(self._queue) + len(self._batch)

    def put(self, item: CallEnd | Marker) -> None:
        """Queue the end of a call, or what waits for all that is queued before it."""
        queue = self._queue
        queue.append(item)
        if not self._wake.is_set():
            self._wake.set()
        elif len(queue) >= _MAX_GROUP and not self._full.is_set():
            self._full.set()

    def flush(self, timeout: float) -> bool:
        """Wait until what is queued is written; False when that was not done in `timeout` seconds."""
        is_written = threading.Event()
        self.put(is_written)
        self._full.set()
        return is_written.wait(timeout)

    def start(self, owner: str) -> None:
        """Begin, under a name that was never used. Raises RuntimeError where no thread can be had."""
        self.owner = owner
        self._forget_recorded()
        self._stopping.clear()
        thread = threading.Thread(target=self._run, name="usage-journal", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self, timeout: float) -> bool:
        """Write everything and end; False when that was not done in `timeout` seconds."""
        self._stopping.set()
        self._wake.set()
        self._full.set()
        thread = self._thread
        if thread is None:
            self._release()
            return not self.waiting
        thread.join(timeout)
        if thread.is_alive():
            return False
        self._thread = None
        return not self.waiting

    def give_up(self) -> None:
        """Close segments that were to be discarded, and leave them to be adopted."""
        for item in [self._marker, *self._queue]:
            if isinstance(item, Segment):
                item.close()

    def _forget_recorded(self) -> None:
        """What an earlier life has left in the queue is adopted with its segments, but for what is in no segment."""
        left = [*self._batch, *self._queue]
        self._batch, self._marker = [], None
        self._queue = deque(item for item in left if isinstance(item, CallEnd) and item.sequence is None)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.wait(_IDLE_SECONDS)
                self._full.wait(self._commit_delay if self._queue else 0)
                self._wake.clear()
                self._full.clear()
                self._attempt()
                self._tick()
            self._attempt()
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self._release()
        except Exception:  # noqa: BLE001 - the thread ends here, and what could be closed is
            _log.exception("the call journal could not be closed in order")

    def _attempt(self) -> None:
        try:
            self._drain()
            self.fault = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread lives on and tries again
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.fault is None:
            _log.error("usage spool cannot be written, %d events wait: %r", self.waiting, error)
        self.fault = f"the usage spool cannot be written: {error}"
        self._stopping.wait(_RETRY_SECONDS)
        self._wake.set()

    def _drain(self) -> None:
        """Write everything that waits. Raises `sqlite3.Error` or OSError."""
        while self._batch or self._marker or self._queue:
            self._take()
            if self._batch:
                self._fold()
            marker, self._marker = self._marker, None
            if isinstance(marker, Segment):
                marker.discard()
            elif marker is not None:
                marker.set()

    def _fold(self) -> None:
        folded = self._spool.fold(self.owner, self._batch)
        self._batch = []
        self._spool.count(folded.added)
        self.known += folded.known
        if folded.added:
            self._notify()

    def _take(self) -> None:
        while self._queue and len(self._batch) < _MAX_GROUP and self._marker is None:
            item = self._queue.popleft()
            if isinstance(item, CallEnd):
                self._batch.append(item)
            else:
                self._marker = item
