"""Whether the disk is slow, and appends that a thread makes while it is."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.turn import Draft

_SLOW_SECONDS = 0.1
_WELL_SECONDS = 5.0
_log = logging.getLogger("gateway_middleware")


class DiskPace:
    """The disk is slow from a write that takes a tenth of a second on, until for five seconds none has.

    `clock` is monotonic seconds.
    """

    __slots__ = ("_clock", "_slow_until", "is_slow", "slow_writes")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slow_until = 0.0
        self.is_slow = False
        self.slow_writes = 0
        """How many writes took so long."""

    @property
    def was_slow_lately(self) -> bool:
        """Whether one has within the last five seconds: `is_slow` stays until the next write."""
        return self.is_slow and self._clock() < self._slow_until

    def now(self) -> float:
        """The time to give to `note`."""
        return self._clock()

    def note(self, began: float, now: float) -> None:
        """A write has taken from then to then."""
        if now - began >= _SLOW_SECONDS:
            if not self.is_slow:
                _log.warning(
                    "a write to the call journal took %.2f s: calls wait for the disk in a thread", now - began
                )
            self.is_slow, self._slow_until = True, now + _WELL_SECONDS
            self.slow_writes += 1
        elif self.is_slow and now >= self._slow_until:
            self.is_slow = False
            _log.info("the disk of the call journal is well again")


class Aside:
    """Records that a thread appends. `written` is done when they are on disk, or it is known that they are not.

    `taken` gets them in the event loop. Who cannot wait for the loop waits for `is_done`, and takes them itself.
    """

    __slots__ = ("ended", "is_done", "is_taken", "lines", "pace", "times", "turn", "written")

    def __init__(self, turn: Sequence[Draft], *, ended: int, pace: DiskPace, written: asyncio.Future[None]) -> None:
        self.turn = turn
        self.ended = ended
        self.pace = pace
        self.times = (0.0, 0.0)
        self.written = written
        self.lines: list[bytes] | None = None
        self.is_done = threading.Event()
        self.is_taken = False

    def start(self, append: Callable[[Sequence[Draft]], list[bytes] | None], taken: Callable[[Aside], None]) -> None:
        """Append in a thread of its own. Raises RuntimeError where none can be had."""
        loop = self.written.get_loop()

        def run() -> None:
            began = self.pace.now()
            try:
                self.lines = append(self.turn)
            finally:
                self.times = (began, self.pace.now())
                self.is_done.set()
                try:
                    loop.call_soon_threadsafe(taken, self)
                except RuntimeError:  # the loop is closed: whoever stops the journal takes them
                    pass

        threading.Thread(target=run, name="usage-journal-append", daemon=True).start()

    def release(self) -> None:
        """Let those go on who wait."""
        if not self.written.done():
            self.written.set_result(None)
