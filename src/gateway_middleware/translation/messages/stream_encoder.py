"""Events of the vocabulary, written as a stream of Messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.context import Around
from gateway_middleware.translation.events import (
    CallDelta,
    CallStarted,
    Delta,
    Ended,
    Event,
    PartEnded,
    ReasoningDelta,
    ReasoningEnded,
    RefusalDelta,
    Started,
    TextDelta,
)
from gateway_middleware.translation.ids import answer_id
from gateway_middleware.translation.messages.content import safe_id
from gateway_middleware.translation.messages.stops import STOP_REASONS
from gateway_middleware.translation.messages.usage import usage_of
from gateway_middleware.translation.thinking_blocks import shown_block, signature_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.core.domain import Usage
    from gateway_middleware.translation.context import Context

_encode = msgspec.json.Encoder().encode
_BEFORE = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
_AFTER = b"}}\n\n"
_WORDS: dict[type[Delta], tuple[bytes, bytes]] = {
    TextDelta: (b"text_delta", b"text"),
    ReasoningDelta: (b"thinking_delta", b"thinking"),
    CallDelta: (b"input_json_delta", b"partial_json"),
}
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT: dict[str, Any] = {"type": "text", "text": ""}
_THINKING: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}


class MessagesStreamEncoder:
    """Writes one stream: blocks one after the other, each opened by the first thing that is said in it."""

    __slots__ = ("_context", "_index", "_open")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._index = -1
        self._open = ""

    def take_rest(self) -> Iterable[bytes]:
        return ()

    def encode(self, event: Event, usage: Usage | None) -> bytes:
        kind = type(event)
        if kind is TextDelta or kind is RefusalDelta:
            return self._inside(_TEXT) + self._delta(b"text_delta", b"text", event.text)  # type: ignore[union-attr]
        if type(event) is CallDelta:
            return self._delta(b"input_json_delta", b"partial_json", event.arguments)
        if type(event) is ReasoningDelta:
            return self._inside(_THINKING) + self._delta(b"thinking_delta", b"thinking", event.text)
        if type(event) is CallStarted:
            return self._start_call(event)
        if type(event) is ReasoningEnded:
            return self._end_reasoning(event)
        if type(event) is PartEnded:
            return self._close()
        if type(event) is Started:
            return self._start(event, usage)
        return self._end(event, usage) if type(event) is Ended else b""

    def around(self, delta: Delta) -> Around | None:
        kind, member = _WORDS[type(delta)]
        return Around(_BEFORE % (self._index, kind, member) + b'"', b'"' + _AFTER)

    def _inside(self, block: dict[str, Any]) -> bytes:
        """What opens a block of this kind, unless one is open."""
        if self._open == block["type"]:
            return b""
        return self._start_block(block)

    def _start_block(self, block: dict[str, Any]) -> bytes:
        closed = self._close()
        self._index += 1
        self._open = block["type"]
        return closed + _event(
            b"content_block_start", {"type": "content_block_start", "index": self._index, "content_block": block}
        )

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _STOP % self._index

    def _delta(self, kind: bytes, member: bytes, value: str) -> bytes:
        return _BEFORE % (self._index, kind, member) + _encode(value) + _AFTER

    def _start_call(self, event: CallStarted) -> bytes:
        return self._start_block({"type": "tool_use", "id": safe_id(event.id), "name": event.name, "input": {}})

    def _end_reasoning(self, event: ReasoningEnded) -> bytes:
        block = shown_block(event.whole)
        if block["type"] != "thinking":
            return self._start_block(block) + self._close()
        signature = signature_of(event.whole)
        if not signature:
            return self._close() if self._open == "thinking" else b""
        opened = self._inside(_THINKING)
        return opened + self._delta(b"signature_delta", b"signature", signature) + self._close()

    def _start(self, event: Started, usage: Usage | None) -> bytes:
        message: dict[str, Any] = {
            "id": answer_id(event.id, "msg_"),
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage_of(usage, self._context.estimated_input), "output_tokens": 1},
        }
        return _event(b"message_start", {"type": "message_start", "message": message})

    def _end(self, event: Ended, usage: Usage | None) -> bytes:
        delta = {"stop_reason": STOP_REASONS[event.stop], "stop_sequence": event.stop_sequence}
        counted = usage_of(usage, self._context.estimated_input)
        last = _event(b"message_delta", {"type": "message_delta", "delta": delta, "usage": counted})
        return self._close() + last + _END


def _event(name: bytes, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, _encode(data))
