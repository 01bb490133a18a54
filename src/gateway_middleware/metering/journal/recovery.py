"""What dead processes left behind: settled calls are taken in, calls that never ended are billed by estimate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway_middleware.metering.journal.call_end import (
    CallEnd,
    EndKind,
    closed,
    decode_event,
    decode_open,
    orphaned,
    voided,
)
from gateway_middleware.metering.journal.segment import (
    CLOSE,
    OPEN,
    SUFFIX,
    Record,
    Segment,
    frame,
    owner_of,
    scan,
    segments_of,
)
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.journal.tables import Progress
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, crash_event

_log = logging.getLogger(__name__)
_decode_id = msgspec.json.Decoder(str).decode

Appraise = Callable[[UsageEvent], UsageEvent]
"""Puts a price on an event."""


class Recovered(NamedTuple):
    """What was taken in. `damaged` counts records that are kept in quarantine, unread."""

    owners: int = 0
    closed: int = 0
    orphaned: int = 0
    voided: int = 0
    damaged: int = 0


def adopt(spool: Spool, *, appraise: Appraise | None = None) -> Recovered:
    """Take in the segments of every process that has died. Raises `sqlite3.Error` or OSError; nothing is lost then."""
    total = Recovered()
    for owner in sorted({owner_of(path, spool.path) for path in segments_of(spool.path)}):
        segments = _claim(spool.path, owner)
        try:
            if segments:
                total = Recovered(*map(sum, zip(total, _recover(spool, owner, segments, appraise), strict=True)))
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


def _recover(spool: Spool, owner: str, segments: list[Segment], appraise: Appraise | None) -> Recovered:
    past = _Past()
    for segment in segments:
        past.read(segment)
    recovered = Recovered(damaged=past.damaged)
    if past.is_empty:
        return _swept(spool, owner, segments, recovered)
    progress = spool.progress(owner)
    if not progress.is_done:
        ends = past.ends(progress, appraise)
        spool.count(spool.fold(owner, ends, is_last=True).added)
        recovered = past.summary(ends)
        _log.warning("adopted the journal of a dead process: %s", recovered)
    return _swept(spool, owner, segments, recovered)


def _swept(spool: Spool, owner: str, segments: Iterable[Segment], recovered: Recovered) -> Recovered:
    for segment in segments:
        segment.discard()
    spool.forget(owner)
    return recovered


class _Past:
    """The records of one dead process, from all of its segments."""

    def __init__(self) -> None:
        self._opens: dict[str, OpenCall] = {}
        self._closes: dict[str, CallEnd] = {}
        self._voids: dict[str, int] = {}
        self.damaged = 0

    @property
    def is_empty(self) -> bool:
        return not (self._opens or self._closes or self._voids)

    def read(self, segment: Segment) -> None:
        """Take in what is whole, and keep the rest beside the segment."""
        records, damaged = scan(segment.read())
        for record in records:
            try:
                self._take(record)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                damaged.append(frame(*record).strip())
        if damaged:
            self.damaged += len(damaged)
            _quarantine(segment.path, damaged)

    def ends(self, progress: Progress, appraise: Appraise | None) -> list[CallEnd]:
        """What is not in the spool yet, in order, and an estimate for every call without an end."""
        closes = [end for end in self._closes.values() if (end.sequence or 0) > progress.sequence]
        voids = [
            voided(sequence, self._opens[call])
            for call, sequence in self._voids.items()
            if sequence > progress.sequence and call in self._opens
        ]
        ended = self._closes.keys() | self._voids.keys() | progress.settled
        lost = [crash_event(call) for key, call in self._opens.items() if key not in ended]
        return [*closes, *voids, *(orphaned(appraise(event) if appraise else event) for event in lost)]

    def summary(self, ends: list[CallEnd]) -> Recovered:
        kinds = [end.kind for end in ends]
        return Recovered(
            owners=1,
            closed=kinds.count(EndKind.CLOSED),
            orphaned=kinds.count(EndKind.ORPHANED),
            voided=kinds.count(EndKind.VOIDED),
            damaged=self.damaged,
        )

    def _take(self, record: Record) -> None:
        if record.kind == OPEN:
            call = decode_open(record.body)
            self._opens[call.id] = call
        elif record.kind == CLOSE:
            event = decode_event(record.body)
            self._closes.setdefault(event.id, closed(record.sequence, event, record.body))
        else:
            self._voids[_decode_id(record.body)] = record.sequence


def _quarantine(path: Path, damaged: list[bytes]) -> None:
    quarantine = path.with_name(path.name.removesuffix(SUFFIX) + ".quarantine")
    quarantine.touch(mode=0o600)
    quarantine.write_bytes(b"\n".join(damaged) + b"\n")
    _log.error("%d damaged records of the call journal are kept in %s", len(damaged), quarantine.name)
