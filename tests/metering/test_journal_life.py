"""Start, stop and what goes wrong in between: nothing is left open, nothing is deleted by mistake."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import EPOCH, Clock
from gateway_middleware.metering.journal.agreed_time import AgreedTime
from gateway_middleware.metering.journal.call_end import CallEnd, closed, encode
from gateway_middleware.metering.journal.housekeeping import Housekeeping, Retention
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.metering.journal.segment_log import SegmentLog
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.journal.state import JournalCounts, JournalUnavailableError
from gateway_middleware.metering.journal.turn import Draft
from gateway_middleware.metering.usage_event import UsageEvent
from journaled import call, event, leftovers, run, spooled

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "usage.db"


def still_open(path: Path) -> list[str]:
    """Descriptors below the directory of a journal, and its threads."""
    places = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            places.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    below = [place for place in places if place.startswith(str(path.parent.parent))]
    return below + [thread.name for thread in threading.enumerate() if thread.name == "usage-journal"]


@contextmanager
def nothing_left_open(path: Path) -> Iterator[None]:
    assert still_open(path) == []
    yield
    assert still_open(path) == []


def test_a_whole_life(path: Path) -> None:
    with nothing_left_open(path):
        journal = Journal(path, keeps=100.0)
        journal.start()
        journal.open(call("a"))
        journal.close(event("a"))
        assert len(still_open(path)) >= 4
        assert journal.stop()


def test_stopping_twice_or_without_a_start_is_no_harm(path: Path) -> None:
    with nothing_left_open(path):
        Journal(path).stop()
        assert not path.exists()
        journal = Journal(path)
        journal.start()
        journal.start()
        assert journal.stop()
        assert journal.stop()


def test_a_start_that_fails_leaves_nothing_open_and_can_be_tried_again(path: Path) -> None:
    journal = Journal(path)
    with nothing_left_open(path):
        before = threading.stack_size(1 << 46)  # more than there is: no thread can be started
        try:
            with pytest.raises(RuntimeError, match="thread"):
                journal.start()
        finally:
            threading.stack_size(before)
        with pytest.raises(JournalUnavailableError, match="stopped"):
            journal.open(call("a"))
    with nothing_left_open(path):
        journal.start()
        journal.open(call("b"))
        journal.close(event("b"))
        assert journal.stop()
    assert [e.id for e in spooled(path)] == ["b"]


def test_a_stop_that_fails_leaves_nothing_open_and_loses_nothing(path: Path) -> None:
    with nothing_left_open(path):
        journal = Journal(path, keeps=100.0, commit_delay=60.0)
        journal.start()
        for name in ("a", "b"):
            journal.open(call(name))
        journal.close(event("a"))
        path.parent.rename(path.parent.with_name("elsewhere"))
        path.parent.write_bytes(b"in the way")
        assert not journal.stop()
        assert not journal.stop()
    path.parent.unlink()
    path.parent.with_name("elsewhere").rename(path.parent)
    heir = Journal(path)
    heir.start()
    assert heir.stop()
    assert [(e.id, e.outcome) for e in spooled(path)] == [("a", "success"), ("b", "gateway_crash")]


def test_a_journal_can_be_started_again(path: Path) -> None:
    journal = Journal(path)
    for name in ("a", "b"):
        with nothing_left_open(path):
            journal.start()
            journal.open(call(name))
            journal.close(event(name))
            journal.open(call(f"{name} for ever"))
            assert journal.stop()
    journal.start()
    assert journal.counts == JournalCounts(admitted=4, closed=2, orphaned=2)
    assert journal.stop()
    assert {e.id for e in spooled(path)} == {"a", "a for ever", "b", "b for ever"}


@pytest.mark.anyio
async def test_it_is_entered_and_left(path: Path) -> None:
    with nothing_left_open(path):
        async with Journal(path) as journal:
            journal.open(call("a"))
            journal.void("a")
        async with journal.lifespan():
            assert journal.state.status == "ok"
        with pytest.raises(JournalUnavailableError):
            journal.open(call("b"))


@pytest.mark.anyio
async def test_an_entrance_that_is_cancelled_leaves_nothing_open(path: Path) -> None:
    with nothing_left_open(path):
        entering = asyncio.create_task(Journal(path).__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering


def test_a_spool_whose_directory_is_gone_is_closed(path: Path) -> None:
    path.parent.mkdir()
    with nothing_left_open(path):
        spool = Spool(path)
        spool.measure()
        spool.pending(1)
        path.parent.rename(path.parent.with_name("elsewhere"))
        spool.close()
        spool.close()


# Files that somebody deletes.

DELETED = """
path = Path(sys.argv[1])
journal = Journal(path, commit_delay=0.001)
journal.start()
for name in ("a", "b"):
    journal.open(call(name))
