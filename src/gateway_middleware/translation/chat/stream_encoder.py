"""Events of the vocabulary, written as the chunks of a chat completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway_middleware.translation.chat.answer_encoder import FINISH_REASONS, annotation_of
from gateway_middleware.translation.chat.usage import usage_of
from gateway_middleware.translation.context import Around
from gateway_middleware.translation.events import (
    CallDelta,
    CallStarted,
    CitationAdded,
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
from gateway_middleware.translation.thinking_blocks import shown_block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.core.domain import Usage
    from gateway_middleware.translation.context import Context

_encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"
_CHOICE = b'[{"index":0,"delta":'
_CALL_TAIL = b"}}]}"


class ChatStreamEncoder:
    """Writes one stream: a chunk with the role, one for each delta, one with the finish reason, usage when asked."""

    __slots__ = ("_context", "_free_form", "_head", "_idle_calls", "_length", "_tail")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._head = b""
        usage = b',"usage":null' if context.wants_usage else b""
        self._tail = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._idle_calls: set[int] = set()
        self._free_form: set[int] = set()
        self._length = 0

    def take_rest(self) -> Iterable[bytes]:
        return ()

    def around(self, delta: Delta) -> Around | None:
        note = None
        before, after = b'{"reasoning_content":"', b'"}'
        if type(delta) is TextDelta:
            before, note = b'{"content":"', self._lengthen
        elif type(delta) is CallDelta:
            before, after = self._call_head(delta.index) + b'"', b'"' + _CALL_TAIL
        return Around(self._head + _CHOICE + before, after + self._tail, note)

    def encode(self, event: Event, usage: Usage | None) -> bytes:
        if type(event) is TextDelta:
            self._length += len(event.text)
            return self._chunk(b'{"content":' + _encode(event.text) + b"}")
        if type(event) is CallDelta:
            self._idle_calls.discard(event.index)
            return self._arguments(event.index, event.arguments)
        if type(event) is ReasoningDelta:
            return self._chunk(b'{"reasoning_content":' + _encode(event.text) + b"}")
        if type(event) is Started:
            return self._start(event)
        if type(event) is CallStarted:
            return self._start_call(event)
        return self._end(event, usage) if type(event) is Ended else self._other(event)

    def _other(self, event: Event) -> bytes:
        if type(event) is PartEnded:
            return self._end_part(event.index)
        if type(event) is ReasoningEnded:
            blocks = [shown_block(event.whole)] if event.whole.proof is not None else []
            return self._chunk(_encode({"thinking_blocks": blocks})) if blocks else b""
        if type(event) is RefusalDelta:
            return self._chunk(b'{"refusal":' + _encode(event.text) + b"}")
        citation = cast(CitationAdded, event).citation  # no other kind is left
        annotation = annotation_of(citation, self._length, self._length)
        return self._chunk(_encode({"annotations": [annotation]})) if annotation else b""

    def _chunk(self, delta: bytes) -> bytes:
        return self._head + _CHOICE + delta + self._tail

    def _start(self, event: Started) -> bytes:
        head: dict[str, Any] = {
            "id": answer_id(event.id, "chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": self._context.created,
            "model": event.model,
        }
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":'
        return self._chunk(b'{"role":"assistant","content":"","refusal":null}')

    def _start_call(self, event: CallStarted) -> bytes:
        call: dict[str, Any] = {"index": event.index, "id": event.id}
        if event.is_free_form:
            self._free_form.add(event.index)
            call |= {"type": "custom", "custom": {"name": event.name, "input": ""}}
        else:
            self._idle_calls.add(event.index)
            call |= {"type": "function", "function": {"name": event.name, "arguments": ""}}
        return self._chunk(_encode({"tool_calls": [call]}))

    def _arguments(self, index: int, arguments: str) -> bytes:
        return self._chunk(self._call_head(index) + _encode(arguments) + _CALL_TAIL)

    def _call_head(self, index: int) -> bytes:
        member = (b"custom", b"input") if index in self._free_form else (b"function", b"arguments")
        return b'{"tool_calls":[{"index":%d,"%b":{"%b":' % (index, *member)

    def _lengthen(self, text: str) -> None:
        self._length += len(text)

    def _end_part(self, index: int | None) -> bytes:
        """A call without arguments has an empty object of them."""
        if index is None or index not in self._idle_calls:
            return b""
        self._idle_calls.discard(index)
        return self._arguments(index, "{}")

    def _end(self, event: Ended, usage: Usage | None) -> bytes:
        missing = b"".join([self._end_part(index) for index in sorted(self._idle_calls)])
        reason = FINISH_REASONS[event.stop].encode()
        nothing = b',"usage":null}\n\n' if self._context.wants_usage else b"}\n\n"
        last = b'[{"index":0,"delta":{},"logprobs":null,"finish_reason":"%b"}]' % reason
        counted = b'[],"usage":%b}\n\n' % _encode(usage_of(usage))
        return (
            missing + self._head + last + nothing + (self._head + counted if self._context.wants_usage else b"") + _DONE
        )
