"""Event streams, cut at their event boundaries and nowhere else.

The format is that of the WHATWG standard: lines end in LF, CRLF or CR, an event ends at a blank line, a stream may
begin with a BOM. The bytes themselves are never changed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError

MAX_EVENT_BYTES = 64 * 1024 * 1024
"""By default. Images and documents travel inside single events, in base64."""

_BOM = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LOOK_BACK = 3


class EventSplitter:
    """Passes whole events on and holds the unfinished last one.

    `limit` bounds what is held, in bytes.
    """

    __slots__ = ("_has_cr", "_held", "_limit")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._held = bytearray()
        self._has_cr = False
        self._limit = limit

    def feed(self, chunk: bytes) -> bytes:
        """Every event that is whole by now. Raises `UpstreamProtocolError` when one outgrows the limit."""
        if not self._held and chunk.endswith(b"\n\n"):
            return chunk
        held = self._held
        searched = max(len(held) - _LOOK_BACK, 0)
        held += chunk
        self._has_cr = self._has_cr or b"\r" in chunk
        end = self._last_boundary(searched)
        check_size(len(held) - end, self._limit)
        whole = bytes(held[:end])
        del held[:end]
        return whole

    @property
    def held(self) -> int:
        """The bytes of the unfinished event."""
        return len(self._held)

    def finish(self) -> bytes:
        """What is held when the stream ends: at most one event, perhaps cut off."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _last_boundary(self, start: int) -> int:
        if not self._has_cr:
            end = self._held.rfind(b"\n\n", start)
            return end + 2 if end >= 0 else 0
        end = 0
        for blank in _BLANK_LINE.finditer(self._held, start):
            if blank.end() == len(self._held) and blank[0].endswith(b"\n\r"):
                break  # the LF after this CR is still on its way
            end = blank.end()
        return end


def check_size(size: int, limit: int) -> None:
    """Raises `UpstreamProtocolError` for an event of more than `limit` bytes."""
    if size > limit:
        raise UpstreamProtocolError(
            f"The provider sent an event of more than {limit} bytes.", fault=ProtocolFault.TOO_LONG
        )


def end_of_first_event(data: bytes, start: int) -> int:
    """Where the first blank line ends after `start`; 0: there is none, or it may still go on."""
    blank = _BLANK_LINE.search(data, start)
    if blank is None or (blank.end() == len(data) and blank[0].endswith(b"\n\r")):
        return 0
    return blank.end()


def split_events(whole: bytes) -> list[bytes]:
    """The raw events in bytes that a splitter passed on, each with its blank line."""
    ends = [blank.end() for blank in _BLANK_LINE.finditer(whole)] if b"\r" in whole else _ends(whole)
    if not ends or ends[-1] < len(whole):
        ends.append(len(whole))
    return [whole[start:end] for start, end in pairwise([0, *ends])]


def _ends(whole: bytes) -> list[int]:
    """Where events end, searched from behind, which is several times as fast as from the front."""
    ends: list[int] = []
    end = whole.rfind(b"\n\n")
    while end >= 0:
        ends.append(end + 2)
        end = whole.rfind(b"\n\n", 0, end)
    ends.reverse()
    return ends


def end_of_event(whole: bytes, start: int) -> int:
    """Where the event ends that begins at `start`, with all blank lines after it, in bytes without a CR."""
    end = whole.find(b"\n\n", start)
    if end < 0:
        return len(whole)
    end += 2
    while whole.startswith(b"\n", end):
        end += 1
    return end


def marked_events(whole: bytes, needles: Iterable[bytes]) -> list[tuple[int, int]]:
    """Begin and end of each event with one of the needles in it, in order, in bytes without a CR."""
    spans: dict[int, int] = {}
    for needle in needles:
        at = whole.rfind(needle)  # more than twice as fast as from the front
        while at >= 0:
            blank = whole.rfind(b"\n\n", 0, at)
            start = blank + 2 if blank >= 0 else 0
            spans[start] = end_of_event(whole, at)
            at = whole.rfind(needle, 0, start)
    return sorted(spans.items())


def parse_event(event: bytes) -> tuple[bytes, bytes]:
    """The event's name and its data, lines joined by LF; both empty for a comment."""
    name, data = b"", []
    for line in event.removeprefix(_BOM).splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b"\n".join(data)
