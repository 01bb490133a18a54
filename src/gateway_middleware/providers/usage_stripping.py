"""Strips stream usage that the gateway asked for and the client did not from chat events.

OpenAI then adds `"usage":null` to every event, and one event more with usage and no choices. Only the former is undone
here; nothing else in the event changes.
"""

from __future__ import annotations

import re

from gateway_middleware.core.sse import split_events

_KEY = b'"usage"'
_MEMBER = b'"usage":null'
_LAST_MEMBER, _SPACED_LAST_MEMBER, _LAST_BRACE = b',"usage":null}\n\n', b', "usage": null}\n\n', b"}\n\n"
"""A brace before a blank line is the outermost one: no string goes over a line, and no event over a blank one."""
_COMMA = ord(",")
_SPACED_MEMBER = re.compile(rb'"usage"[ \t]*:[ \t]*null')
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_FOLLOWING_COMMA = re.compile(rb"[ \t]*(?:,[ \t]*)?")


def without_null_usage(events: bytes) -> bytes:
    """Whole events without `"usage":null` in their top-level objects."""
    events = events.replace(_LAST_MEMBER, _LAST_BRACE)
    last = events.rfind(_KEY)
    if last < 0:
        return events
    events = events.replace(_SPACED_LAST_MEMBER, _LAST_BRACE)
    last = events.rfind(_KEY)
    if last < 0:
        return events
    if events.rfind(_KEY, 0, last) < 0:
        return _without_member(events, last)
    return b"".join([_without_member(event, event.rfind(_KEY)) for event in split_events(events)])


def _without_member(event: bytes, start: int) -> bytes:
    """`start` is where the key stands for the last time, or -1."""
    end = start + len(_MEMBER)
    if event.startswith(_MEMBER, start) and event[start - 1] == _COMMA and _is_outermost(event, start, end):
        return event[: start - 1] + event[end:]
    return _without_spaced(event) if start >= 0 else event


def _without_spaced(event: bytes) -> bytes:
    """The same where the member is first, or set with blanks, or another one is nested deeper."""
    member = _SPACED_MEMBER.search(event)
    if member is None:
        return event
    span = member.span() if _is_outermost(event, *member.span()) else _outermost(event)
    return event if span is None else _without(event, *span)


def _is_outermost(event: bytes, start: int, end: int) -> bool:
    """Whether these bytes must be a top-level member: one object is open before them, or only one ends after them.

    A brace inside a string can only turn a yes into a no. The key itself cannot be inside a string, where its quotes
    would be escaped.
    """
    return event.count(b"}", end) == 1 or event.count(b"{", 0, start) == 1


def _outermost(event: bytes) -> tuple[int, int] | None:
    """Where the top-level member is, found by reading the whole event."""
    depth = 0
    for token in _TOKEN.finditer(event):
        if token[0] in b"{[":
            depth += 1
        elif token[0] in b"}]":
            depth -= 1
        elif depth == 1 and token[0] == b'"usage"' and (member := _SPACED_MEMBER.match(event, token.start())):
            return member.span()
    return None


def _without(event: bytes, start: int, end: int) -> bytes:
    """Cut a member out, with the comma before it, or the one behind where it comes first."""
    before = event[:start].rstrip(b" \t")
    if before.endswith(b","):
        return before[:-1] + event[end:]
    comma = _FOLLOWING_COMMA.match(event, end)
    return before + event[comma.end() if comma else end :]
