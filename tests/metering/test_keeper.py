"""A keeper beside the processes whose journals it keeps: what they leave to it, and what it tells them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clock import Clock
from gateway_middleware.metering.journal.housekeeping import Retention
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.keeper import Keeper
from gateway_middleware.metering.journal.keeper_status import KeeperStatus, read_status, status_path, write_status
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.journal.state import JournalUnavailableError
from journaled import call, event, leftovers, run, spooled, sums


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "usage.db"


@contextmanager
def keeping(path: Path, **options: Any) -> Iterator[Keeper]:
    clock = Clock()
    spool = Spool(path)
    retention = Retention(cap=1000, on_full="reject", keeps=None)
    keeper = Keeper(spool, retention, **{"wall": clock.wall, "clock": clock, **options})
    assert keeper.begin()
    try:
        yield keeper
    finally:
        keeper.close()


@contextmanager
def left_to_keeper(path: Path, **options: Any) -> Iterator[Journal]:
    journal = Journal(path, **{"keeper": "process", "commit_delay": 0.001, **options})
    journal.start()
    try:
        yield journal
    finally:
        journal.stop()


def told(path: Path, **fields: Any) -> None:
    write_status(path, KeeperStatus(**{"at": 1e12, "began": 0.0, **fields}))


def test_what_has_ended_is_in_the_spool_while_its_process_lives(path: Path) -> None:
    with keeping(path) as keeper, left_to_keeper(path) as journal:
        for name in ("a", "b", "c"):
            journal.open(call(name))
        journal.close(event("a"))
        journal.void("b")
        assert spooled(path) == []
        keeper.work()
        assert spooled(path) == [event("a")]
        assert (sums(path).closed, sums(path).voided) == (1, 1)
        journal.close(event("c"))
        keeper.work()
        keeper.work()
        assert [e.id for e in spooled(path)] == ["a", "c"]
        assert keeper.tally.orphaned == 0
    assert len(leftovers(path)) == 1


def test_a_process_that_has_gone_leaves_nothing_behind(path: Path) -> None:
    def appraise(crashed: Any) -> Any:
        return msgspec.structs.replace(crashed, cost="0.25")

    with keeping(path, appraise=appraise) as keeper:
        with left_to_keeper(path) as journal:
            journal.open(call("a"))
            journal.open(call("lost"))
            journal.close(event("a"))
        keeper.work()
        assert {(e.id, e.outcome, e.cost) for e in spooled(path)} == {
            ("a", "success", "0.1"), ("lost", "gateway_crash", "0.25")
        }  # fmt: skip
        assert (leftovers(path), keeper.tally.orphaned) == ([], 1)
        assert keeper.trouble is None


def test_files_that_get_no_further_record_are_removed_and_lose_no_call(path: Path) -> None:
    with keeping(path) as keeper:
        with left_to_keeper(path, segment_bytes=300) as journal:
            journal.open(call("long"))
            for number in range(20):
                journal.open(call(f"{number}"))
                journal.close(event(f"{number}"))
            assert len(leftovers(path)) > 5
            keeper.work()
            assert len([file for file in leftovers(path) if file.stat().st_size]) == 1
            journal.close(event("long"))
        keeper.work()
    assert sorted(e.id for e in spooled(path)) == sorted(["long", *map(str, range(20))])
    assert {e.outcome for e in spooled(path)} == {"success"}
    assert leftovers(path) == []


def test_the_next_keeper_takes_nothing_twice_though_it_was_delivered(path: Path) -> None:
    with left_to_keeper(path) as journal:
        with keeping(path) as keeper:
            for name in ("a", "b"):
                journal.open(call(name))
            journal.close(event("a"))
            keeper.work()
        spool = Spool(path)
        spool.delivered([e.id for e in spool.pending(9)])
        spool.close()
        journal.close(event("b"))
        with keeping(path) as keeper:
            keeper.work()
        assert [e.id for e in spooled(path)] == ["b"]
    with keeping(path) as keeper:
        keeper.work()
    assert [e.id for e in spooled(path)] == ["b"]
    assert sums(path).closed == 2


def test_there_is_one_keeper_at_a_time(path: Path) -> None:
    with keeping(path):
        other = Keeper(Spool(path), Retention(cap=9, on_full="reject", keeps=None), wall=Clock().wall, clock=Clock())
        assert not other.begin()
    assert other.begin()
    other.close()


def test_journals_that_keep_themselves_are_left_alone_until_they_die(path: Path) -> None:
    with keeping(path) as keeper:
        own = Journal(path, commit_delay=60.0)
        own.start()
        own.open(call("a"))
        own.close(event("a"))
        keeper.work()
        assert spooled(path) == []
        assert own.stop()
        assert [e.id for e in spooled(path)] == ["a"]


def test_an_empty_file_that_its_process_is_about_to_lock_is_no_harm(path: Path) -> None:
    with keeping(path) as keeper, left_to_keeper(path) as journal:
        journal.open(call("a"))
        fresh = path.with_name(f"{path.name}.{owner(path)}-0.open")
        fresh.touch()
        keeper.work()
        assert not fresh.exists()  # whoever locks it now makes another one
        journal.close(event("a"))
        keeper.work()
        assert [e.id for e in spooled(path)] == ["a"]


def owner(path: Path) -> str:
    return leftovers(path)[0].name.removeprefix(f"{path.name}.").partition("-")[0]


def test_a_damaged_record_costs_itself(path: Path) -> None:
    with keeping(path) as keeper, left_to_keeper(path) as journal:
        journal.open(call("a"))
        (file,) = [file for file in leftovers(path) if file.stat().st_size]
        segment = Segment.beside(file)
        assert segment is not None
        segment.append(b"\nnonsense\n")
        segment.close()
        journal.close(event("a"))
        keeper.work()
        assert [e.id for e in spooled(path)] == ["a"]
        assert keeper.tally.damaged == 1
        assert [quarantine.read_bytes() for quarantine in path.parent.glob("*.quarantine")] == [b"nonsense\n"]


def test_a_file_that_goes_away_while_it_is_followed_is_read_to_its_end(path: Path) -> None:
    with keeping(path) as keeper, left_to_keeper(path) as journal:
        journal.open(call("a"))
        keeper.work()
        journal.close(event("a"))
        keeper.work()
        for file in leftovers(path):
            file.unlink()
        keeper.work()
        assert [e.id for e in spooled(path)] == ["a"]


def delete_files(path: Path) -> None:
    for file in leftovers(path):
        file.unlink()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_files(path: Path, name: str) -> bool:
    return any(f'"{name}"'.encode() in file.read_bytes() for file in leftovers(path))


def test_what_has_ended_in_a_file_that_is_deleted_before_it_was_read_is_written_anew(path: Path) -> None:
    """And what the keeper has, and has delivered, is not; nor is a call that has ended taken for one that was lost."""
    with keeping(path) as keeper:
        with left_to_keeper(path) as journal:
            for name in ("old", "new", "void", "open"):
                journal.open(call(name))
            journal.close(event("old"))
            keeper.work()
            spool = Spool(path)
            spool.delivered(["old"])
            spool.close()
            journal.close(event("new"))
            journal.void("void")
            delete_files(path)
            wait_for(lambda: in_files(path, "new") and in_files(path, "open"))
            assert not in_files(path, "old")
            keeper.work()
            assert [e.id for e in spooled(path)] == ["new"]
            journal.close(event("open"))
            keeper.work()
            keeper.work()
        keeper.work()
        assert sorted((e.id, e.outcome) for e in spooled(path)) == [("new", "success"), ("open", "success")]
        assert (sums(path).closed, sums(path).voided, keeper.tally.orphaned) == (3, 1, 0)
        assert leftovers(path) == []


def test_a_file_that_is_deleted_while_its_process_ends_is_written_anew(path: Path) -> None:
    with left_to_keeper(path) as journal:
        journal.open(call("a"))
        journal.close(event("a"))
        journal.open(call("b"))
        delete_files(path)
    with keeping(path) as keeper:
        keeper.work()
        assert {e.id: e.outcome for e in spooled(path)} == {"a": "success", "b": "gateway_crash"}
        assert leftovers(path) == []


def test_a_worker_that_dies_after_a_deletion_loses_and_doubles_nothing(path: Path) -> None:
    process = run(DELETED_UNREAD, path)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    with keeping(path) as keeper:
        keeper.work()
        assert {e.id: e.outcome for e in spooled(path)} == {"a": "success", "b": "gateway_crash", "c": "success"}
        assert (len(spooled(path)), leftovers(path)) == (3, [])


DELETED_UNREAD = """
path = Path(sys.argv[1])
journal = Journal(path, commit_delay=0.001, keeper="process")
journal.start()
for name in ("a", "b"):
    journal.open(call(name))
