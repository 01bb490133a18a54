"""Our cutting and reading of event streams beside httpx-sse: the same bytes are the same events."""

from __future__ import annotations

import httpx
from httpx_sse import EventSource
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.sse import EventSplitter, end_of_first_event, marked_events, parse_event, split_events

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=12)
LINE = st.one_of(
    TEXT.map("data: {}".format),
    TEXT.map("data:{}".format),
    TEXT.map("event: {}".format),
    TEXT.map(": {}".format),
    st.sampled_from(["data", "event", "retry: 5", "unknown: field", "data:  two spaces", "", "", ""]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Lines with any of the three line ends, in any mixture; a stream ends with a blank line."""
    lines = draw(st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r\n", "\r"])), max_size=20))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return ("".join(text + line_end for text, line_end in lines) + f"data: last{end}{end}").encode()


def theirs(stream: bytes) -> list[tuple[str, str]]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return [(event.event, event.data) for event in EventSource(response).iter_sse() if event.data]


def ours(stream: bytes, size: int) -> list[tuple[str, str]]:
    splitter, events = EventSplitter(), []
    for at in range(0, len(stream), size):
        events += split_events(splitter.feed(stream[at : at + size]))
    events += split_events(splitter.finish())
    parsed = [parse_event(event) for event in events]
    return [(name.decode() or "message", data.decode()) for name, data in parsed if data]


@settings(deadline=None, max_examples=300)
@given(stream=streams(), size=st.integers(1, 50))
def test_same_bytes_are_the_same_events(stream: bytes, size: int) -> None:
    assert ours(stream, size) == theirs(stream)


@settings(deadline=None)
@given(stream=streams(), size=st.integers(1, 50))
def test_nothing_is_lost_or_changed_between_events(stream: bytes, size: int) -> None:
    splitter = EventSplitter()
    passed = b"".join([splitter.feed(stream[at : at + size]) for at in range(0, len(stream), size)])
    whole = passed + splitter.finish()

    assert whole == stream
    assert b"".join(split_events(whole)) == stream


@settings(deadline=None)
@given(stream=streams(), needle=st.sampled_from(["data", "event", ":", "spaces", "last", "a", "ü"]))
def test_marked_events_are_those_that_hold_the_mark(stream: bytes, needle: str) -> None:
    """What is looked for without cutting the stream, beside what httpx-sse makes of the whole."""
    plain = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    spans = marked_events(plain, [needle.encode(), b"retry: 5"])
    marked = [plain[start:end] for start, end in spans]
    others, at = b"", 0
    for start, end in spans:
        others, at = others + plain[at:start], end
    others += plain[at:]

    assert all(needle.encode() in event or b"retry: 5" in event for event in marked)
    assert needle.encode() not in others
    assert b"retry: 5" not in others
    assert sorted(theirs(b"".join(marked)) + theirs(others)) == sorted(theirs(plain))


@settings(deadline=None)
@given(stream=streams())
def test_cut_at_the_end_of_each_first_event_the_events_are_the_same(stream: bytes) -> None:
    cut, at = [], 0
    while end := end_of_first_event(stream, at):
        cut.append(stream[at:end])
        at = end

    assert [event for part in [*cut, stream[at:]] for event in theirs(part)] == theirs(stream)
