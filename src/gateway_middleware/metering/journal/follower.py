"""Takes what has ended in the segments of living processes into the spool, many calls in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from gateway_middleware.metering.journal.call_end import OnEnds
from gateway_middleware.metering.journal.segment import Segment, key_of, quarantine
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.journal.tail import Tail

_log = logging.getLogger(__name__)


class Follower:
    """Belongs to one thread. `on_ends` is given what each transaction has brought; `notify` is called after it.

    Counts are since its start: `taken` ends that are in the spool, of which `known` were there already; `damaged`
    records that could not be read and are kept beside the segment.
    """

    def __init__(
        self, spool: Spool, *, notify: Callable[[], None] = lambda: None, on_ends: OnEnds = lambda _: None
    ) -> None:
        self.taken = self.known = self.damaged = 0
        self._spool = spool
        self._notify = notify
        self._on_ends = on_ends
        self._tails: dict[Path, Tail] = {}

    def follow(self, segment: Segment) -> None:
        """Take in what has come to a segment. Raises `sqlite3.Error` or OSError: then all of it is looked at again."""
        tail = self._tails.get(segment.path)
        if tail is None:
            tail = self._tails[segment.path] = Tail(segment.read)
        try:
            while not self._is_at_end(segment, tail):
                pass
        except BaseException:
            del self._tails[segment.path]
            raise

    def _is_at_end(self, segment: Segment, tail: Tail) -> bool:
        news = tail.look()
        if news.ends:
            folded = self._spool.fold(key_of(segment.path, self._spool.path), news.ends)
            tail.settled(news.ends)
            self.taken += folded.added + folded.voided + folded.known
            self.known += folded.known
            self._spool.count(folded.added)
            if folded.added:
                self._on_ends(news.ends)
                self._notify()
        if news.damaged:
            self.damaged += len(news.damaged)
            quarantine(segment.path, news.damaged)
        return news.is_all

    def reached(self, segment: Segment) -> int:
        """The last record of a segment up to which all is in the spool."""
        tail = self._tails.get(segment.path)
        return 0 if tail is None else tail.reached

    def leave(self, segment: Segment) -> None:
        """Leave a segment to whoever adopts it."""
        self._tails.pop(segment.path, None)
        segment.close()

    def discard(self, segment: Segment) -> None:
        """Remove a segment of which everything is in the spool, and all that was kept of it."""
        self._tails.pop(segment.path, None)
        segment.discard()
        self._spool.forget(key_of(segment.path, self._spool.path))
