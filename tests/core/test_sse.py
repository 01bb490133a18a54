from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.core.sse import EventSplitter, parse_event, split_events

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from(
    [b"data: a", b"data:b", b"event: x", b": comment", b"id: 1", "data: \u00fc\u20ac".encode(), b"data", b""]
)


def split_all(chunks: list[bytes]) -> tuple[bytes, bytes]:
    splitter = EventSplitter()
    return b"".join([splitter.feed(chunk) for chunk in chunks]), splitter.finish()


def reference(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The events by the standard's own line-wise algorithm."""
    events: list[tuple[bytes, bytes]] = []
    lines: list[bytes] = []
    name = b""
    complete = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    for line in complete:
        if not line:
            events.append((name, b"\n".join(lines)))
            name, lines = b"", []
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return events


@pytest.mark.parametrize(
    ("stream", "whole"),
    [
        (b"data: a\n\ndata: b", b"data: a\n\n"),
        (b"data: a\r\n\r\ndata: b", b"data: a\r\n\r\n"),
        (b"data: a\r\rdata: b", b"data: a\r\r"),
        (b"data: a\n\r\ndata: b", b"data: a\n\r\n"),
        (b"data: a\r\n\ndata: b", b"data: a\r\n\n"),
        (b"data: a\r\ndata: b\r\n", b""),
        (b"data: a\n", b""),
        (b"\xef\xbb\xbfdata: a\n\n", b"\xef\xbb\xbfdata: a\n\n"),
        (b": ping\n\n", b": ping\n\n"),
        (b"", b""),
    ],
)
def test_only_whole_events_are_passed_on(stream: bytes, whole: bytes) -> None:
    for chunks in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        passed, rest = split_all(chunks)
        assert (passed, rest) == (whole, stream[len(whole) :])


def test_the_line_feed_of_a_split_crlf_is_waited_for() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\r\n\r") == b""
    assert splitter.feed(b"\ndata: b") == b"data: a\r\n\r\n"


@given(lines=st.lists(st.tuples(LINES, LINE_ENDS)), has_bom=st.booleans(), cuts=st.lists(st.integers(0, 200)))
def test_any_framing_cut_anywhere_gives_the_same_events(
    *, lines: list[tuple[bytes, bytes]], has_bom: bool, cuts: list[int]
) -> None:
    stream = (b"\xef\xbb\xbf" if has_bom else b"") + b"".join(line + end for line, end in lines)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    passed, rest = split_all(chunks)
    found = [parse_event(event) for event in split_events(passed)]

    assert passed + rest == stream
    if not stream.endswith(b"\r"):  # a CR at the end may be half a CRLF
        assert [e for e in found if any(e)] == [e for e in reference(stream) if any(e)]


@given(st.binary(max_size=300), st.integers(1, 40))
def test_no_byte_is_lost_of_anything(stream: bytes, size: int) -> None:
    passed, rest = split_all([stream[i : i + size] for i in range(0, len(stream), size)])

    assert passed + rest == stream
    assert b"".join(split_events(passed)) == passed


@pytest.mark.parametrize(
    ("event", "parsed"),
    [
        (b"data: a\n\n", (b"", b"a")),
        (b"event: x\ndata: a\ndata: b\n\n", (b"x", b"a\nb")),
        (b"data:a\r\ndata:  b\r\n\r\n", (b"", b"a\n b")),
        (b"data: a\rdata\r\r", (b"", b"a\n")),
        (b": comment\nid: 7\nretry: 1\n\n", (b"", b"")),
        (b"\xef\xbb\xbfevent: x\n\n", (b"x", b"")),
    ],
)
def test_an_event_is_read_as_the_standard_says(event: bytes, parsed: tuple[bytes, bytes]) -> None:
    assert parse_event(event) == parsed


@pytest.mark.parametrize("size", [7, 64])
def test_an_endless_event_is_refused_at_the_limit(size: int) -> None:
    splitter = EventSplitter(limit=100)
    for _ in range(100 // size):
        assert splitter.feed(b"x" * size) == b""
    with pytest.raises(UpstreamProtocolError, match="more than 100 bytes"):
        splitter.feed(b"x" * size)


def test_whole_events_of_any_size_pass_and_a_held_one_up_to_the_limit() -> None:
    splitter = EventSplitter(limit=10)
    assert splitter.feed(b"data: " + b"x" * 100 + b"\n\n" + b"data: 1234") == b"data: " + b"x" * 100 + b"\n\n"
    assert splitter.feed(b"\n\n") == b"data: 1234\n\n"