before = list(path.parent.glob("*.open"))
for file in before:
    file.unlink()
deadline = time.monotonic() + 10
while not any(file.stat().st_size for file in path.parent.glob("*.open") if file not in before):
    assert time.monotonic() < deadline
    time.sleep(0.01)
if sys.argv[2] == "busy":
    journal.close(event("a"))
    journal.open(call("c"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("idle", {"a": "gateway_crash", "b": "gateway_crash"}),
        ("busy", {"a": "success", "b": "gateway_crash", "c": "gateway_crash"}),
    ],
)
def test_a_segment_that_is_deleted_is_written_anew(path: Path, then: str, expected: dict[str, str]) -> None:
    process = run(DELETED, path, then)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    with Journal_started(path):
        pass
    assert {e.id: e.outcome for e in spooled(path)} == expected


@contextmanager
def Journal_started(path: Path) -> Iterator[Journal]:  # noqa: N802
    journal = Journal(path)
    journal.start()
    try:
        yield journal
    finally:
        assert journal.stop()


def segments_at(path: Path, clock: Clock, carried: list[bytes], **options: Any) -> SegmentLog:
    path.parent.mkdir(parents=True, exist_ok=True)
    segments = SegmentLog(
        path,
        clock=clock,
        **{"segment_bytes": 1000, "segment_seconds": 60.0, "retire": lambda old: old.discard(), **options},
        carry=lambda: b"".join(carried),
    )
    segments.owner = "owner"
    return segments


def end(segments: SegmentLog, *, is_finished: bool) -> None:
    """Remove the file in use, or leave it to others."""
    current = segments.take_current()
    assert current is not None
    if is_finished:
        current.discard()
    else:
        current.close()


def test_a_directory_that_is_deleted_is_made_again(path: Path) -> None:
    segments = segments_at(path, Clock(), [b"\ncarried\n"])
    segments.repair()
    segments.keep_ready()
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    segments.keep_ready()
    assert [file.read_bytes() for file in leftovers(path)] == [b"\ncarried\n\n.\n"]
    assert segments.append([Draft(b"v", b'"x"')]) is not None
    (kept,) = leftovers(path)
    assert b'v1 "x"' in kept.read_bytes()
    end(segments, is_finished=True)
    assert leftovers(path) == []


def takes_no_calls(segments: SegmentLog) -> bool:
    return segments.fault is not None


def test_a_deleted_segment_that_cannot_be_replaced_refuses_calls_until_it_can(path: Path) -> None:
    segments = segments_at(path, Clock(), [])
    segments.repair()
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.write_bytes(b"in the way")
    with pytest.raises(FileExistsError):
        segments.keep_ready()
    assert segments.append([Draft(b"o", b"1")]) is None
    assert takes_no_calls(segments)
    segments.repair()
    assert takes_no_calls(segments)
    path.parent.unlink()
    path.parent.mkdir()
    segments.keep_ready()
    segments.repair()
    assert not takes_no_calls(segments)
    assert segments.append([Draft(b"o", b"1")]) is not None
    end(segments, is_finished=False)
    assert len(leftovers(path)) == 1


def test_a_segment_that_cannot_be_rotated_goes_on(path: Path) -> None:
    clock = Clock()
    retired: list[Segment] = []
    segments = segments_at(path, clock, [], retire=retired.append)
    segments.repair()
    clock.advance(61.0)
    path.parent.rename(path.parent.with_name("elsewhere"))
    assert segments.append([Draft(b"o", b"1")]) is not None
    assert retired == []
    path.parent.with_name("elsewhere").rename(path.parent)
    clock.advance(1.0)
    assert segments.append([Draft(b"o", b"2")]) is not None
    assert len(retired) == 1
    retired[0].close()
    end(segments, is_finished=True)


