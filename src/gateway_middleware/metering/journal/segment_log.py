"""The records of one process, appended to one segment file after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.segment import OPEN, Segment, frame

if TYPE_CHECKING:
    from gateway_middleware.metering.journal.turn import Draft

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
NOT_STARTED = "not started"


class SegmentLog:
    """Appends records; a segment that is large or old is retired for a new one, which begins with the calls under way.

    `append` belongs to the event loop's thread, and never waits; while the disk is slow it belongs to a thread that the
    loop has started. All else is for the thread that keeps house. `carry` gives the records of the calls under way,
    `retire` takes a segment that gets no further record. `fault` says why no call may be taken, `trouble` what could
    not be done beside; `owner` is part of the names of the files, `write` writes to a file descriptor. Durations are
    seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        segment_bytes: int,
        segment_seconds: float,
        carry: Callable[[], bytes],
        retire: Callable[[Segment], None],
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self.fault: str | None = NOT_STARTED
        self.trouble: str | None = None
        self.owner = ""
        self._path = path
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._write = write
        self._carry = carry
        self._retire = retire
        self._segment: Segment | None = None
        self._spare: Segment | None = None
        self._is_deleted = False
        self._rotate_size = 0
        self._rotate_at = 0.0
        self._sequence = 0

    def append(self, drafts: Sequence[Draft]) -> list[bytes] | None:
        """Write records, all at once: they are returned as they stand in the file.

        None where that cannot be done, and nothing is written: then `fault` says why.
        """
        segment = self._segment
        if segment is None:
            return None
        try:
            if self._is_deleted or (self._is_due(segment) and any(draft.kind == OPEN for draft in drafts)):
                segment = self._rotate(segment)
            first = self._sequence + 1
            written = [frame(kind, number, body) for number, (kind, body, _) in enumerate(drafts, first)]
            segment.append(b"".join(written))
        except OSError as error:
            self._fail(error)
            return None
        self._sequence += len(drafts)
        return written

    def keep_ready(self) -> None:
        """Have an empty segment at hand, and notice when somebody has deleted the one in use. Raises OSError."""
        if self._segment is not None and self._segment.is_gone and not self._is_deleted:
            _log.error("a file of the call journal was deleted: it is written anew")
            self._is_deleted = True  # what ends from now on is written to a new segment
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._spare is not None and self._spare.is_gone:
            self._discard_spare()
        if self._spare is None:
            self._spare = Segment.create(self._path, self.owner, self._write)
        if self._is_deleted and not self._spare.size:
            self._spare.append(self._carry())  # until the next record comes, the calls under way are safe here

    def look(self) -> None:
        """Keep ready, and repair what is broken. Never raises: see `trouble` and `fault`."""
        try:
            self.keep_ready()
            self.trouble = None
        except OSError as error:
            if self.trouble is None:
                _log.error("call journal cannot be looked after: %r", error)
            self.trouble = f"the call journal cannot be looked after: {error}"
        if self.fault is not None:
            self.repair()

    def repair(self) -> None:
        """Take calls again if a new segment can be written."""
        try:
            if self._spare is None:
                self._spare = Segment.create(self._path, self.owner, self._write)
            self._spare.probe()
        except OSError as error:
            self.fault = f"the call journal cannot be written: {error.strerror}"
            self._discard_spare()
            return
        if self._segment is None:
            self._use(self._spare)
            self._spare = None
        else:
            self._rotate_at = 0.0
        self.fault = None

    @property
    def is_open(self) -> bool:
        """Whether a segment is in use."""
        return self._segment is not None

    @property
    def sequence(self) -> int:
        """The last record that was written."""
        return self._sequence

    @property
    def current(self) -> Segment | None:
        """The segment in use."""
        return self._segment

    def take_current(self) -> Segment | None:
        """Write no more: the segment in use becomes the caller's."""
        self._discard_spare()
        segment, self._segment = self._segment, None
        return segment

    def _is_due(self, segment: Segment) -> bool:
        return segment.size >= self._rotate_size or self._clock() >= self._rotate_at

    def _rotate(self, old: Segment) -> Segment:
        """A new segment; the old one where there is no room for it. Raises OSError if the old one is deleted, too."""
        fresh, self._spare = self._spare, None
        try:
            fresh = fresh or Segment.create(self._path, self.owner, self._write)
            fresh.append(self._carry())
        except OSError:
            if fresh is not None:
                fresh.discard()
            if self._is_deleted:
                raise
            self._rotate_size = old.size + self._segment_bytes
            self._rotate_at = self._clock() + _RETRY_SECONDS
            return old
        self._use(fresh)
        self._retire(old)
        return fresh

    def _use(self, segment: Segment) -> None:
        self._is_deleted = False
        self._segment = segment
        self._rotate_size = segment.size + self._segment_bytes
        self._rotate_at = self._clock() + self._segment_seconds

    def _fail(self, error: OSError) -> None:
        if self.fault is None:
            _log.error("call journal cannot be written: %s", error)
            self.fault = f"the call journal cannot be written: {error.strerror}"

    def _discard_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.discard()
