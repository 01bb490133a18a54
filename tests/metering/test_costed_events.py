"""The cost in the last usage object of a stream: where it goes, in whatever pieces the stream comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.metering.stream_cost.costed_events import MAX_HELD_BYTES, CostedEvents, with_cost

HELLO = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"hello"}}],"usage":null}\n\n'
USED = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
COSTED = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.00012}}\n\n'
DONE = b"data: [DONE]\n\n"
CHAT = (HELLO + USED + DONE, HELLO + COSTED + DONE)
REPEATED = (USED + HELLO + USED + b": ping\n\n" + USED + DONE, USED + HELLO + USED + b": ping\n\n" + COSTED + DONE)
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
)
TEXT = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"\\"usage\\": {"}}\n\n'
DELTA = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":9}}\n\n'
DELTA_COSTED = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":9,"cost":0.00012}}\n\n'
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
MESSAGES = (START + TEXT + DELTA + PING + STOP, START + TEXT + DELTA_COSTED + PING + STOP)
CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","usage":null}}\n\n'
COMPLETED = (
    b'event: response.completed\r\ndata: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":3}}}'
    b"\r\n\r\n"
)
COMPLETED_COSTED = (
    b'event: response.completed\r\ndata: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":3,'
    b'"cost":0.00012}}}\r\n\r\n'
)
RESPONSES = (CREATED + COMPLETED, CREATED + COMPLETED_COSTED)
STREAMS = {"chat": CHAT, "repeated": REPEATED, "messages": MESSAGES, "responses": RESPONSES}


def run(pieces: list[bytes], cost: bytes | None = b"0.00012") -> bytes:
    events = CostedEvents()
    sent = [events.feed(piece) for piece in pieces[:-1]]
    return b"".join([*sent, events.finish(pieces[-1], cost)])


@pytest.mark.parametrize("name", STREAMS)
@given(cuts=st.lists(st.integers(0, 700), max_size=12))
def test_the_pieces_make_no_difference(name: str, cuts: list[int]) -> None:
    stream, expected = STREAMS[name]
    ends = sorted({min(cut, len(stream)) for cut in cuts})
    pieces = [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]
    assert run(pieces) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_what_breaks_off_goes_out_as_it_came(name: str) -> None:
    stream, _ = STREAMS[name]
    for end in range(0, len(stream), 7):
        events = CostedEvents()
        assert events.feed(stream[:end]) + events.release() == stream[:end]


def test_a_cost_that_is_not_known_is_null_and_a_vendors_own_gives_way() -> None:
    assert run([HELLO, USED, DONE], None) == HELLO + COSTED.replace(b"0.00012", b"null") + DONE
    own = USED.replace(b"2}", b'2,"cost":99}')
    assert run([HELLO, own, DONE]) == HELLO + COSTED + DONE


def test_contents_are_not_held() -> None:
    events = CostedEvents()
    assert events.feed(HELLO) == HELLO
    assert events.feed(USED) == b""
    assert events.feed(HELLO) == USED + HELLO


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b'data: {"usage": nonsense}\n\n',
        b'data: {"usage": 7}\n\n',
        b'data: {"response": {"usage": null}}\n\n',
        b'data: {"response": "usage", "x": "\\"usage\\""}\n\n',
        b'data: {"usage":\ndata: {}}\n\n',
        b'data: ["usage"]\n\n',
        b'event: usage\nid: "usage"\n\n',
        b'data: {"usage": {"a": ' + b"[" * 5000 + b"\n\n",
    ],
)
def test_what_has_no_usage_object_stays_as_it_is(event: bytes) -> None:
    assert with_cost(event, b"1") == event
    assert run([event, DONE]) == event + DONE


def test_an_empty_usage_object_and_a_stream_without_an_end() -> None:
    assert run([b'data: {"usage":{}}\n\n', b""]) == b'data: {"usage":{"cost":0.00012}}\n\n'
    assert run([b'data: {"usage":{}}']) == b'data: {"usage":{"cost":0.00012}}'


def test_an_event_that_is_too_long_passes_as_it_is() -> None:
    large = b'data: {"usage":{"x":"' + b"y" * MAX_HELD_BYTES + b'"}}\n\n'
    events = CostedEvents()
    assert events.feed(large[:-10]) == large[:-10]
    assert events.feed(large[-10:] + USED) == large[-10:] + USED
    assert events.finish(DONE, b"1") == DONE


def test_the_digits_are_those_of_the_figure() -> None:
    event = with_cost(USED, b"0.000000123456789012")
    assert b'"cost":0.000000123456789012}' in event
    assert json.loads(event[6:])["usage"]["prompt_tokens"] == 3
