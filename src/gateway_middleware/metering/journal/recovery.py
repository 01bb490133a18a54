"""What dead processes left behind: settled calls are taken in, calls that never ended are billed by estimate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway_middleware.metering.journal.call_end import CallEnd, EndKind, OnEnds, orphaned
from gateway_middleware.metering.journal.segment import (
    OPEN,
    Record,
    Segment,
    key_of,
    owner_of,
    quarantine,
    scan,
    segments_of,
)
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.journal.tables import Progress
from gateway_middleware.metering.journal.tail import Calls
from gateway_middleware.metering.usage_event import UsageEvent, crash_event

_log = logging.getLogger(__name__)

Appraise = Callable[[UsageEvent], UsageEvent]
"""Puts a price on an event."""


class Recovered(NamedTuple):
    """What was taken in. `damaged` counts records that are kept in quarantine, unread."""

    owners: int = 0
    closed: int = 0
    orphaned: int = 0
    voided: int = 0
    damaged: int = 0

    def __str__(self) -> str:
        calls = f"{self.closed} calls had ended, {self.orphaned} were cut off, {self.voided} used nothing"
        return f"{calls}; {self.damaged} damaged records"


def adopt(spool: Spool, *, appraise: Appraise | None = None, on_ends: OnEnds = lambda _: None) -> Recovered:
    """Take in the segments of every process that has died. Raises `sqlite3.Error` or OSError; nothing is lost then."""
    total = Recovered()
    for owner in sorted({owner_of(path, spool.path) for path in segments_of(spool.path)}):
        segments = _claim(spool.path, owner)
        try:
            if segments:
                total = Recovered(
                    *map(sum, zip(total, _recover(spool, owner, segments, appraise, on_ends), strict=True))
                )
        finally:
            for segment in segments:
                segment.close()
    return total


def _claim(spool: Path, owner: str) -> list[Segment]:
    """All segments of one owner, or none. Each is locked by its owner until it dies, so one lock tells of all."""
    claimed: list[Segment] = []
    for path in segments_of(spool, owner):
        segment = Segment.claim(path)
        if segment is None:
            break
        claimed.append(segment)
    if claimed and [segment.path for segment in claimed] == segments_of(spool, owner):
        return claimed
    for segment in claimed:
        segment.close()
    return []


def _recover(
    spool: Spool, owner: str, segments: list[Segment], appraise: Appraise | None, on_ends: OnEnds
) -> Recovered:
    past = _Past(spool, segments)
    progress = spool.progress(owner)
    recovered = Recovered(damaged=past.damaged)
    if not progress.is_done and not past.is_empty:
        ends = past.ends(progress, appraise)
        spool.count(spool.fold(owner, ends, is_last=True).added)
        on_ends(ends)
        recovered = past.summary(ends)
        level = logging.WARNING if recovered.orphaned or recovered.damaged else logging.INFO
        _log.log(level, "the journal of a process that has gone is taken in: %s", recovered)
    for segment in segments:
        segment.discard()
        spool.forget(key_of(segment.path, spool.path))
    spool.forget(owner)
    return recovered


class _Past:
    """The records of one process that is gone, from all of its segments."""

    def __init__(self, spool: Spool, segments: list[Segment]) -> None:
        self.damaged = 0
        self._spool = spool
        self._calls = Calls()
        self._ends: dict[str, tuple[CallEnd, int]] = {}
        """By the id of the call, with the last record of its segment that is in the spool already."""
        contents = [(segment, *scan(segment.read())) for segment in segments]
        for _, records, damaged in contents:  # an end may stand in another file than its beginning
            self._calls.read([record for record in records if record.kind == OPEN], damaged)
        for segment, records, damaged in contents:
            self._read_ends(segment, records, damaged)

    @property
    def is_empty(self) -> bool:
        return not (self._calls.entries or self._ends)

    def _read_ends(self, segment: Segment, records: list[Record], damaged: list[bytes]) -> None:
        """Take in how calls ended, and keep beside the segment what is not whole."""
        progress = self._spool.progress(key_of(segment.path, self._spool.path))
        for end in self._calls.read([record for record in records if record.kind != OPEN], damaged):
            self._ends.setdefault(end.id, (end, progress.sequence))
        if damaged:
            self.damaged += len(damaged)
            quarantine(segment.path, damaged)

    def ends(self, progress: Progress, appraise: Appraise | None) -> list[CallEnd]:
        """What is not in the spool yet, in order, and an estimate for every call without an end."""
        fresh = [end for end, reached in self._ends.values() if (end.sequence or 0) > max(reached, progress.sequence)]
        ended = self._ends.keys() | progress.settled
        lost = [crash_event(call) for key, call in self._calls.entries.items() if key not in ended]
        fresh.sort(key=lambda end: end.sequence or 0)
        return [*fresh, *(orphaned(appraise(event) if appraise else event) for event in lost)]

    def summary(self, ends: list[CallEnd]) -> Recovered:
        kinds = [end.kind for end in ends]
        return Recovered(
            owners=1,
            closed=kinds.count(EndKind.CLOSED),
            orphaned=kinds.count(EndKind.ORPHANED),
            voided=kinds.count(EndKind.VOIDED),
            damaged=self.damaged,
        )
