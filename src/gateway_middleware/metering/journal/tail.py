"""Follows segments while they are written: what has ended in them goes into the spool, many calls at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gateway_middleware.metering.journal.call_end import (
    CallEnd,
    closed,
    decode_ending,
    decode_event,
    decode_id,
    decode_open,
    encode,
    voided,
)
from gateway_middleware.metering.journal.segment import CLOSE, OPEN, VOID, Record, frame, scan, whole
from gateway_middleware.metering.usage_event import OpenCall

_READ_BYTES = 256 * 1024


class Calls:
    """The calls of some records: what their entries say, and how they ended."""

    def __init__(self) -> None:
        self.entries: dict[str, OpenCall] = {}

    def take(self, record: Record) -> CallEnd | None:
        """The end that a record tells of, if any. Raises ValueError for a record that means nothing.

        A close whose entry is not known has no meaning; a void of an unknown call has no consequence.
        """
        kind, sequence, body = record
        if kind == OPEN:
            entry = decode_open(body)
            self.entries[entry.id] = entry
            return None
        if kind == VOID:
            call = self.entries.get(decode_id(body))
            return None if call is None else voided(sequence, call)
        if kind == CLOSE:
            return closed(sequence, decode_event(body), body)
        ending = decode_ending(body)
        call = self.entries.get(ending.id)
        if call is None:
            raise ValueError("the end of a call without a beginning")
        event = ending.event(call)
        return closed(sequence, event, encode(event))

    def read(self, records: list[Record], damaged: list[bytes]) -> list[CallEnd]:
        """All ends among some records; what means nothing is added to the damaged lines."""
        ends = []
        for record in records:
            try:
                end = self.take(record)
            except (ValueError, msgspec.MsgspecError):
                damaged.append(frame(*record).strip())
            else:
                if end is not None:
                    ends.append(end)
        return ends


class News(NamedTuple):
    """What came since the last look. `size` is how far that look went; `is_all`: there was nothing further."""

    ends: list[CallEnd]
    damaged: list[bytes]
    size: int
    is_all: bool


class Tail:
    """Where in one segment its follower is. `read` gives so many bytes from an offset."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._offset = 0
        self._calls = Calls()
        self.reached = 0
        """The last record that was looked at."""

    def look(self) -> News:
        """What has come: `taken` says that it is kept. Without that the tail is of no further use."""
        size = _READ_BYTES
        content = self._read(size, self._offset)
        while len(content) == size and not (part := whole(content)):
            size *= 2  # one write is larger than what is read at a time
            content = self._read(size, self._offset)
        part = whole(content)
        records, damaged = scan(part)
        ends = self._calls.read(records, damaged)
        self.reached = max([self.reached, *(record.sequence for record in records)])
        self._offset += len(part)
        return News(ends, damaged, len(part), is_all=len(content) < size)

    def settled(self, ends: list[CallEnd]) -> None:
        """These are in the spool: nobody asks for their entries again."""
        for end in ends:
            self._calls.entries.pop(end.id, None)
