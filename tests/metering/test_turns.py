"""What one turn of the event loop records is one write, and a write that fails refuses what begins in it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway_middleware.core.outbox import Outbox
from gateway_middleware.metering.journal.call_end import Ending
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.segment import CLOSE, END, OPEN, VOID, scan
from gateway_middleware.metering.journal.state import JournalUnavailableError
from journaled import call, event, leftovers, spooled, sums

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@contextmanager
def running(path: Path, **options: Any) -> Iterator[Journal]:
    journal = Journal(path, **{"outbox": Outbox(), **options})
    journal.start()
    try:
        yield journal
    finally:
        journal.stop()


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file grows beyond the size of the longest of these; the tests write to no other file meanwhile."""
    longest = max(file.stat().st_size for file in leftovers(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in leftovers(path))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_turn_is_one_write_with_compact_ends(path: Path) -> None:
    with running(path) as journal:
        for name in ("a", "b", "c"):
            assert journal.enter(call(name)).fault is None
        assert on_disk(path) == b""
        await asyncio.sleep(0)
        journal.close(event("a", raw=b'{"n":\n1}'))
        journal.void("b")
        journal.close(event("c", tenant="another than it began with"))
        journal.close(event("unannounced"))
        await asyncio.sleep(0)
        written = on_disk(path)
        records, damaged = scan(written)
        assert damaged == []
        assert [record.kind for record in records] == [OPEN, OPEN, OPEN, END, VOID, CLOSE, CLOSE]
        assert [record.sequence for record in records] == [1, 2, 3, 4, 5, 6, 7]
        assert written.count(b"\n.\n") == 2
        assert b"acme" not in records[3].body
    assert {(e.id, e.tenant) for e in spooled(path)} == {
        ("a", "acme"), ("c", "another than it began with"), ("unannounced", "acme")
    }  # fmt: skip
    assert spooled(path)[0] == event("a", raw=b'{"n": 1}')


def test_every_field_of_an_event_comes_back_from_its_ending() -> None:
    entry = call("a")
    told = {
        "outcome": "timeout", "model_served": "m-2", "status": 200, "cost": "0.5", "price_version": "v", "ttft": 0.25,
        "duration": 1.5, "upstream_request_id": "up", "flags": ("usage_odd",),
    }  # fmt: skip
    whole = msgspec.structs.replace(event("a", raw=b'{"x":1}'), **told)
    ending = Ending.of(whole, entry)
    assert ending is not None
    assert ending.event(entry) == whole
    for field in ("model", "tenant", "time", "request_id", "is_stream", "key_id"):
        assert Ending.of(msgspec.structs.replace(whole, **{field: 5}), entry) is None


async def test_a_write_that_fails_refuses_what_begins_in_its_turn_and_only_that(path: Path) -> None:
    with running(path) as journal:
        before = journal.enter(call("before"))
        journal.enter(call("ends"))
        journal.commit()
        with full_disk(path):
            refused = [journal.enter(call(name)) for name in ("r1", "r2")]
            journal.close(event("ends"))
            journal.enter(call("brief"))
            journal.void("brief")
            journal.commit()
            assert [type(entry.fault) for entry in refused] == [JournalUnavailableError] * 2
            assert refused[0].fault is not refused[1].fault  # each is raised to a client of its own
            assert before.fault is None
            assert journal.state.status == "unavailable"
            with pytest.raises(JournalUnavailableError, match="cannot be written"):
                journal.open(call("late"))
        await until(lambda: not journal.is_degraded)
        assert journal.enter(call("after")).fault is None
        journal.commit()
        counts = journal.counts
        assert (counts.admitted, counts.closed, counts.open, counts.voided) == (4, 1, 2, 1)
        assert journal.losses.refused == 3
    with running(path, outbox=None):
        pass
    assert {e.id: e.outcome for e in spooled(path)} == {
        "ends": "success", "before": "gateway_crash", "after": "gateway_crash"
    }  # fmt: skip
    assert (sums(path).closed, sums(path).orphaned) == (1, 2)


async def test_what_ended_while_the_disk_was_full_is_in_the_spool_though_nothing_healed(path: Path) -> None:
    with running(path) as journal:
        journal.enter(call("a"))
        journal.commit()
        (segment,) = [file for file in leftovers(path) if file.stat().st_size]
        journal.spool.measure()
        path.parent.joinpath("sentinel").write_bytes(b"x" * 2_000_000)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size, before[1]))
        try:
            journal.close(event("a"))
            journal.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert journal.counts.closed == 1
        assert journal.stop()
    assert [(e.id, e.outcome) for e in spooled(path)] == [("a", "success")]


async def test_a_call_that_ends_in_the_turn_of_a_rotation_is_carried_with_its_end(path: Path) -> None:
    with running(path, segment_bytes=1) as journal:
        journal.enter(call("a"))
        journal.commit()
        journal.close(event("a"))
        journal.enter(call("b"))
        journal.commit()
        last = max(leftovers(path), key=lambda file: file.stat().st_size)
        kinds = [(record.kind, record.sequence) for record in scan(last.read_bytes())[0]]
        assert kinds == [(OPEN, 1), (END, 2), (OPEN, 3)]
        journal.void("b")
    assert [(e.id, e.outcome) for e in spooled(path)] == [("a", "success")]