journal.close(event("a"))
for file in path.parent.glob("*.open"):
    file.unlink()
journal.open(call("c"))
journal.close(event("c"))
deadline = time.monotonic() + 10
while not all(any(b'"%b"' % n in f.read_bytes() for f in path.parent.glob("*.open")) for n in (b"a", b"b", b"c")):
    assert time.monotonic() < deadline
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


# What a process learns from the keeper of its journal.


def test_the_keepers_word_is_the_gauge_and_says_how_far_it_is(path: Path) -> None:
    with left_to_keeper(path, cap=10) as journal:
        assert journal.keeper_status is None
        for number in range(4):
            journal.open(call(f"{number}"))
            journal.close(event(f"{number}"))
        assert journal.waiting == 4
        told(path, reached={owner(path): 4}, backlog=7, oldest=1.0, dropped=3, damaged=2, quarantined=1)
        assert journal.flush(0.05) is False  # two of them are still on their way
        assert journal.waiting == 2
        assert (journal.spool.backlog, journal.losses.dropped, journal.losses.damaged) == (7, 3, 2)
        assert journal.losses.quarantined == 1
        assert journal.state.status == "degraded"
        journal.open(call("one more"))
        with pytest.raises(JournalUnavailableError, match="full"):
            journal.open(call("too many"))
        told(path, reached={owner(path): 8}, backlog=0)
        assert journal.flush()
        assert (journal.waiting, journal.state.status) == (0, "ok")


