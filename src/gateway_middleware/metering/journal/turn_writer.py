"""Has on disk what the turns of an event loop record: the loop writes it, or a thread while the disk is slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from gateway_middleware.core.domain import Clock
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.metering.journal.segment import OPEN
from gateway_middleware.metering.journal.segment_log import SegmentLog
from gateway_middleware.metering.journal.slow_disk import Aside, DiskPace
from gateway_middleware.metering.journal.turn import Draft, UnderWay


class TurnWriter:
    """Collects the records of a turn and appends them in one write: on the loop, or in a thread while the disk is slow.

    `record`, `commit` and `pending` belong to the event loop's thread; `append_again` and `unwritten` may be called
    from another one. Of a turn that cannot be written, `refuse` is given each call that begins in it; its ends wait
    here (`is_stuck`) until `append_again` has written them. `on_written` is given how many ends of calls are on disk,
    `wake` is called when there is something to fold. With an `outbox` a turn is written before anything of it leaves.
    """

    def __init__(
        self,
        segments: SegmentLog,
        *,
        clock: Clock,
        outbox: Outbox | None,
        refuse: Callable[[UnderWay], None],
        on_written: Callable[[int], None],
        wake: Callable[[], None],
    ) -> None:
        self.ended = 0
        """How many ends of calls were recorded."""
        self.is_stuck = False
        """Whether what has ended waits in memory."""
        self._segments = segments
        self._pace = DiskPace(clock)
        self._outbox = outbox
        self._refuse = refuse
        self._on_written = on_written
        self._wake = wake
        self._turn: list[Draft] = []
        self._turn_written: asyncio.Future[None] | None = None
        self._writing: Sequence[Draft] = []
        self._appending = threading.Lock()
        self._aside: Aside | None = None  # what the thread of a slow disk appends
        if outbox is not None:
            outbox.write_first(self)

    def begin(self, taken: int) -> None:
        """Count on from what is in the spool already, and what waits here."""
        self.ended = taken + len(self._turn)

    def record(self, draft: Draft) -> None:
        """Have it written with this turn."""
        with self._appending:
            is_first = not self._turn
            self._turn.append(draft)
            self.ended += draft.kind != OPEN
        if is_first and self._outbox is not None:
            self._outbox.commit_soon()

    def commit(self) -> None:
        """Have everything that was recorded so far on disk, in one write. Never raises: see `Entry.fault`."""
        if not self._turn:  # only this thread adds to it
            return
        with self._appending:
            if not self._turn or self.is_stuck:
                return
            if not (self.is_slow and self._append_aside()):
                self._append()
        self._wake()

    @property
    def pending(self) -> asyncio.Future[None] | None:
        """While the disk is slow: done when all is on disk that was recorded so far. It does not fail."""
        if self.is_stuck:
            return None  # what has ended waits in memory, and nobody for it
        if not self._turn:
            return None if self._aside is None else self._aside.written
        if self._turn_written is None and self.is_slow:
            self._turn_written = asyncio.get_running_loop().create_future()
        return self._turn_written

    @property
    def is_slow(self) -> bool:
        """Whether a thread writes this turn."""
        return self._aside is not None or (self._pace.is_slow and _runs_in_a_loop())

    @property
    def is_disk_slow(self) -> bool:
        """Whether a write is waited for in a thread, or was slow lately."""
        return self._aside is not None or self._pace.was_slow_lately

    @property
    def slow_writes(self) -> int:
        """How many writes took so long that the disk was slow from then on."""
        return self._pace.slow_writes

    def unwritten(self) -> list[UnderWay]:
        """The calls whose records are not on disk."""
        return [draft.call for draft in (*self._writing, *self._turn) if draft.call is not None]

    def _append(self) -> None:
        """On the event loop, while the disk is well."""
        self._writing = turn = self._turn
        self._turn, began = [], self._pace.now()
        self._take(turn, self._segments.append(turn), self.ended)
        self._pace.note(began, self._pace.now())
        self._release_turn()

    def _append_aside(self) -> bool:
        """In a thread; False where none can be had."""
        if self._aside is not None:
            return True  # this turn is appended after the one that is being appended
        written = self._turn_written or asyncio.get_running_loop().create_future()
        aside = Aside(self._turn, ended=self.ended, pace=self._pace, written=written)
        try:
            aside.start(self._segments.append, self._aside_ended)
        except RuntimeError:
            return False
        self._aside, self._writing = aside, self._turn
        self._turn, self._turn_written = [], None
        return True

    def wait_for_thread(self, timeout: float) -> None:
        """For whoever cannot wait for the loop: until what a thread appends is appended. Blocks."""
        aside = self._aside
        if aside is not None and aside.is_done.wait(timeout):
            self._take_aside(aside)

    def _take_aside(self, aside: Aside) -> None:
        """What a thread has appended is taken once: in the event loop, or by whoever stops the journal."""
        with self._appending:
            if aside.is_taken:
                return
            aside.is_taken, self._aside = True, None
            self._pace.note(*aside.times)
            self._take(aside.turn, aside.lines, aside.ended)

    def _aside_ended(self, aside: Aside) -> None:
        self._take_aside(aside)
        aside.release()
        if self.is_stuck:
            self._release_turn()
        self.commit()
        self._wake()

    def _release_turn(self) -> None:
        """Let those go on who wait for this turn: the disk has become well meanwhile, or what has ended waits here."""
        written, self._turn_written = self._turn_written, None
        if written is not None:
            written.set_result(None)

    def append_again(self) -> None:
        """What has ended and could not be written. No call is taken meanwhile.

        What ends while it is being written is written, too: nobody else would.
        """
        while self.is_stuck and self._append_what_waits():
            pass

    def _append_what_waits(self) -> bool:
        with self._appending:
            self._writing = turn = self._turn
            self._turn, ended = [], self.ended
        written = self._segments.append(turn)
        with self._appending:
            is_stuck = written is None or bool(self._turn)
            self._take(turn, written, ended, is_stuck=is_stuck)
        return written is not None

    def _take(self, turn: Sequence[Draft], written: list[bytes] | None, ended: int, *, is_stuck: bool = False) -> None:
        self.is_stuck = is_stuck or written is None
        if written is None:
            self._turn = self._not_written([*turn, *self._turn])
        else:
            self._on_written(ended)
            for (kind, _, call), line in zip(turn, written, strict=True):
                if kind == OPEN and call is not None:
                    call.line = line
        self._writing = []

    def _not_written(self, turn: list[Draft]) -> list[Draft]:
        """Refuse the calls that begin in this turn; the ends of others are still to be written."""
        for kind, _, call in turn:
            if kind == OPEN and call is not None:
                self._refuse(call)
        return [draft for draft in turn if draft.kind != OPEN]

    def hand_over(self, take: Callable[[Sequence[Draft]], None]) -> None:
        """Give away what has ended, if any of it waits: nothing is written here any more."""
        ends = [draft for draft in self._turn if draft.kind != OPEN]
        if ends:
            take(ends)
        self._turn = []
        self.ended -= len(ends)


def _runs_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
