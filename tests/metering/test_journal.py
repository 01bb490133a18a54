"""The journal of calls, on a real disk."""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.segment import scan
from gateway_middleware.metering.journal.state import JournalCounts, JournalLosses, JournalUnavailableError
from gateway_middleware.metering.usage_event import UsageSource
from journaled import DAY, NOON, call, event, leftovers, run, spooled, sums

Start = Callable[..., Journal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "usage.db"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    journals: list[Journal] = []

    def begin(**options: Any) -> Journal:
        journal = Journal(path, wall=lambda: NOON, commit_delay=0.001, **options)
        journal.start()
        journals.append(journal)
        return journal

    yield begin
    for journal in journals:
        journal.stop()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for the thread of a journal, which looks twice a second."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closed_call_is_one_event_and_a_void_one_is_none(start: Start, path: Path) -> None:
    journal = start()
    for name in ("a", "b", "c"):
        journal.open(call(name))
    journal.close(event("a"))
    journal.void("b")
    assert journal.counts == JournalCounts(admitted=3, closed=1, open=1, voided=1)
    journal.close(event("c"))
    assert journal.stop()
    assert spooled(path) == [event("a"), event("c")]
    assert leftovers(path) == []
    assert sums(path).voided == 1


def test_a_close_nobody_announced_is_billed_as_well(start: Start, path: Path) -> None:
    journal = start()
    journal.open(call("a-1"))
    journal.close(event("a-1"))
    journal.close(event("a-2"))
    assert journal.counts == JournalCounts(admitted=2, closed=2)
    journal.stop()
    assert [e.id for e in spooled(path)] == ["a-1", "a-2"]


def test_closing_twice_counts_once(start: Start, path: Path) -> None:
    journal = start()
    journal.open(call("a"))
    journal.close(event("a"))
    journal.close(event("a"))
    journal.stop()
    assert len(spooled(path)) == 1
    assert sums(path).closed == 1
    assert journal.counts == JournalCounts(admitted=1, closed=1)


def test_voiding_what_has_ended_changes_nothing(start: Start, path: Path) -> None:
    journal = start()
    journal.open(call("a"))
    journal.close(event("a"))
    journal.void("a")
    journal.void("never opened")
    assert journal.counts == JournalCounts(admitted=1, closed=1)


def test_sums_outlive_delivery_and_costs_are_exact(start: Start, path: Path) -> None:
    journal = start()
    for number in range(200):
        journal.open(call(f"{number}", tenant=f"t{number % 2}"))
        cost = "0.00000000000000000000000000001" if number >= 100 else "12345.1"
        journal.close(event(f"{number}", tenant=f"t{number % 2}", cost=cost))
    journal.open(call("free"))
    journal.close(event("free", cost=None))
    journal.stop()
    journal.spool.delivered([e.id for e in journal.spool.pending(1000)])
    assert journal.spool.backlog == 0
    acme, t0, t1 = journal.reconcile(DAY, DAY).totals
    assert (acme.closed, acme.unpriced, acme.cost) == (1, 1, "0")
    assert (t0.closed, t0.input_tokens, t0.output_tokens) == (100, 1000, 300)
    assert t0.cost == t1.cost == "617255.00000000000000000000000000050"


def test_reconcile_knows_days_and_calls_under_way(start: Start) -> None:
    journal = start()
    for name, at in (("before", NOON - 86_400), ("now", NOON), ("after", NOON + 86_400)):
        journal.open(call(name, time=at))
        journal.close(event(name, time=at))
    journal.stop()
    answer = journal.reconcile(DAY, DAY)
    assert [(total.day, total.closed) for total in answer.totals] == [("2026-01-01", 1)]
    other = start()
    other.open(call("x", tenant="umbrella"))
    assert other.reconcile(DAY, DAY).open == {"umbrella": 1}


def test_the_sum_of_absurd_counts_has_an_end(start: Start, path: Path) -> None:
    journal = start()
    absurd = Usage(input_tokens=2**63 - 1, output_tokens=2**63 - 1)
    for name in ("a", "b"):
        journal.open(call(name))
        journal.close(type(event(name))(**{**_fields(event(name, cost="nonsense")), "usage": absurd}))
    assert journal.stop()
    total = sums(path)
    assert (total.closed, total.unpriced, total.input_tokens) == (2, 2, 2**63 - 1)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def test_delivery_sees_the_oldest_first_and_keeps_dead_letters(start: Start) -> None:
    journal = start()
    for number in range(5):
        journal.open(call(f"{number}"))
        journal.close(event(f"{number}", time=NOON - 100 + number))
    journal.stop()
    spool = journal.spool
    spool.measure()
    assert spool.oldest_age == 100.0
    assert [e.id for e in spool.pending(2)] == ["0", "1"]
    assert [e.id for e in spool.pending(2, exclude=frozenset(("0", "2")))] == ["1", "3"]
    spool.dead("0", "400: no such tenant")
    spool.delivered(["1", "unknown"])
    assert [e.id for e in spool.pending(9)] == ["2", "3", "4"]
    assert (spool.backlog, spool.dead_letters) == (3, 1)
    assert spool.measure() == (3, NOON - 98, 1)
    assert spool.oldest_age == 98.0


def test_only_one_worker_of_a_path_delivers(start: Start) -> None:
    one, other = start(), start()
    one.open(call("a"))
    one.close(event("a"))
    one.stop()
    assert len(one.spool.pending(9)) == 1
    assert other.spool.pending(9) == []
    one.spool.close()
    assert len(other.spool.pending(9)) == 1


def test_raw_usage_with_newlines_survives_a_crash(start: Start, path: Path) -> None:
    journal = start()
    journal.open(call("a"))
    journal.close(event("a", raw=b'{\n  "prompt_tokens": 10\n}'))
    assert journal.stop()
    (kept,) = spooled(path)
    assert bytes(kept.raw_usage) == b'{   "prompt_tokens": 10 }'


def test_nobody_else_may_read_the_files(start: Start, path: Path) -> None:
    journal = start()
    journal.open(call("a"))
    files = list(path.parent.iterdir())
    assert len(files) >= 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_segments_rotate_and_take_open_calls_with_them(start: Start, path: Path) -> None:
    journal = start(segment_bytes=2000)
    journal.open(call("long stream"))
    for number in range(500):
        journal.open(call(f"{number}"))
        journal.close(event(f"{number}"))
    assert journal.stop(60)
    (last,) = leftovers(path)
    assert last.stat().st_size < 6000
    assert len(spooled(path)) == 500
    heir = start()
    assert heir.counts.orphaned == 1
    heir.stop()
    assert [e.id for e in spooled(path)][-1] == "long stream"


def test_a_segment_is_as_old_as_it_may_be(start: Start, path: Path) -> None:
    clock = itertools.count(0.0, 1.0)
    journal = start(clock=lambda: next(clock), segment_seconds=1.0)
    for name in ("a", "b", "c"):
        journal.open(call(name))
    journal.stop()
    (last,) = leftovers(path)
    assert len(scan(last.read_bytes())[0]) == 3


def test_more_open_calls_than_a_segment_holds_do_not_rotate_for_ever(start: Start, path: Path) -> None:
    journal = start(segment_bytes=100)
    for number in range(50):
        journal.open(call(f"{number}"))
    journal.stop()
    assert len(leftovers(path)) == 1
    assert start().counts.orphaned == 50


def test_80_percent_is_degraded_and_100_is_refused(start: Start) -> None:
    journal = start(cap=10)
    for number in range(10):
        assert journal.state.status == ("degraded" if number >= 8 else "ok")
        assert journal.is_degraded == (number >= 8)
        journal.open(call(f"{number}"))
        journal.close(event(f"{number}"))
    assert journal.state == ("unavailable", "the usage spool is full")
    with pytest.raises(JournalUnavailableError) as caught:
        journal.open(call("too many"))
    assert (caught.value.http_status, caught.value.error_code) == (503, "journal_unavailable")
    assert journal.counts.admitted == 10
    assert journal.losses == JournalLosses(refused=1)


def test_delivery_is_told_of_new_events(start: Start) -> None:
    journal = start()
    seen: list[int] = []
    journal.on_commit = lambda: seen.append(journal.spool.backlog)
    journal.open(call("void"))
    journal.void("void")
    assert journal.flush()
    assert seen == []
    journal.open(call("a"))
    journal.close(event("a"))
    assert journal.flush()
    assert seen == [1]


def test_delivery_makes_room_again(start: Start) -> None:
    journal = start(cap=4)
    for number in range(4):
        journal.open(call(f"{number}"))
        journal.close(event(f"{number}"))
    assert journal.flush()
    journal.spool.delivered(["0"])
    journal.open(call("room"))
    with pytest.raises(JournalUnavailableError):
        journal.open(call("no room"))


def test_drop_oldest_drops_the_oldest_and_counts_them(start: Start, path: Path) -> None:
    journal = start(cap=10, on_full="drop_oldest")
    for number in range(300):
        while journal.state.status == "unavailable":
            os.sched_yield()
        journal.open(call(f"{number}"))
        journal.close(event(f"{number}"))
    until(lambda: journal.losses.dropped == 290)
    journal.stop()
    assert [e.id for e in spooled(path)] == [f"{number}" for number in range(290, 300)]
    assert journal.losses == JournalLosses(dropped=290)
    assert sums(path).closed == 300


def test_without_a_sink_events_are_kept_for_a_while_and_nobody_is_refused(start: Start, path: Path) -> None:
    journal = start(cap=5, keeps=100.0)
    journal.open(call("old"))
    journal.close(event("old", time=NOON - 101.0))
    for number in range(4):
        journal.open(call(f"{number}"))
        journal.close(event(f"{number}"))
    assert journal.flush()
    assert not journal.is_degraded
    until(lambda: journal.losses.dropped == 1)
    journal.open(call("more"))
    journal.stop()
    assert [e.id for e in spooled(path)] == ["0", "1", "2", "3"]


def test_before_the_start_and_after_the_stop_no_call_is_taken(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(JournalUnavailableError, match="not started"):
        journal.open(call("early"))
    journal.start()
    journal.stop()
    with pytest.raises(JournalUnavailableError, match="stopped"):
        journal.open(call("late"))


@pytest.mark.anyio
async def test_aclose_leaves_open_calls_to_the_next(start: Start, path: Path) -> None:
    journal = start()
    journal.open(call("a"))
    journal.open(call("b", tokens=41))
    journal.close(event("a"))
    assert await journal.aclose()
    heir = start(appraise=lambda e: type(e)(**{**_fields(e), "cost": "0.5"}))
    heir.stop()
    _, orphan = spooled(path)
    assert (orphan.id, orphan.time, orphan.outcome) == ("b", NOON, "gateway_crash")
    assert orphan.usage == Usage(input_tokens=41)
    assert orphan.usage_source is UsageSource.ESTIMATED
    assert sums(path).cost == "0.6"


def test_a_directory_that_cannot_be_written_refuses_calls_and_recovers(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"in the way")
    journal = Journal(tmp_path / "spool" / "usage.db")
    journal.start()
    with pytest.raises(JournalUnavailableError, match="cannot be written"):
        journal.open(call("a"))
    (tmp_path / "spool").unlink()
    (tmp_path / "spool").mkdir()
    until(lambda: journal.state.status == "ok")
    journal.open(call("b"))
    journal.close(event("b"))
    assert journal.stop()
    assert [e.id for e in spooled(tmp_path / "spool" / "usage.db")] == ["b"]


DISK_FULL = """
path = Path(sys.argv[1])
journal = Journal(path, commit_delay=0.001)
journal.start()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
asked = []
try:
    for number in range(5000):
        journal.open(call(f"{number}"))
        asked.append(number)
        if number % 2:
            journal.close(event(f"{number}"))
except JournalUnavailableError as error:
    tell("refused", len(asked))
for number in asked:
    if not number % 2:
        journal.close(event(f"{number}"))
tell("closed", journal.counts.closed)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
deadline = time.monotonic() + 10
while journal.is_degraded and time.monotonic() < deadline:
    time.sleep(0.01)
tell("state", journal.state.status)
journal.open(call("after"))
journal.close(event("after"))
tell("done" if sys.argv[2] == "kill" or journal.stop() else "not done", len(asked))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_full_disk_refuses_calls_loses_none_and_heals(path: Path, ending: str) -> None:
    output, errors = run(DISK_FULL, path, ending).communicate(timeout=20)
    said = dict(line.split() for line in output.decode().splitlines())
    assert {"refused", "closed", "state", "done"} <= set(said), errors.decode()
    assert said["state"] == "ok"
    count = int(said["refused"])
    assert 100 < count < 5000
    heir = Journal(path)
    heir.start()
    heir.stop()
    events = spooled(path)
    assert sorted(e.id for e in events) == sorted([*map(str, range(count)), "after"])
    assert {e.outcome for e in events} == {"success"}
    assert list(path.parent.glob("*.quarantine")) == []
