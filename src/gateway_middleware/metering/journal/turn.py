"""What one turn of the event loop records in the journal."""

from __future__ import annotations

from typing import NamedTuple

from gateway_middleware.core.outbox import Entry
from gateway_middleware.metering.journal.call_end import CallEnd, closed, decode_ending, decode_event, encode, voided
from gateway_middleware.metering.journal.segment import END, VOID
from gateway_middleware.metering.usage_event import OpenCall


class UnderWay(Entry):
    """A call that has begun. `line` is the record of its entry once that is on disk, else empty."""

    __slots__ = ("entry", "line")

    def __init__(self, entry: OpenCall) -> None:
        self.fault = None
        self.written = None
        self.entry = entry
        self.line = b""


class Draft(NamedTuple):
    """A record to be written: its kind, one JSON value without a newline, and the call that it is about.

    `call` is None for the end of a call that nobody has announced.
    """

    kind: bytes
    body: bytes
    call: UnderWay | None = None

    def end(self) -> CallEnd:
        """The end of a call, for the spool, where no record can be written."""
        if self.call is None or self.kind not in {END, VOID}:
            event = decode_event(self.body)
        elif self.kind == VOID:
            return voided(None, self.call.entry)
        else:
            event = decode_ending(self.body).event(self.call.entry)
        return closed(None, event, encode(event))


def on_one_line(body: bytes) -> bytes:
    """The same JSON without newlines, which a provider's raw object may hold between its values."""
    return body if body.find(b"\n") < 0 else body.replace(b"\n", b" ")