# A clock that jumps.


def test_agreed_time_follows_the_slower_of_both_clocks() -> None:
    clock, jump = Clock(), [0.0]
    agreed = AgreedTime(wall=lambda: clock.wall() + jump[0], clock=clock)
    assert agreed() == EPOCH
    jump[0] = 400 * DAY
    clock.advance(5.0)
    assert agreed() == EPOCH + 5.0
    jump[0] = -400 * DAY
    assert agreed() == EPOCH + 5.0 - 400 * DAY
    assert agreed.steady == EPOCH + 5.0
    agreed.anchor(None)
    assert agreed() == EPOCH + 5.0 - 400 * DAY
    jump[0] = 0.0
    agreed.anchor(EPOCH + 3.0)
    assert agreed() == EPOCH + 3.0


class House:
    """Housekeeping of a spool whose wall clock can jump."""

    def __init__(self, path: Path, *, jump: float = 0.0, **options: Any) -> None:
        self.clock, self.jump = Clock(), jump
        self.spool = Spool(path)
        self.keeper = Housekeeping(
            self.spool,
            Retention(**{"cap": 1000, "on_full": "reject", "keeps": 100.0, **options}),
            wall=lambda: self.clock.wall() + self.jump,
            clock=self.clock,
            appraise=None,
        )
        self.keeper.begin()

    def after(self, seconds: float) -> int:
        """How many events there are."""
        self.clock.advance(seconds)
        self.keeper.look()
        assert self.keeper.trouble is None
        return self.spool.measure().backlog

    def close(self) -> None:
        self.keeper.end()
        self.spool.close()


def ends(*names: str, at: float) -> list[CallEnd]:
    return [closed(None, event(name, time=at), encode(event(name, time=at))) for name in names]


def test_a_clock_that_jumps_deletes_nothing(path: Path) -> None:
    house = House(path)
    house.spool.fold("w", ends("a", "b", at=EPOCH))
    house.jump = 400 * DAY
    assert house.after(50.0) == 2
    assert house.after(49.0) == 2
    house.jump = -400 * DAY
    assert house.after(60.0) == 2
    house.jump = 0.0
    assert house.after(1.0) == 0
    assert house.keeper.dropped == 2
    house.close()


def test_a_clock_that_jumped_while_no_process_ran_deletes_nothing(path: Path) -> None:
    house = House(path)
    house.spool.fold("w", ends("a", at=EPOCH))
    assert house.after(30.0) == 1
    house.close()
    heir = House(path, jump=400 * DAY)
    assert heir.after(60.0) == 1
    assert heir.after(15.0) == 0
    heir.close()


def test_events_of_an_older_version_are_as_old_as_the_newest_of_them(path: Path) -> None:
    path.parent.mkdir()
    spool = Spool(path)
    spool.fold("w", ends("a", at=EPOCH - 50.0))
    spool.fold("w", ends("b", at=EPOCH))
    spool.close()
    house = House(path, jump=400 * DAY)
    assert house.after(49.0) == 2
    assert house.after(2.0) == 1
    assert house.after(50.0) == 0
    house.close()


def test_thousands_that_are_too_old_go_at_once(path: Path) -> None:
    house = House(path, cap=100_000)
    house.spool.fold("w", ends(*(f"old {n}" for n in range(1500)), at=EPOCH))
    house.spool.fold("w", ends("new", at=EPOCH + 90.0))
    assert house.after(101.0) == 1
    assert house.keeper.dropped == 1500
    house.close()


@pytest.mark.parametrize("options", [{"on_full": "drop_oldest", "keeps": None}, {"keeps": 1e9}])
def test_what_is_too_much_goes_oldest_first(path: Path, options: dict[str, Any]) -> None:
    house = House(path, cap=2, **options)
    house.spool.fold("w", ends("a", "b", "c", at=EPOCH))
    assert house.after(1.0) == 2
    assert [e.id for e in house.spool.pending(9)] == ["b", "c"]
    assert house.keeper.dropped == 1
    house.close()


