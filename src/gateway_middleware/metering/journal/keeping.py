"""Who takes the segments of a journal into its spool: its own thread, or a keeper process beside it."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Literal, NamedTuple, Protocol, TypeAlias

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.follower import Follower
from gateway_middleware.metering.journal.housekeeping import Housekeeping
from gateway_middleware.metering.journal.keeper_status import KeeperStatus, read_status
from gateway_middleware.metering.journal.rescue import write_anew
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.metering.journal.segment_log import SegmentLog
from gateway_middleware.metering.journal.spool import Gauge, Spool

KeptBy: TypeAlias = Literal["thread", "process"]
"""Who takes the segments of a journal into the spool."""
_SILENT_SECONDS = 10.0


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
    def status(self) -> KeeperStatus | None:
        """What a keeper process has told last; None where there is none."""
        ...

    @property
    def tally(self) -> Tally:
        """What else has been counted. Of a keeper process what it has dropped and could not read, for all processes."""
        ...

    @property
    def quarantined(self) -> int:
        """Spools that were moved aside, by whomever."""
        ...

    def begin(self) -> None:
        """Before the first call."""
        ...

    def wrote(self, sequence: int, ended: int) -> None:
        """So many calls have ended up to this record, which is on disk. Called by whoever writes."""
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

    status: KeeperStatus | None = None

    def __init__(self, segments: SegmentLog, spool: Spool, follower: Follower, housekeeping: Housekeeping) -> None:
        self._segments = segments
        self._spool = spool
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
    def quarantined(self) -> int:
        return self._spool.quarantined

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

    def wrote(self, sequence: int, ended: int) -> None:
        """The end of the file says it."""

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


class LeftToKeeper:
    """Leaves its segments to the keeper process of the spool, and reads what that tells of itself.

    `clock` is monotonic: silence is counted from when news was read, so no step of the time of day makes or hides it.
    """

    def __init__(self, segments: SegmentLog, spool: Spool, *, clock: Clock) -> None:
        self.taken = 0
        self._segments = segments
        self._spool = spool
        self._clock = clock
        self._status: KeeperStatus | None = None
        self._marks: deque[tuple[int, int]] = deque()
        self._heard_at: float | None = None
        self._deleted: deque[Segment] = deque()  # retired, and not to be found by the keeper
        self._noticed: list[Segment] = []
        self._rescued: dict[Segment, tuple[int, int]] = {}
        """Of deleted segments the size up to which all is written anew, and the last record."""

    @property
    def status(self) -> KeeperStatus | None:
        """What the keeper has told last."""
        return self._status

    @property
    def trouble(self) -> str | None:
        silent = 0.0 if self._heard_at is None else self._clock() - self._heard_at
        if silent > _SILENT_SECONDS:
            return f"the keeper of the usage spool has been silent for {silent:.0f} s"
        return self._status.trouble if self._status else None

    @property
    def quarantined(self) -> int:
        return self._spool.quarantined + (self._status.quarantined if self._status else 0)

    @property
    def tally(self) -> Tally:
        status = self._status
        if status is None:
            return Tally()
        return Tally(dropped=status.dropped, damaged=status.damaged)

    def begin(self) -> None:
        self._spool.path.parent.mkdir(parents=True, exist_ok=True)
        self._marks.clear()
        self._heard_at = self._clock()

    def wrote(self, sequence: int, ended: int) -> None:
        self._marks.append((sequence, ended))

    def retire(self, segment: Segment) -> None:
        if segment.is_gone:
            self._deleted.append(segment)
        else:
            segment.close()

    def work(self) -> None:
        self._rescue()
        status = read_status(self._spool.path)
        if status is None:
            return
        if status != self._status:
            self._heard_at = self._clock()
        self._status = status
        self._spool.gauge = Gauge(status.backlog, status.oldest, status.dead_letters)
        reached = status.reached.get(self._segments.owner, 0)
        while self._marks and self._marks[0][0] <= reached:
            self.taken = self._marks.popleft()[1]

    def adopt(self) -> None:
        """The keeper does it."""

    def _rescue(self) -> None:
        """Write anew what was deleted, at the second look: then no keeper is reading it any more."""
        retired = list(self._deleted)
        current = self._segments.current
        deleted = [*retired, *([current] if current is not None and current.is_gone else [])]
        for segment in deleted:
            if segment in self._noticed:
                self._write_anew(segment)
        for segment in retired:
            if segment in self._noticed:
                self._deleted.remove(segment)
                self._rescued.pop(segment, None)
                segment.close()
        self._noticed = deleted

    def _write_anew(self, segment: Segment, *, is_last: bool = False) -> None:
        size, last = self._rescued.get(segment, (0, 0))
        if segment.size > size or is_last:
            size = segment.size
            last = write_anew(segment, self._spool, owner=self._segments.owner, after=last, is_last=is_last)
            self._rescued[segment] = size, last

    def release(self, *, is_finished: bool) -> None:
        current = self._segments.take_current()
        with contextlib.ExitStack() as stack:
            for segment in [*self._deleted, *([current] if current is not None else [])]:
                stack.callback(segment.close)
                if segment.is_gone:
                    stack.callback(self._write_anew, segment, is_last=segment is current)
            self._deleted.clear()
