"""What is found on the disk after the worst: nothing intact is lost, nothing is counted twice."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.metering.journal.call_end import closed, encode
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.recovery import Recovered, adopt
from gateway_middleware.metering.journal.salvage import copy_of, salvage
from gateway_middleware.metering.journal.segment import CLOSE, OPEN, VOID, Record, Segment, frame, scan
from gateway_middleware.metering.journal.spool import Gauge, Spool
from gateway_middleware.metering.journal.state import JournalCounts
from gateway_middleware.metering.journal.tables import Folded
from journaled import DAY, NOON, call, event, leftovers, sums, usage_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def records() -> list[bytes]:
    """Three calls: one closed, one void, one that never ended."""
    return [
        frame(OPEN, 1, encode(call("closed"))),
        frame(OPEN, 2, encode(call("void"))),
        frame(OPEN, 3, encode(call("lost"))),
        frame(CLOSE, 4, encode(event("closed"))),
        frame(VOID, 5, encode("void")),
    ]


def left_behind(path: Path, content: bytes, owner: str = "dead") -> Path:
    segment = Segment.create(path, owner)
    segment.append(content)
    segment.close()
    return segment.path


def recovered(path: Path) -> tuple[Recovered, dict[str, str]]:
    spool = Spool(path)
    try:
        return adopt(spool), {e.id: e.outcome for e in usage_of(spool)}
    finally:
        spool.close()


def test_every_call_of_a_dead_process_ends_once(path: Path) -> None:
    left_behind(path, b"".join(records()))
    found, events = recovered(path)
    assert found == Recovered(owners=1, closed=1, orphaned=1, voided=1)
    assert events == {"closed": "success", "lost": "gateway_crash"}
    total = sums(path)
    assert (total.closed, total.orphaned, total.voided, total.input_tokens) == (1, 1, 1, 17)
    assert leftovers(path) == []
    assert recovered(path)[0] == Recovered()


def test_a_segment_cut_at_any_byte_of_its_last_records_keeps_every_whole_record(path: Path) -> None:
    content = b"".join(records())
    spool = Spool(path, synchronous="NORMAL")
    for cut in range(len(b"".join(records()[:2])), len(content)):
        segment = left_behind(path, content[:cut], f"dead{cut}")
        found = adopt(spool)
        events = {e.id: e.outcome for e in usage_of(spool)}
        spool.delivered(list(events))
        assert (events, found.damaged) == expected(cut), cut
        assert segment.with_name(segment.name.replace(".open", ".quarantine")).exists() == found.damaged
    spool.close()
    assert leftovers(path) == []


def expected(cut: int) -> tuple[dict[str, str], int]:
    ends = list(itertools.accumulate(map(len, records())))
    whole = sum(end - 1 <= cut for end in ends)  # a record is whole without its last newline
    events = dict.fromkeys(["closed", "void", "lost"][:whole], "gateway_crash")
    if whole >= 4:
        events["closed"] = "success"
    if whole >= 5:
        del events["void"]
    return events, int(cut - [0, *ends][whole] > 1)


def test_a_flipped_bit_costs_one_record_at_most() -> None:
    chance = random.Random(7)
    written = [Record(OPEN, n, encode(call(f"{n}"))) for n in range(1, 40)]
    content = b"".join(frame(*record) for record in written)
    for _ in range(1500):
        broken = bytearray(content)
        broken[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        intact, damaged = scan(bytes(broken))
        assert len(intact) >= len(written) - 1
        assert set(intact) <= set(written)
        assert len(damaged) <= 2


@given(st.lists(st.tuples(st.sampled_from([OPEN, CLOSE, VOID]), st.integers(0, 2**70), st.binary())))
def test_what_was_framed_is_scanned(parts: list[tuple[bytes, int, bytes]]) -> None:
    written = [Record(kind, sequence, body.replace(b"\n", b"")) for kind, sequence, body in parts]
    assert scan(b"".join(frame(*record) for record in written)) == (written, [])


@pytest.mark.parametrize("payload", [b"x1 1", b"o 1", b"o1x 1", b"", b"o"])
def test_a_line_that_is_whole_and_no_record_is_damaged(payload: bytes) -> None:
    line = b"%08x %b" % (crc32(payload), payload)
    assert scan(b"\n" + line + b"\n") == ([], [line])


def test_a_segment_that_another_process_took_is_not_claimed(path: Path) -> None:
    assert Segment.claim(path) is None
    living = Segment.create(path, "one")
    assert Segment.claim(living.path) is None
    living.discard()


def test_a_process_of_which_one_segment_is_still_locked_is_left_alone(path: Path) -> None:
    left_behind(path, b"".join(records()))
    locked = Segment.create(path, "dead")
    assert recovered(path)[0] == Recovered()
    locked.close()
    assert recovered(path)[0].owners == 1


@given(st.binary())
def test_no_garbage_is_taken_for_a_record(garbage: bytes) -> None:
    intact, damaged = scan(garbage)
    assert intact == []
    assert damaged == [line for line in garbage.split(b"\n") if line not in {b"", b"."}]


def test_a_whole_record_that_means_nothing_is_quarantined(path: Path) -> None:
    left_behind(path, frame(OPEN, 1, b'{"id": 5}') + frame(CLOSE, 2, b"\xff") + frame(OPEN, 3, encode(call("good"))))
    found, events = recovered(path)
    assert found.damaged == 2
    assert events == {"good": "gateway_crash"}
    (kept,) = path.parent.glob("*.quarantine")
    assert kept.read_bytes().count(b"\n") == 2
    assert leftovers(path) == []


def test_delivered_events_do_not_come_back_with_their_segment(path: Path) -> None:
    left_behind(path, b"".join(records()))
    spool = Spool(path)
    spool.fold("dead", [closed(4, event("closed"), encode(event("closed")))])
    spool.delivered(["closed"])
    assert adopt(spool) == Recovered(owners=1, orphaned=1, voided=1)
    assert [e.id for e in spool.pending(9)] == ["lost"]
    spool.close()
    assert sums(path).closed == 1


def test_an_end_that_could_only_be_written_to_the_spool_counts(path: Path) -> None:
    left_behind(path, b"".join(records()))
    spool = Spool(path)
    spool.fold("dead", [closed(None, event("lost"), encode(event("lost")))])
    spool.delivered(["lost"])
    assert adopt(spool) == Recovered(owners=1, closed=1, voided=1)
    assert [e.id for e in spool.pending(9)] == ["closed"]
    spool.close()


def test_a_recovery_that_died_before_it_swept_is_not_done_twice(path: Path) -> None:
    segment = left_behind(path, b"".join(records()))
    copy = segment.read_bytes()
    spool = Spool(path)
    spool.fold("dead", [], is_last=True)
    segment.write_bytes(copy)
    assert adopt(spool) == Recovered()
    assert spool.pending(9) == []
    assert leftovers(path) == []
    spool.close()


def test_what_a_process_folds_after_it_was_declared_dead_is_not_taken(path: Path) -> None:
    spool = Spool(path)
    spool.fold("dead", [], is_last=True)
    assert spool.fold("dead", [closed(1, event("late"), encode(event("late")))]) == Folded(0, 0)
    assert spool.pending(9) == []
    spool.close()


def test_an_event_that_is_there_is_known_the_second_time(path: Path) -> None:
    spool = Spool(path)
    end = closed(None, event("a"), encode(event("a")))
    assert spool.fold("w", [end]) == Folded(1, 0)
    assert spool.fold("w", [end]) == Folded(0, 1)
    assert spool.measure().backlog == 1
    spool.close()


def test_segments_of_one_process_are_read_together(path: Path) -> None:
    opens, ends = records()[:3], records()[3:]
    left_behind(path, b"".join(opens))
    left_behind(path, b"".join([opens[0], opens[2], *ends]))
    assert recovered(path)[1] == {"closed": "success", "lost": "gateway_crash"}


def test_segments_of_the_living_are_left_alone(path: Path) -> None:
    living = Journal(path)
    living.start()
    living.open(call("a"))
    assert recovered(path)[0] == Recovered()
    living.close(event("a"))
    assert living.stop()
    assert recovered(path)[1] == {"a": "success"}


def test_a_living_worker_adopts_a_dead_one(path: Path) -> None:
    living = Journal(path)
    living.start()
    left_behind(path, b"".join(records()))
    living.adopt()
    assert living.counts == JournalCounts(admitted=1, orphaned=1)
    assert living.spool.gauge == Gauge(backlog=2, oldest=NOON, dead_letters=0)
    living.stop()


def filled(path: Path, count: int) -> None:
    spool = Spool(path)
    for start in range(0, count, 100):
        names = [f"{n:06}" for n in range(start, min(count, start + 100))]
        spool.fold("writer", [closed(None, event(name), encode(event(name))) for name in names])
    spool.close()


def started(path: Path) -> tuple[Journal, set[str]]:
    journal = Journal(path)
    journal.start()
    assert journal.state.status == "ok"
    journal.open(call("new"))
    journal.close(event("new"))
    assert journal.stop()
    events = {e.id for e in journal.spool.pending(100_000)}
    journal.spool.close()
    assert "new" in events
    return journal, events - {"new"}


@pytest.mark.parametrize("header", [b"", b"garbage", b"garbage" * 5000])
def test_a_spool_that_is_no_database_is_moved_aside(path: Path, header: bytes) -> None:
    path.write_bytes(header)
    journal, events = started(path)
    assert events == set()
    kept = list(path.parent.glob("usage.db.*.quarantine"))
    assert [file.read_bytes() for file in kept] == ([header] if header else [])
    assert journal.spool.quarantined == len(kept)


def test_a_spool_cut_at_any_place_of_its_last_page_starts(path: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    filled(whole, 300)
    size = whole.stat().st_size
    for cut in [*range(size - 4096, size, 512), size - 1]:
        shutil.copy(whole, path)
        with path.open("r+b") as file:
            file.truncate(cut)
        _, events = started(path)
        assert len(events) >= 250, cut
        for litter in tmp_path.glob("usage.db*"):
            litter.unlink()


def test_a_spool_with_flipped_bits_starts_and_keeps_what_is_readable(path: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    filled(whole, 300)
    chance = random.Random(11)
    kept = []
    for _ in range(30):
        content = bytearray(whole.read_bytes())
        for _ in range(3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        kept.append(len(started(path)[1]))
        for litter in tmp_path.glob("usage.db*"):
            litter.unlink()
    assert sum(kept) > 0.9 * 300 * len(kept)


@pytest.mark.parametrize("offset", [0, 3, 16, 18, 28, 45, 57, 100, 105, 3700, 4000])
def test_a_broken_first_page_never_keeps_a_gateway_from_starting(path: Path, offset: int) -> None:
    filled(path, 300)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x55
    path.write_bytes(content)
    journal, events = started(path)
    if len(events) < 300:  # the schema is torn: the file lies aside, whole
        (aside,) = path.parent.glob("usage.db.*.quarantine")
        assert aside.stat().st_size == len(content)
    assert journal.losses.quarantined <= 1
    assert list(path.parent.glob("*.salvage*")) == []


def test_a_broken_row_becomes_a_dead_letter(path: Path) -> None:
    filled(path, 3)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET body = ? WHERE id = '000000'", (b'{"id":',))
    connection.close()
    spool = Spool(path)
    assert [e.id for e in spool.pending(1)] == ["000001"]
    assert spool.measure().dead_letters == 1
    spool.close()


def test_a_stale_shared_memory_file_is_no_harm(path: Path) -> None:
    filled(path, 50)
    spool = Spool(path)
    spool.fold("writer", [closed(None, event("in wal"), encode(event("in wal")))])
    left = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{left}{suffix}")
    spool.close()
    Path(f"{left}-shm").write_bytes(random.Random(3).randbytes(32768))
    assert len(started(left)[1]) == 51


def test_corruption_while_running_is_survived_by_every_worker(path: Path) -> None:
    filled(path, 200)
    one, other = Journal(path), Journal(path)
    for number, journal in enumerate((one, other)):
        journal.start()
        journal.open(call(f"before {number}"))
        journal.close(event(f"before {number}"))
        assert journal.flush()
    one.spool.close()
    other.spool.close()
    content = bytearray(path.read_bytes())
    content[4096:12288] = bytes(8192)
    other.spool.measure()
    path.write_bytes(content)
    for number, journal in enumerate((one, other)):
        journal.open(call(f"after {number}"))
        journal.close(event(f"after {number}"))
        assert journal.flush()
        journal.spool.check()
    assert one.spool.quarantined + other.spool.quarantined == 1
    assert {"after 0", "after 1"} <= {e.id for e in usage_of(one.spool)}
    for journal in (one, other):
        assert journal.stop()


def test_very_many_calls_are_recovered_in_one_step(path: Path) -> None:
    names = [f"{n}" for n in range(20_000)]
    content = b"".join(
        frame(OPEN, n, encode(call(name))) + frame(CLOSE, n, encode(event(name))) for n, name in enumerate(names, 1)
    )
    left_behind(path, content)
    found, _ = recovered(path)
    assert found.closed == len(names)
    total = sums(path)
    assert (total.closed, total.cost) == (20_000, "2000.0")


def test_totals_survive_a_corrupt_spool(path: Path) -> None:
    filled(path, 100)
    content = bytearray(path.read_bytes())
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()
    connection.close()
    content[(root - 1) * 4096 : root * 4096] = bytes(4096)
    path.write_bytes(content)
    started(path)
    total = sums(path)
    assert (total.day, total.closed, total.input_tokens) == (DAY.isoformat(), 101, 1010)


def test_prices_of_a_crash_come_from_the_caller(path: Path) -> None:
    left_behind(path, b"".join(records()))
    spool = Spool(path)
    adopt(spool, appraise=lambda e: msgspec.structs.replace(e, cost="2.5", price_version="p1"))
    assert {(e.id, e.cost, e.time) for e in usage_of(spool)} == {("closed", "0.1", NOON), ("lost", "2.5", NOON)}
    spool.close()


def test_a_row_that_the_tables_of_today_refuse_is_passed_over(path: Path) -> None:
    filled(path, 3)
    with closing_connection(path) as db:
        db.execute("ALTER TABLE events RENAME TO old")
        db.execute("CREATE TABLE events (seq, id, time, body)")
        db.execute("INSERT INTO events SELECT * FROM old")
        db.execute("INSERT INTO events VALUES (99, NULL, 0, ''), ('no number', 'x', 0, '')")
    copy = copy_of(path)
    fresh = Spool(path.with_name("fresh.db"))
    fresh.measure()
    with closing_connection(fresh.path) as db:
        assert salvage(copy, db) >= 3
    assert fresh.measure().backlog == 3
    fresh.close()


def test_an_error_that_is_not_the_files_is_raised(path: Path) -> None:
    spool = Spool(path)
    spool.measure()
    with closing_connection(path) as db:
        db.execute("DROP TABLE totals")
    with pytest.raises(sqlite3.OperationalError, match="totals"):
        spool.reconcile(DAY, DAY)
    spool.close()


@contextmanager
def closing_connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
