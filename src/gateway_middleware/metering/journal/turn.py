"""What one turn of the event loop records in the journal."""

from __future__ import annotations

from gateway_middleware.core.outbox import Entry
from gateway_middleware.metering.journal.call_end import CallEnd, closed, decode_ending, decode_event, encode, voided
from gateway_middleware.metering.journal.segment import END, VOID
from gateway_middleware.metering.journal.segment_log import Draft
from gateway_middleware.metering.usage_event import OpenCall


class UnderWay(Entry):
    """A call that has begun. `line` is the record of its entry once that is on disk, else empty."""

    __slots__ = ("entry", "line")

    def __init__(self, entry: OpenCall) -> None:
        super().__init__()
        self.entry = entry
        self.line = b""


class Beginning:
    """The entry of a call, to be written."""

    __slots__ = ("call", "draft")

    def __init__(self, draft: Draft, call: UnderWay) -> None:
        self.draft = draft
        self.call = call


class Conclusion:
    """The end of a call, to be written. `call` is None where nobody has announced it."""

    __slots__ = ("call", "draft")

    def __init__(self, draft: Draft, call: UnderWay | None) -> None:
        self.draft = draft
        self.call = call

    def end(self) -> CallEnd:
        """The same for the spool, where no record can be written."""
        kind, body = self.draft
        if self.call is None or kind not in {END, VOID}:
            event = decode_event(body)
        elif kind == VOID:
            return voided(None, self.call.entry)
        else:
            event = decode_ending(body).event(self.call.entry)
        return closed(None, event, encode(event))
