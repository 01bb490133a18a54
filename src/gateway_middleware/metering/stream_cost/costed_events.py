"""Puts a cost into the last usage object of an event stream, in whatever pieces the stream comes. Does no I/O.

The last usage object stands in the event before `[DONE]` (chat completions), before `message_stop` (Messages) or in the
one that ends a response; some vendors repeat theirs in every event. So an event with a usage object is held until the
next one shows whether it was the last.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from gateway_middleware.core.sse import EventSplitter, split_events

MAX_HELD_BYTES = 1024 * 1024
"""A stream whose event is longer passes as it is."""
_DATA = re.compile(rb"(?m)^data: ?([^\r\n]*)")
_USAGE, _RESPONSE = "usage", "response"
_IDLE = (b":", b"event: ping", b"event:ping")
_DONE, _STOP = re.compile(rb"\s*data: ?\[DONE\]\s*"), b'"message_stop"'
_NULL = b"null"
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Place(NamedTuple):
    """Where the JSON of an event stands in it, and the objects from the outermost to the usage."""

    start: int
    end: int
    objects: tuple[dict[str, msgspec.Raw], ...]


class CostedEvents:
    """`feed` gives out what may be sent, `finish` the rest with the cost in it, `release` the rest as it came."""

    __slots__ = ("_held", "_is_whole", "_splitter")

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._is_whole = True

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent by now."""
        if not self._is_whole:
            return chunk
        ready = self._take(self._splitter.feed(chunk))
        if self._splitter.held + sum(map(len, self._held)) > MAX_HELD_BYTES:
            self._is_whole = False
            return ready + self.release()
        return ready

    def finish(self, chunk: bytes, cost: bytes | None) -> bytes:
        """The rest of a stream that has ended; a cost that is not known is null."""
        ready = self.feed(chunk)
        rest = self._splitter.finish()
        if rest:
            ready += self._take(rest)
        held, self._held = self._held, []
        if held:
            held[0] = with_cost(held[0], cost or _NULL)
        return ready + b"".join(held)

    def release(self) -> bytes:
        """Everything that is held."""
        held, self._held = self._held, []
        return b"".join(held) + self._splitter.finish()

    def _take(self, whole: bytes) -> bytes:
        if not self._held and b'"usage"' not in whole:
            return whole
        ready = []
        for event in split_events(whole):
            if self._held and not _follows_the_last(event):
                ready += self._held
                self._held = []
            if self._held or _place_of(event) is not None:
                self._held.append(event)
            else:
                ready.append(event)
        return b"".join(ready)


def with_cost(event: bytes, cost: bytes) -> bytes:
    """The event with `cost`, a JSON number or null, as the last member of its usage object."""
    place = _place_of(event)
    if place is None:
        return event
    *outer, usage = place.objects
    made = _encode({**{name: raw for name, raw in usage.items() if name != "cost"}, "cost": msgspec.Raw(cost)})
    for members, name in zip(reversed(outer), (_USAGE, _RESPONSE), strict=False):
        made = _encode({**members, name: msgspec.Raw(made)})
    return event[: place.start] + made + event[place.end :]


def _place_of(event: bytes) -> _Place | None:
    """Where the usage object of an event is; None: it has none."""
    if b'"usage"' not in event:
        return None
    lines = list(_DATA.finditer(event))
    if len(lines) != 1:
        return None
    try:
        outer = _decode(lines[0][1])
        objects = [outer]
        if _USAGE not in outer and _RESPONSE in outer:
            objects.append(_decode(outer[_RESPONSE]))
        objects.append(_decode(objects[-1][_USAGE]))
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None  # null, or somewhere else
    return _Place(*lines[0].span(1), tuple(objects))


def _follows_the_last(event: bytes) -> bool:
    """Whether an event may stand behind the last usage object."""
    if not event.strip() or event.startswith(_IDLE):
        return True
    return _STOP in event or _DONE.fullmatch(event) is not None
