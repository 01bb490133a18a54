"""Events that are too large to be held: relayed as they come, and yet read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.metering.estimate import OutputEstimate
from gateway_middleware.providers.events import ChatEvents, EventReader, MediaEvents, QuietChatEvents, ResponsesEvents
from gateway_middleware.providers.large_event import LARGE_EVENT, LargeEvent

BIG = 300_000
PIECE = 48 * 1024
"""The most that one read of a provider brings."""


def event(document: Any, *, end: bytes = b"\n\n", name: bytes = b"") -> bytes:
    lines = [b"event: " + name] if name else []
    return end[: len(end) // 2].join([*lines, b"data: " + json.dumps(document).encode()]) + end


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c-1", "choices": [{"index": 0, "delta": {"content": text}}], **more}


def fed(reader: EventReader, stream: bytes, size: int = PIECE) -> list[bytes]:
    return [reader.feed(stream[at : at + size]) for at in range(0, len(stream), size)]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1000, 4099, PIECE])
def test_a_large_event_is_passed_on_as_it_comes(end: bytes, size: int) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    texts = ["a" * BIG, 'an "escaped" \\ text\n' * (BIG // 20), "é" * BIG]
    stream = b"".join(event(chat(text), end=end) for text in ["hi", *texts])
    stream += event(chat("b" * BIG, usage=usage), end=end) + b"data: [DONE]" + end
    reader = ChatEvents()
    relayed = fed(reader, stream, size)
    assert b"".join(relayed) + reader.finish() == stream
    assert max(map(len, relayed)) <= LARGE_EVENT + 2 * size, "nothing but what came is held"
    assert reader.is_complete
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (3, 4)


def test_what_stands_behind_an_image_is_counted() -> None:
    image = {
        "type": "image_generation.completed",
        "b64_json": "A" * BIG,
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }
    stream = event(image, name=b"image_generation.completed")
    reader = MediaEvents()
    relayed = fed(reader, stream)
    assert relayed[0], "the first event, too, is content from its beginning on"
    assert b"".join(relayed) + reader.finish() == stream
    assert (reader.is_complete, reader.has_content) == (True, True)
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (5, 7)


def test_an_end_is_whole_however_large() -> None:
    output = [{"id": "ig_1", "type": "image_generation_call", "result": "A" * BIG}]
    response = {"id": "resp_1", "output": output, "usage": {"input_tokens": 1, "output_tokens": 2}}
    last = event({"type": "response.completed", "response": response}, name=b"response.completed")
    reader = ResponsesEvents()
    relayed = fed(reader, last)
    assert [len(piece) for piece in relayed[:-1]] == [0] * (len(relayed) - 1)
    assert (relayed[-1], reader.is_complete, reader.item_ids) == (last, True, ("ig_1",))


def test_an_error_is_not_relayed_however_large() -> None:
    reader = ChatEvents()
    assert not any(fed(reader, event({"error": {"message": "x" * BIG, "code": "bad"}})))
    assert reader.error is not None
    assert reader.error.provider_code == "bad"


def test_an_error_behind_a_large_text_ends_the_stream() -> None:
    reader = ChatEvents()
    assert any(fed(reader, event(chat("x" * BIG, error={"message": "late"}))))
    assert reader.error is not None


def test_usage_that_the_client_did_not_ask_for_is_taken_out() -> None:
    reader = QuietChatEvents()
    stream = json.dumps(chat("x" * BIG, usage=None), separators=(",", ":")).encode()
    relayed = b"".join(fed(reader, b"data: " + stream + b"\n\n"))
    assert relayed == b"data: " + json.dumps(chat("x" * BIG), separators=(",", ":")).encode() + b"\n\n"


def test_an_event_has_a_limit_in_pieces_too() -> None:
    reader = ChatEvents(limit=BIG)
    with pytest.raises(UpstreamProtocolError, match=f"more than {BIG} bytes"):
        fed(reader, event(chat("x" * 2 * BIG)))


@pytest.mark.parametrize("cut", [BIG // 2, BIG + 50])
def test_a_body_that_ends_within_a_large_event_is_not_complete(cut: int) -> None:
    reader = ChatEvents()
    fed(reader, event(chat("x" * BIG))[:cut])
    reader.finish()
    assert not reader.is_complete


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.text(min_size=1100, max_size=1300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def shortened(document: Any) -> Any:
    """What is left of a document without its long texts, by the length of their JSON."""
    if isinstance(document, str):
        return "" if len(json.dumps(document)) - 2 > 1024 else document
    if isinstance(document, dict):
        return {name: shortened(value) for name, value in document.items()}
    return [shortened(value) for value in document] if isinstance(document, list) else document


@given(JSON, st.lists(st.integers(1, 700), min_size=1, max_size=8), st.binary(max_size=20))
@settings(deadline=None)
def test_what_is_read_is_the_event_without_its_long_texts(document: Any, sizes: list[int], after: bytes) -> None:
    stream = event(document)
    rest: bytes | None = None
    large, at, number, passed = LargeEvent(1 << 20), 0, 0, b""
    while rest is None:
        size = sizes[number % len(sizes)]
        chunk = stream[at : at + size]
        at, number = at + size, number + 1
        piece, rest = large.feed(chunk + after if at >= len(stream) else chunk)
        passed += piece
    assert (passed, rest) == (stream, after)
    assert json.loads(large.read.removeprefix(b"data: ")) == shortened(document)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_text_of_a_large_event_is_estimated_to_its_end(separators: tuple[str, str]) -> None:
    """A stream that breaks off later has no usage, and what was delivered is counted: in pieces as in one."""
    stream = b"data: " + json.dumps(chat("several words of text " * 4000), separators=separators).encode() + b"\n\n"
    whole, pieces = (OutputEstimate(Surface.CHAT, model="m") for _ in range(2))
    whole.feed(stream)
    for piece in fed(ChatEvents(), stream):
        if piece:
            pieces.feed(piece)
    assert whole.text_bytes == pieces.text_bytes == 22 * 4000
    assert abs(whole.tokens - pieces.tokens) <= 10