def test_what_a_sink_has_yet_to_get_is_never_dropped(path: Path) -> None:
    house = House(path, cap=2, keeps=None)
    house.spool.fold("w", ends("a", "b", "c", at=EPOCH))
    assert house.after(400 * DAY) == 3
    house.close()


def test_trouble_is_told_and_ends(path: Path) -> None:
    house = House(path)
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.write_bytes(b"in the way")
    house.clock.advance(2.0)
    house.keeper.look()
    assert house.keeper.trouble is not None
    path.parent.unlink()
    path.parent.with_name("elsewhere").rename(path.parent)
    assert house.after(2.0) == 0
    house.close()


# The count of events.


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_count_is_that_of_the_rows_whatever_is_done(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    spool = Spool(tmp_path_factory.mktemp("count") / "usage.db", synchronous="NORMAL")
    names = st.sampled_from([f"{n}" for n in range(8)])

    def expected() -> tuple[int, int]:
        with closing(sqlite3.connect(spool.path)) as db:
            events, dead = db.execute("SELECT (SELECT COUNT(*) FROM events), (SELECT COUNT(*) FROM dead)").fetchone()
            return events, dead

    for _ in range(data.draw(st.integers(1, 12))):
        step: Callable[[], Any] = data.draw(
            st.sampled_from(
                [
                    lambda: spool.fold("w", ends(*data.draw(st.lists(names)), at=float(data.draw(st.integers(1, 9))))),
                    lambda: spool.delivered(data.draw(st.lists(names))),
                    lambda: spool.dead(data.draw(names), "no"),
                    lambda: spool.shed(data.draw(st.integers(0, 9))),
                    lambda: spool.expire(float(data.draw(st.integers(1, 9)))),
                    spool.recount,
                ]
            )
        )
        step()
        gauge = spool.measure()
        assert (gauge.backlog, gauge.dead_letters) == expected()
    spool.close()


def test_a_spool_of_an_older_version_is_counted(path: Path) -> None:
    path.parent.mkdir()
    spool = Spool(path)
    spool.fold("w", ends("a", "b", at=EPOCH))
    spool.dead("a", "no")
    spool.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE marks")
    assert spool.measure() == (1, EPOCH, 1)
    spool.close()


def test_flush_waits_for_what_has_ended(path: Path) -> None:
    journal = Journal(path, commit_delay=60.0)
    assert journal.flush(0.0)
    journal.start()
    journal.open(call("a"))
    journal.close(event("a"))
    began = time.monotonic()
    assert journal.flush()
    assert time.monotonic() - began < 60.0  # the commit is not waited for
    assert spooled(path) == [event("a")]
    assert journal.stop()
    assert journal.flush(0.0)


def test_an_event_is_decoded_as_it_was_written(path: Path) -> None:
    with Journal_started(path) as journal:
        journal.open(call("a"))
        journal.close(event("a"))
    (kept,) = spooled(path)
    assert isinstance(kept, UsageEvent)
    assert kept == event("a")


def test_what_cannot_be_written_to_the_spool_degrades_and_is_written_later(path: Path) -> None:
    with Journal_started(path) as journal:
        journal.open(call("a"))
        journal.spool.close()
        hidden = path.with_name("hidden")
        path.rename(hidden)
        path.mkdir()
        journal.close(event("a"))
        assert not journal.flush(0.2)
        assert journal.state.status == "degraded"
        assert journal.counts.closed == 1
        path.rmdir()
        hidden.rename(path)
        assert journal.flush()
    assert [e.id for e in spooled(path)] == ["a"]


def test_a_segment_that_fills_up_refuses_the_call(path: Path) -> None:
    segments = segments_at(path, Clock(), [])
    assert segments.append([Draft(b"o", b"1")]) is None
    segments.repair()
    (file,) = leftovers(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, before[1]))  # as a full disk; nothing else writes
    try:
        assert segments.append([Draft(b"o", b"1")]) is None
        assert segments.append([Draft(b"o", b"1")]) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert takes_no_calls(segments)
    segments.repair()
    assert segments.append([Draft(b"o", b"1")]) is not None
    end(segments, is_finished=True)
