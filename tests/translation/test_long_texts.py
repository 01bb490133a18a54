"""A stream of Responses repeats its text at the end: a long one is held once, and written in pieces."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from rig import RESPONSES as PATH
from rig import Rig, streaming
from translation.grammar import check_stream
from translation.translating import RESPONSES, Call, events_of, message_stream

LONG = 'A "long" text,\nwith é and 😀. ' * 12_000
"""About 400 KB as JSON."""
SHORT = "Good morning"


def text(*pieces: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces)]


def thought(whole: str) -> list[dict[str, Any]]:
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return [start, {"type": "thinking_delta", "thinking": whole}, {"type": "signature_delta", "signature": "s1"}]


def called(arguments: str) -> list[dict[str, Any]]:
    start = {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    return [start, {"type": "input_json_delta", "partial_json": arguments}]


def stream_of(call: Call, sse: bytes, size: int) -> list[bytes]:
    """All pieces that a relay gets."""
    reader = call.reader(is_event_stream=True)
    chunks = [sse[i : i + size] for i in range(0, len(sse), size)]
    pieces = [piece for chunk in chunks for piece in (reader.feed(chunk), *reader.rest)]
    assert reader.is_complete
    return pieces


def a_call() -> Call:
    return Call(RESPONSES, {"input": "x", "stream": True})


@pytest.mark.parametrize("size", [1 << 30, 65_536, 1000])
@pytest.mark.parametrize("words", [[SHORT], [LONG], [LONG, SHORT], [LONG[:70_000], LONG[70_000:], "", LONG]])
def test_the_last_events_repeat_what_was_said(words: list[str], size: int) -> None:
    thinking = LONG if words[0] != SHORT else SHORT
    arguments = msgspec.json.encode({"text": thinking}).decode()
    sse = message_stream(thought(thinking), text(*words), called(arguments), text(SHORT), stop="end_turn")
    events = events_of(b"".join(stream_of(a_call(), sse, size)))
    check_stream(RESPONSES, events)
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "message"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": thinking}]
    assert [part["text"] for part in output[1]["content"]] == ["".join(words)]
    assert output[2]["arguments"] == arguments
    assert [part["text"] for part in output[3]["content"]] == [SHORT]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == output


def test_no_piece_is_long_and_only_the_last_ends_the_stream() -> None:
    pieces = stream_of(a_call(), message_stream(text(*[LONG[:30_000]] * 40)), 1000)
    assert max(map(len, pieces)) <= 65_536
    assert pieces[-1].endswith(b"\n\n")
    assert b"".join(pieces[:-1]).count(b"event: response.completed\n") == 1
    assert not pieces[-2].endswith(b"\n\n")


def test_a_text_is_held_once() -> None:
    reader = a_call().reader(is_event_stream=True)
    sse = message_stream(text("x" * 1000))
    start, delta, end = sse.partition(next(raw for raw in sse.split(b"\n\n") if b'"text_delta"' in raw) + b"\n\n")
    tracemalloc.start()
    try:
        reader.feed(start)
        for _ in range(20_000):
            reader.feed(delta)
        reader.feed(end)
        written = sum(len(piece) for piece in reader.rest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written > 80_000_000
    assert peak < 25_000_000


@pytest.mark.anyio
async def test_the_message_that_ends_the_answer_ends_the_stream() -> None:
    rig = Rig({"claude": "x/claude-sonnet-4-5"})
    sse = message_stream(text(*[LONG[:20_000]] * 20), called("{}"), stop="tool_use")
    rig.scripts["x"] = streaming(*[sse[i : i + 10_000] for i in range(0, len(sse), 10_000)])
    answer = await rig.call("claude", path=PATH, stream=True)
    events = events_of(answer.body)
    check_stream(RESPONSES, events)
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == LONG[:20_000] * 20
    bodies = [message for message in answer.messages if message["type"] == "http.response.body"]
    assert not bodies[-1]["more_body"]
    assert bodies[-1]["body"].endswith(b"\n\n")
