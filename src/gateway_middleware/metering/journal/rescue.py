"""Writes anew what stands in a segment that somebody has deleted, and no keeper has taken in."""

from __future__ import annotations

from gateway_middleware.metering.journal.call_end import decode_open
from gateway_middleware.metering.journal.segment import OPEN, Record, Segment, frame, key_of, scan, whole
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.journal.tail import Calls


def write_anew(segment: Segment, spool: Spool, *, owner: str, after: int = 0, is_last: bool = False) -> int:
    """Write the ends that the spool does not have, with their entries, to a segment for the keeper.

    Records up to `after` are known to be elsewhere; returns up to which record they are now. Calls under way are
    written where this `is_last`; else whoever makes the next segment carries them. Raises `sqlite3.Error` or OSError.
    """
    records, _ = scan(whole(segment.read()))
    known = max(after, spool.progress(key_of(segment.path, spool.path)).sequence)
    lines = [frame(*record) for record in _missing(records, known, is_last=is_last)]
    if lines:
        fresh = Segment.create(spool.path, owner)
        try:
            fresh.append(b"".join(lines))
        except OSError:
            fresh.discard()
            raise
        fresh.close()
    return max([known, *(record.sequence for record in records)])


def _missing(records: list[Record], known: int, *, is_last: bool) -> list[Record]:
    calls = Calls()
    ends = {end.id: end.sequence or 0 for end in calls.read(records, [])}
    wanted = {name for name, sequence in ends.items() if sequence > known}
    if is_last:
        wanted |= calls.entries.keys() - ends.keys()
    return [
        record
        for record in records
        if (decode_open(record.body).id in wanted if record.kind == OPEN else record.sequence > known)
    ]
