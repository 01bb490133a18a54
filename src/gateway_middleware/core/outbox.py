"""What one turn of an event loop wants to send, sent together at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Sender(Protocol):
    """A connection that keeps the bytes of this turn until it is told to write them."""

    def write_out(self) -> None:
        """Write what is kept, if anything is left of it."""
        ...


class Outbox:
    """Lets the connections of one event loop write once a turn: those of clients and those to providers together.

    Each keeps its own bytes, in their order, and may write them earlier: when they are many, or before it closes. So
    several messages of one turn are one write, and all writes of a turn follow each other. It costs no timer, only one
    callback for each turn in which something is sent. Not for several threads.

    While turns have one sender each, nothing is gained by waiting: then `is_quiet`, and a sender writes at once.
    """

    __slots__ = ("_is_busy", "_loop", "_senders")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._senders: list[Sender] = []
        self._is_busy = False  # whether the last turn had several senders

    @property
    def is_quiet(self) -> bool:
        """Whether nobody else seems to send in this turn."""
        return not self._is_busy and len(self._senders) <= 1

    def add(self, sender: Sender, loop: asyncio.AbstractEventLoop) -> None:
        """Have `sender.write_out` called at the end of this turn of the loop that runs."""
        if not self._senders or loop is not self._loop:
            self._loop, self._senders = loop, []  # whatever another loop has left, nobody can send any more
            loop.call_soon(self._flush, loop)
        self._senders.append(sender)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        senders, self._senders = self._senders, []
        self._is_busy = len(senders) > 1
        for sender in senders:
            try:
                sender.write_out()
            except Exception as error:  # noqa: BLE001 - one broken connection must not silence the others
                loop.call_exception_handler({"message": "A connection could not write.", "exception": error})
