"""What a keeper does beside following segments: measures, adopts what dead processes left, drops what is too old."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.journal.agreed_time import AgreedTime
from gateway_middleware.metering.journal.call_end import OnEnds
from gateway_middleware.metering.journal.recovery import Appraise, adopt
from gateway_middleware.metering.journal.spool import Spool

_log = logging.getLogger(__name__)
_MEASURE_SECONDS = 1.0
_ADOPT_SECONDS = 10.0
_RECOUNT_SECONDS = 3600.0
_MARK_SECONDS = 600.0
_ANNOUNCED_SECONDS = 60.0
"""What was announced longer ago will not be settled: no request takes as long."""

OnFull: TypeAlias = Literal["reject", "drop_oldest"]


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of events that nobody takes.

    `cap` bounds the undelivered events; `on_full` says whether calls are then refused or the oldest events dropped.
    `keeps`: there is no sink, and events are kept for that many seconds; None: there is one.
    """

    cap: int
    on_full: OnFull
    keeps: float | None

    @property
    def rejects(self) -> bool:
        """Whether calls are refused where there are too many events."""
        return self.keeps is None and self.on_full == "reject"


class Housekeeping:
    """Looks after the spool. Everything blocks, and belongs to one thread.

    `trouble` says what could not be done at the last look. Counts are since the start of the process.
    """

    def __init__(
        self,
        spool: Spool,
        retention: Retention,
        *,
        wall: Clock,
        clock: Clock,
        appraise: Appraise | None,
        on_ends: OnEnds = lambda _: None,
    ) -> None:
        self.trouble: str | None = None
        self.dropped = 0
        self.damaged = 0
        self.orphaned = 0
        self._spool = spool
        self._clock = clock
        self._wall = wall
        self._retention = retention
        self._appraise = appraise
        self._on_ends = on_ends
        self._time = AgreedTime(wall=wall, clock=clock)
        self._due: dict[str, float] = {}

    def begin(self) -> None:
        """The first look: make the directory, and read the whole spool."""
        self._guarded(self._begin)

    def look(self) -> None:
        """Do what is due. Never raises: see `trouble`."""
        self._guarded(self._look)

    def end(self) -> None:
        """The last look."""
        if self._retention.keeps is not None:
            self._guarded(self._mark)

    def adopt(self) -> None:
        """Take in what other processes left when they died. Raises `sqlite3.Error` or OSError."""
        adopted = adopt(self._spool, appraise=self._appraise, on_ends=self._on_ends)
        self.orphaned += adopted.orphaned
        self.damaged += adopted.damaged
        if adopted.owners:
            self._spool.measure()

    def _begin(self) -> None:
        self._spool.path.parent.mkdir(parents=True, exist_ok=True)
        self._spool.check()
        self._time.anchor(self._spool.known_time())
        self._due = {"recount": self._clock() + _RECOUNT_SECONDS}
        self._look()

    def _look(self) -> None:
        if self._is_due("recount", _RECOUNT_SECONDS):
            self._spool.recount()
        if self._is_due("measure", _MEASURE_SECONDS):
            self._measure()
        if self._is_due("adopt", _ADOPT_SECONDS):
            self.adopt()
            self._spool.release(self._wall() - _ANNOUNCED_SECONDS)
        if not self._retention.rejects and self._spool.gauge.backlog > self._retention.cap:
            self.dropped += self._spool.shed(self._retention.cap)

    def _measure(self) -> None:
        self._spool.measure()
        keeps = self._retention.keeps
        if keeps is None:
            return
        if self._is_due("mark", _MARK_SECONDS):
            self._mark()
        oldest, before = self._spool.gauge.oldest, self._time() - keeps
        if oldest is not None and oldest < before:
            self.dropped += self._spool.expire(before)

    def _mark(self) -> None:
        self._spool.mark_time(self._time.steady)

    def _is_due(self, errand: str, seconds: float) -> bool:
        now = self._clock()
        if now < self._due.get(errand, 0.0):
            return False
        self._due[errand] = now + seconds
        return True

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
            self.trouble = None
        except Exception as error:  # noqa: BLE001 - the next look tries again, and `trouble` tells
            if self.trouble is None:
                _log.error("usage spool cannot be looked after: %r", error)
            self.trouble = f"the usage spool cannot be looked after: {error}"
