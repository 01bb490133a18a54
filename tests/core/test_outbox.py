"""Writes of one turn of the loop, together at its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_middleware.core.outbox import Outbox


class Connection:
    """Writes its bytes into a common list."""

    def __init__(self, name: str, written: list[str], *, is_broken: bool = False) -> None:
        self.name = name
        self._written = written
        self._is_broken = is_broken

    def write_out(self) -> None:
        if self._is_broken:
            raise RuntimeError(self.name)
        self._written.append(self.name)


@pytest.mark.anyio
async def test_everything_of_a_turn_is_written_at_its_end_in_order() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()
    one, other = Connection("one", written), Connection("other", written)
    outbox.add(one, loop)
    loop.call_soon(outbox.add, other, loop)  # by somebody else in the same turn
    assert written == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert written == ["one", "other"]
    outbox.add(other, loop)
    await asyncio.sleep(0)
    assert written == ["one", "other", "other"]


class Book:
    """A ledger that writes into the same list."""

    def __init__(self, written: list[str]) -> None:
        self._written = written
        self.kept: list[str] = []

    def commit(self) -> None:
        if self.kept:
            self._written.append("+".join(self.kept))
            self.kept = []


@pytest.mark.anyio
async def test_the_records_of_a_turn_are_written_once_and_before_anything_leaves() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()
    book = Book(written)
    outbox.write_first(book)
    for name in ("one", "other"):
        book.kept.append(name)
        outbox.commit_soon()
        outbox.add(Connection(name, written), loop)
    has_records = [outbox.has_records]
    await asyncio.sleep(0)
    assert written == ["one+other", "one", "other"]
    has_records.append(outbox.has_records)
    assert has_records == [True, False]
    outbox.add(Connection("one", written), loop)
    book.kept.append("early")
    outbox.commit()
    assert written[3:] == ["early"]
    await asyncio.sleep(0)
    assert written[3:] == ["early", "one"]


@pytest.mark.anyio
async def test_records_are_written_at_the_end_of_a_turn_in_which_nothing_is_sent() -> None:
    outbox, written = Outbox(), list[str]()
    book = Book(written)
    outbox.write_first(book)
    for name in ("one", "other"):
        book.kept.append(name)
        outbox.commit_soon()
    assert (written, outbox.is_quiet) == ([], True)
    await asyncio.sleep(0)
    assert written == ["one+other"]


@pytest.mark.anyio
async def test_without_a_ledger_there_is_nothing_to_be_written_first() -> None:
    outbox = Outbox()
    outbox.commit_soon()
    outbox.commit()
    assert not outbox.has_records


@pytest.mark.anyio
async def test_it_is_quiet_while_turns_have_one_sender() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()
    one, other = Connection("one", written), Connection("other", written)
    is_quiet = []
    for senders in ([one], [one, other], [one], [one], []):
        for sender in senders:
            outbox.add(sender, loop)
            is_quiet.append(outbox.is_quiet)
        await asyncio.sleep(0)
    assert is_quiet == [True, True, False, False, True]


@pytest.mark.anyio
async def test_in_quiet_times_most_writes_pass_and_one_of_eight_looks() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()
    assert [outbox.may_pass() for _ in range(16)] == [True] * 7 + [False] + [True] * 7 + [False]
    outbox.add(Connection("one", written), loop)
    assert not any(outbox.may_pass() for _ in range(16))  # this turn has an end: whoever sends in it is counted
    outbox.add(Connection("other", written), loop)
    await asyncio.sleep(0)
    assert not any(outbox.may_pass() for _ in range(16))  # the last turn had several senders


@pytest.mark.anyio
async def test_a_connection_that_cannot_write_silences_nobody() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    outbox.add(Connection("bad", written, is_broken=True), loop)
    outbox.add(Connection("good", written), loop)
    await asyncio.sleep(0)
    assert written == ["good"]
    assert [str(report["exception"]) for report in reports] == ["bad"]


def test_what_a_dead_loop_has_left_holds_up_no_other_loop() -> None:
    outbox, written = Outbox(), list[str]()

    async def add(name: str, turns: int) -> None:
        outbox.add(Connection(name, written), asyncio.get_running_loop())
        for _ in range(turns):
            await asyncio.sleep(0)

    dead = asyncio.new_event_loop()
    outbox.add(Connection("lost", written), dead)
    dead.close()
    asyncio.run(add("late", 1))
    assert written == ["late"]


def test_the_end_of_a_turn_of_an_older_loop_writes_nothing_of_the_newer_one() -> None:
    outbox, written = Outbox(), list[str]()
    older, newer = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        outbox.add(Connection("lost with its loop", written), older)  # which stands still before its turn has ended
        outbox.add(Connection("written", written), newer)
        older.run_until_complete(asyncio.sleep(0))
        assert written == []
        newer.run_until_complete(asyncio.sleep(0))
        assert written == ["written"]
    finally:
        older.close()
        newer.close()


@pytest.mark.anyio
async def test_a_long_turn_is_written_by_the_batch_and_the_rest_at_its_end() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()
    book = Book(written)
    outbox.write_first(book)
    for number in range(64 + 3):
        if number == 63:
            book.kept.append("record")
            outbox.commit_soon()
            assert written == []
        outbox.add(Connection(str(number), written), loop)
    assert written == ["record", *map(str, range(64))]
    await asyncio.sleep(0)
    assert written[65:] == ["64", "65", "66"]
    outbox.add(Connection("next", written), loop)
    assert not outbox.is_quiet, "the turn before had several"


@pytest.mark.anyio
async def test_what_is_added_while_a_batch_is_written_is_written_too() -> None:
    outbox, written, loop = Outbox(), list[str](), asyncio.get_running_loop()

    class Answered(Connection):
        def write_out(self) -> None:
            super().write_out()
            outbox.add(Connection(f"answer to {self.name}", written), loop)

    outbox.add(Answered("0", written), loop)
    for number in range(1, 64):
        outbox.add(Connection(str(number), written), loop)
    assert written == list(map(str, range(64)))
    await asyncio.sleep(0)
    assert written[64:] == ["answer to 0"]
