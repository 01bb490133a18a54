"""Keeps the journals of other processes: follows the files that they write, and takes in those of the dead."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.call_end import OnEnds
from gateway_middleware.metering.journal.follower import Follower
from gateway_middleware.metering.journal.housekeeping import Housekeeping, Retention
from gateway_middleware.metering.journal.keeping import Tally
from gateway_middleware.metering.journal.recovery import Appraise
from gateway_middleware.metering.journal.segment import Segment, is_left_to_a_keeper, owner_of, segments_of
from gateway_middleware.metering.journal.spool import Spool


class Keeper:
    """The one keeper of a spool, for all processes of a host that leave their journals to it.

    Everything blocks and belongs to one thread at a time. A keeper may die at any moment: the next one goes on where
    the spool says. `notify` is called whenever new events are in the spool, `on_ends` is given what came.
    """

    def __init__(
        self,
        spool: Spool,
        retention: Retention,
        *,
        wall: Clock,
        clock: Clock,
        appraise: Appraise | None = None,
        notify: Callable[[], None] = lambda: None,
        on_ends: OnEnds = lambda _: None,
    ) -> None:
        self._spool = spool
        self._follower = Follower(spool, notify=notify, on_ends=on_ends)
        self._housekeeping = Housekeeping(spool, retention, wall=wall, clock=clock, appraise=appraise, on_ends=on_ends)
        self._segments: dict[Path, Segment] = {}
        self._lock = -1
        self.reached: dict[str, int] = {}
        """For each journal up to which record all is in the spool."""

    @property
    def trouble(self) -> str | None:
        """What could not be done at the last look."""
        return self._housekeeping.trouble

    @property
    def tally(self) -> Tally:
        """What has been counted since its start."""
        return Tally(
            known=self._follower.known,
            orphaned=self._housekeeping.orphaned,
            dropped=self._housekeeping.dropped,
            damaged=self._housekeeping.damaged + self._follower.damaged,
        )

    def begin(self) -> bool:
        """Become the one keeper. False while there is another one. Raises OSError."""
        self._spool.path.parent.mkdir(parents=True, exist_ok=True)
        if self._lock < 0:
            lock = os.open(f"{self._spool.path}.keeper", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        self._housekeeping.begin()
        return True

    def work(self) -> None:
        """Take in what has come since the last time, and keep house. Raises `sqlite3.Error` or OSError."""
        left = [path for path in segments_of(self._spool.path) if is_left_to_a_keeper(path, self._spool.path)]
        self._forget_all_but(left)
        reached: dict[str, int] = {}
        for owner, paths in groupby(left, key=lambda path: owner_of(path, self._spool.path)):
            self._follow(owner, list(paths), reached)
        self.reached = reached
        self._housekeeping.look()

    def finish(self) -> None:
        """The last look. Raises as `work`."""
        self.work()
        self._housekeeping.end()

    def close(self) -> None:
        """Give everything back."""
        self._forget_all_but([])
        self._spool.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _follow(self, owner: str, paths: list[Path], reached: dict[str, int]) -> None:
        """Take in what one process has written; all of it where it is gone."""
        segments = [segment for path in paths if (segment := self._opened(path)) is not None]
        left = [segment for segment in segments if segment.is_left]
        if len(left) == len(segments):
            self._forget_all_but([path for path in self._segments if path not in paths])
            self._housekeeping.adopt()
            return
        for segment in sorted(segments, key=lambda segment: segment not in left):
            self._follower.follow(segment)
        reached[owner] = max((self._follower.reached(segment) for segment in segments), default=0)
        for segment in sorted(left, key=self._follower.reached):  # the oldest first: later ones carry its calls
            del self._segments[segment.path]
            self._follower.discard(segment)

    def _opened(self, path: Path) -> Segment | None:
        segment = self._segments.get(path)
        if segment is None and (segment := Segment.beside(path)) is not None:
            self._segments[path] = segment
        return segment

    def _forget_all_but(self, paths: list[Path]) -> None:
        for path in [path for path in self._segments if path not in paths]:
            self._follower.leave(self._segments.pop(path))
