"""The one thread of a journal, for everything that may wait for the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.5
_RETRY_SECONDS = 0.5


class HouseThread:
    """Calls `work` whenever it is woken, `delay` seconds later, and about twice a second; a last time when it stops.

    `release` is called when the thread ends, or instead of that where it was never started. Work that fails is tried
    again: `fault` says why.
    """

    def __init__(self, *, work: Callable[[], None], release: Callable[[], None], delay: float) -> None:
        self.fault: str | None = None
        self._work = work
        self._release = release
        self._delay = delay
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._waiting: list[threading.Event] = []
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """There is something to do."""
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Wait until all that there is to do now is done; False when that took longer than `timeout` seconds."""
        is_done = threading.Event()
        self._waiting.append(is_done)
        self._hurry.set()
        self._wake.set()
        return is_done.wait(timeout)

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be had."""
        self._stopping.clear()
        thread = threading.Thread(target=self._run, name="usage-journal", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self, timeout: float) -> bool:
        """Work a last time and end; False when that was not done in `timeout` seconds."""
        self._stopping.set()
        self._hurry.set()
        self._wake.set()
        thread = self._thread
        if thread is None:
            self._end()
            return True
        thread.join(timeout)
        if thread.is_alive():
            return False
        self._thread = None
        return True

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._wake.wait(_IDLE_SECONDS):
                    self._hurry.wait(self._delay)
                self._wake.clear()
                self._hurry.clear()
                self._attempt()
            self._attempt()
        finally:
            self._end()

    def _attempt(self) -> None:
        waiting = list(self._waiting)
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread lives on and tries again
            self._failed(error)
            return
        self.fault = None
        for is_done in waiting:
            is_done.set()
            self._waiting.remove(is_done)

    def _failed(self, error: Exception) -> None:
        if self.fault is None:
            _log.error("usage spool cannot be written: %r", error)
        self.fault = f"the usage spool cannot be written: {error}"
        self._stopping.wait(_RETRY_SECONDS)
        self._wake.set()

    def _end(self) -> None:
        try:
            self._release()
        except Exception:  # noqa: BLE001 - the thread ends here, and what could be closed is
            _log.exception("the call journal could not be closed in order")
