"""The one thread that carries what was settled into the spool, many at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from gateway_middleware.metering.journal.call_end import CallEnd
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.metering.journal.spool import Spool

_log = logging.getLogger(__name__)
_GROUP = 512
_IDLE_SECONDS = 0.5
_RETRY_SECONDS = 0.5


class Writer:
    """Folds ends in the order in which they were put, and discards a segment after all before it are in.

    `put` belongs to the event loop; everything else runs on the thread, or before it starts and after it ends. `tick`
    is called about twice a second, `notify` after every commit. What cannot be written is kept and tried
    again; `fault` says why.
    """

    def __init__(
        self, spool: Spool, owner: str, *, commit_delay: float, tick: Callable[[], None], notify: Callable[[], None]
    ) -> None:
        self.fault: str | None = None
        self.known = 0
        self._spool = spool
        self._owner = owner
        self._commit_delay = commit_delay
        self._tick = tick
        self._notify = notify
        self._queue: deque[CallEnd | Segment] = deque()
        self._batch: list[CallEnd] = []
        self._wake = threading.Event()
        self._full = threading.Event()
        self._sealed: Segment | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Ended calls that are not in the spool yet."""
        return len(self._queue) + len(self._batch)

    def put(self, item: CallEnd | Segment) -> None:
        """Queue the end of a call, or a segment that will get no further record."""
        queue = self._queue
        queue.append(item)
        if not self._wake.is_set():
            self._wake.set()
        elif len(queue) >= _GROUP and not self._full.is_set():
            self._full.set()

    def start(self) -> None:
        """Begin."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="usage-journal", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Write everything and end; False when that was not done in `timeout` seconds."""
        thread = self._thread
        if thread is None:
            return True
        self._stopping.set()
        self._wake.set()
        self._full.set()
        thread.join(timeout)
        return not thread.is_alive() and not self.waiting

    def drain(self) -> None:
        """Write everything that waits. Raises `sqlite3.Error` or OSError."""
        while self._batch or self._sealed or self._queue:
            self._take()
            if self._batch:
                folded = self._spool.fold(self._owner, self._batch)
                self._batch = []
                self._spool.count(folded.added)
                self.known += folded.known
                if folded.added:
                    self._notify()
            sealed, self._sealed = self._sealed, None
            if sealed is not None:
                sealed.discard()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(_IDLE_SECONDS)
            self._full.wait(self._commit_delay if self._queue else 0)
            self._wake.clear()
            self._full.clear()
            self._attempt()
            self._tick()
        self._attempt()

    def _attempt(self) -> None:
        try:
            self.drain()
            self.fault = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread lives on and tries again
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.fault is None:
            _log.error("usage spool cannot be written, %d events wait: %r", self.waiting, error)
        self.fault = f"the usage spool cannot be written: {error}"
        self._stopping.wait(_RETRY_SECONDS)
        self._wake.set()

    def _take(self) -> None:
        while self._queue and len(self._batch) < _GROUP and self._sealed is None:
            item = self._queue.popleft()
            if isinstance(item, Segment):
                self._sealed = item
            else:
                self._batch.append(item)
