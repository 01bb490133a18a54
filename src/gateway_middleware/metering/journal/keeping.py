"""Who takes the segments of a journal into its spool: its own thread, or a keeper process beside it."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import NamedTuple, Protocol

from gateway_middleware.metering.journal.follower import Follower
from gateway_middleware.metering.journal.housekeeping import Housekeeping
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.metering.journal.segment_log import SegmentLog


class Tally(NamedTuple):
    """`known` ends were in the spool already, `orphaned` calls belonged to processes that died.

    `dropped` events were too many or too old, `damaged` records could not be read.
    """

    known: int = 0
    orphaned: int = 0
    dropped: int = 0
    damaged: int = 0


class Keeping(Protocol):
    """Everything but the properties blocks, and belongs to the thread of the journal."""

    @property
    def trouble(self) -> str | None:
        """What could not be done at the last look."""
        ...

    @property
    def taken(self) -> int:
        """Ends of this journal that are in the spool."""
        ...

    @property
    def tally(self) -> Tally:
        """What else has been counted since the start of whoever keeps."""
        ...

    def begin(self) -> None:
        """Before the first call."""
        ...

    def retire(self, segment: Segment) -> None:
        """A segment gets no further record. Called from the thread of the event loop."""
        ...

    def work(self) -> None:
        """Do what there is to do. Raises `sqlite3.Error` or OSError."""
        ...

    def adopt(self) -> None:
        """Take in what other processes left when they died. Raises as `work`."""
        ...

    def release(self, *, is_finished: bool) -> None:
        """Nobody writes any more: leave the segments to whoever comes. `is_finished`: all calls have ended."""
        ...


class OwnKeeper:
    """Follows the segments of its own process."""

    def __init__(self, segments: SegmentLog, follower: Follower, housekeeping: Housekeeping) -> None:
        self._segments = segments
        self._follower = follower
        self._housekeeping = housekeeping
        self._retired: deque[Segment] = deque()
        self._seen: tuple[Segment, int] | None = None

    @property
    def trouble(self) -> str | None:
        return self._housekeeping.trouble

    @property
    def taken(self) -> int:
        return self._follower.taken

    @property
    def tally(self) -> Tally:
        house, follower = self._housekeeping, self._follower
        return Tally(
            known=follower.known,
            orphaned=house.orphaned,
            dropped=house.dropped,
            damaged=house.damaged + follower.damaged,
        )

    def begin(self) -> None:
        self._housekeeping.begin()

    def retire(self, segment: Segment) -> None:
        self._retired.append(segment)

    def work(self) -> None:
        current = self._segments.current
        while self._retired:
            self._follower.follow(self._retired[0])
            self._follower.discard(self._retired.popleft())
        if current is not None and current is self._segments.current:
            self._follow_current(current)
        self._housekeeping.look()

    def adopt(self) -> None:
        self._housekeeping.adopt()

    def _follow_current(self, current: Segment) -> None:
        seen = current, current.size
        if seen != self._seen:
            self._follower.follow(current)
            self._seen = seen

    def release(self, *, is_finished: bool) -> None:
        with contextlib.ExitStack() as stack:
            for segment in self._retired:
                stack.callback(self._follower.leave, segment)
            self._retired.clear()
            if self._segments.is_open:
                stack.callback(self._housekeeping.end)
            stack.callback(self._close, is_finished=is_finished)

    def _close(self, *, is_finished: bool) -> None:
        current = self._segments.take_current()
        if current is None:
            return
        if is_finished and not self._retired:
            self._follower.discard(current)
        else:
            self._follower.leave(current)
