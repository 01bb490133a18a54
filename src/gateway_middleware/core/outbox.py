"""What one turn of an event loop records and sends: all of it at its end, the records first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway_middleware.core.errors import UnavailableError


_LOOKS = 8
"""Of so many writes in quiet times one looks whether others send, too."""
_MOST = 64
"""So many connections are written together at the most."""


class Sender(Protocol):
    """A connection that keeps the bytes of this turn until it is told to write them."""

    def write_out(self) -> None:
        """Write what is kept, if anything is left of it."""
        ...


class Ledger(Protocol):
    """Keeps the records of this turn until it is told to have them on disk."""

    def commit(self) -> None:
        """Have on disk what is kept, if anything is. Never raises: see `Entry.fault`."""
        ...


class Entry:
    """A record that must be on disk before a request leaves.

    `fault` is set where it could not be written: then the request must not leave. It is None while the record waits,
    and once it is on disk; after `Outbox.commit` it does not wait any more. While the disk is slow there is `written`:
    it has to be awaited before the request is sent, and it does not fail.
    """

    __slots__ = ("fault", "written")

    def __init__(self) -> None:
        self.fault: UnavailableError | None = None
        self.written: asyncio.Future[None] | None = None


class Outbox:
    """Lets the connections of one event loop write once a turn: those of clients and those to providers together.

    Each keeps its own bytes, in their order, and may write them earlier: when they are many, or before it closes. So
    several messages of one turn are one write, and all writes of a turn follow each other. It costs no timer, only one
    callback for each turn in which something is sent. In a long turn those that have waited are written by the batch of
    sixty-four: a thousand requests that come at once are not held until the last of them is ready, and their answers do
    not come back at once either. Not for several threads.

    While turns have one sender each, nothing is gained by waiting: then `is_quiet`, and a sender writes at once. Most
    times it need not even be added (`may_pass`).

    A `ledger` may have to be written before anything leaves: its records of a turn are then one write as well. Whoever
    writes to a socket calls `commit` before, if it `has_records`.
    """

    __slots__ = ("_added", "_is_busy", "_is_due", "_ledger", "_loop", "_passed", "_senders", "has_records", "is_quiet")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._senders: list[Sender] = []
        self._ledger: Ledger | None = None
        self._added = 0  # in this turn
        self._is_busy = False  # whether the last turn had several senders
        self._is_due = False
        self._passed = 0
        self.is_quiet = True
        """Whether nobody else seems to send in this turn."""
        self.has_records = False
        """Whether the ledger may hold records that are not on disk."""

    def write_first(self, ledger: Ledger) -> None:
        """Have this ledger, which says by `commit_soon` when it has records, on disk before anything leaves."""
        self._ledger = ledger

    def add(self, sender: Sender, loop: asyncio.AbstractEventLoop) -> None:
        """Have `sender.write_out` called at the end of this turn of the loop that runs."""
        if loop is not self._loop or not self._is_due:
            self._await_end_of_turn(loop)
        self._senders.append(sender)
        self._added += 1
        self.is_quiet = not self._is_busy and self._added == 1
        if len(self._senders) == _MOST:
            self._write_out(loop)

    def may_pass(self) -> bool:
        """Whether a sender may write now without being added: nobody else seems to send in this turn.

        One of eight is added all the same, so that it shows when others begin to.
        """
        if self._is_due or not self.is_quiet:
            return False
        self._passed = (self._passed + 1) % _LOOKS
        return self._passed != 0

    def commit_soon(self) -> None:
        """The ledger has records: have them written at the end of this turn of the loop, if nothing is sent before."""
        self.has_records = True
        if not self._is_due:
            self._await_end_of_turn(asyncio.get_running_loop())

    def commit(self) -> None:
        """Have the records of this turn on disk now: something is about to leave."""
        self.has_records = False
        if self._ledger is not None:
            self._ledger.commit()

    def _await_end_of_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            self._loop, self._senders, self._added = (
                loop,
                [],
                0,
            )  # whatever another loop has left, nobody can send any more
        self._is_due = True
        loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._is_due = False
        self._is_busy = self._added > 1
        self._added = 0
        self.is_quiet = not self._is_busy
        self._write_out(loop)

    def _write_out(self, loop: asyncio.AbstractEventLoop) -> None:
        senders, self._senders = self._senders, []
        if self.has_records:
            self.commit()
        for sender in senders:
            try:
                sender.write_out()
            except Exception as error:  # noqa: BLE001 - one broken connection must not silence the others
                loop.call_exception_handler({"message": "A connection could not write.", "exception": error})
