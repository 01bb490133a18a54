"""What other processes have ended: waited for until the spool has it, or their file is gone."""

from __future__ import annotations

from pathlib import Path

from gateway_middleware.metering.journal.beside import EndsBeside
from gateway_middleware.metering.journal.call_end import CallEnd, EndKind, encode
from gateway_middleware.metering.journal.segment import END, OPEN, VOID, Segment, frame, key_of
from gateway_middleware.metering.journal.spool import Spool


def segment_of(spool: Spool, owner: str, *kinds: bytes) -> Segment:
    """With one record of each of these kinds, from number 1 on."""
    segment = Segment.create(spool.path, owner)
    if kinds:
        segment.append(b"".join(frame(kind, number, encode("x")) for number, kind in enumerate(kinds, 1)))
    return segment


def taken(spool: Spool, segment: Segment, sequence: int) -> None:
    spool.fold(key_of(segment.path, spool.path), [CallEnd(sequence, EndKind.VOIDED, "c", "acme", 0.0)])


def test_ends_of_others_are_waited_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "journal.db")
    segment = segment_of(spool, "kother", OPEN, END, VOID, OPEN)
    segment_of(spool, "kmine", OPEN, END)
    ends = EndsBeside(spool, own="kmine")
    assert not ends.are_taken
    taken(spool, segment, 2)
    assert not ends.are_taken
    taken(spool, segment, 3)
    assert ends.are_taken


def test_where_nothing_has_ended_or_the_file_is_gone_nothing_is_waited_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "journal.db")
    segment_of(spool, "kfresh")
    segment_of(spool, "kbusy", OPEN)
    (tmp_path / "journal.db.kodd-0.open").mkdir()
    assert EndsBeside(spool, own="kmine").are_taken
    segment = segment_of(spool, "kother", OPEN, END)
    ends = EndsBeside(spool, own="kmine")
    segment.discard()
    assert ends.are_taken