def test_a_keeper_that_is_silent_or_in_trouble_is_told(path: Path) -> None:
    clock = Clock()
    with left_to_keeper(path, wall=clock.wall, clock=clock) as journal:
        assert not journal.is_degraded
        clock.advance(11.0)
        assert journal.state.reason == "the keeper of the usage spool has been silent for 11 s"
        told(path, at=clock.wall(), trouble="no room")
        journal.flush()
        assert journal.state.reason == "no room"
        journal.open(call("a"))  # it is on disk, whoever keeps it
        told(path, at=clock.wall())
        journal.flush(0.1)
        assert not journal.is_degraded


@pytest.mark.parametrize("step", [86_400.0, -86_400.0])
def test_lc14_no_step_of_the_time_of_day_makes_or_hides_a_silence(path: Path, step: float) -> None:
    clock = Clock()
    with left_to_keeper(path, wall=clock.wall, clock=clock) as journal:
        told(path, at=clock.wall())
        journal.flush(0.1)
        clock.step(step)
        standings = [journal.state.status]
        clock.advance(11.0)
        standings.append(journal.state.status)
        told(path, at=clock.wall())
        journal.flush(0.1)
        standings.append(journal.state.status)
    assert standings == ["ok", "degraded", "ok"]


def test_a_status_that_cannot_be_read_is_none(path: Path) -> None:
    assert read_status(path) is None
    path.parent.mkdir()
    told(path, backlog=1)
    status = read_status(path)
    assert status is not None
    assert status.backlog == 1
    status_path(path).write_bytes(b"{")
    assert read_status(path) is None
