"""A stream of Messages, read into events of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.translation.context import Repeated
from gateway_middleware.translation.events import (
    CallDelta,
    CallStarted,
    CitationAdded,
    Ended,
    Event,
    PartEnded,
    ReasoningDelta,
    ReasoningEnded,
    RefusalDelta,
    Started,
    TextDelta,
)
from gateway_middleware.translation.free_form import Unwrapper
from gateway_middleware.translation.messages.answer_decoder import StopDetails, citation_of, stop_of
from gateway_middleware.translation.structured import ANSWER_TOOL
from gateway_middleware.translation.thinking_blocks import read_redacted, read_thinking
from gateway_middleware.translation.vocabulary import Stop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.translation.context import Context


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class _Block(msgspec.Struct):
    type: str
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    delta: _Delta = msgspec.field(default_factory=_Delta)
    content_block: _Block | None = None
    message: _Message | None = None


_decode = msgspec.json.Decoder(_Event).decode
_TEXT, _THINKING, _CALL, _ANSWER = "text", "thinking", "tool_use", "answer"


class MessagesStreamDecoder:
    """Follows one stream."""

    __slots__ = ("_calls", "_context", "_ended", "_kind", "_signature", "_thinking", "_unwrapper")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._calls = 0
        self._kind = ""
        self._thinking: list[str] = []
        self._signature = ""
        self._unwrapper: Unwrapper | None = None
        self._ended = Ended(Stop.END)

    def decode(self, data: bytes) -> Iterable[Event]:
        try:
            event = _decode(data)
        except (ValueError, RecursionError):
            raise UpstreamProtocolError("The provider sent an event that is no event of Messages.") from None
        kind = event.type
        if kind == "content_block_delta":
            return self._delta(event.delta)
        if kind == "content_block_start" and event.content_block is not None:
            return self._start(event.content_block)
        if kind == "content_block_stop":
            return self._stop()
        if kind == "message_start" and event.message is not None:
            return (Started(event.message.id, event.message.model),)
        return self._end(event.delta) if kind == "message_delta" else ()

    def repeats(self, data: bytes) -> Repeated | None:
        event = _decode(data)
        delta = event.delta
        if event.type != "content_block_delta":
            return None
        if delta.type == "text_delta":
            return Repeated(TextDelta(delta.text), delta.text) if delta.text else None
        if delta.type == "thinking_delta":
            text = delta.thinking
            return Repeated(ReasoningDelta(text), text, self._thinking.append) if text else None
        is_call = delta.type == "input_json_delta" and self._kind == _CALL and self._unwrapper is None
        arguments = delta.partial_json if is_call else None
        return Repeated(CallDelta(self._calls - 1, arguments), arguments) if arguments else None

    def finish(self) -> Iterable[Event]:
        return (self._ended,)

    def _delta(self, delta: _Delta) -> Iterable[Event]:
        kind = delta.type
        if kind == "text_delta":
            return (TextDelta(delta.text),) if delta.text else ()
        if kind == "input_json_delta":
            return self._arguments(delta.partial_json or "")
        if kind == "thinking_delta":
            text = delta.thinking or ""
            self._thinking.append(text)
            return (ReasoningDelta(text),) if text else ()
        if kind == "signature_delta":
            self._signature += delta.signature or ""
        elif kind == "citations_delta" and delta.citation is not None:
            return (CitationAdded(citation_of(delta.citation)),)
        return ()

    def _arguments(self, piece: str) -> Iterable[Event]:
        if self._kind == _ANSWER:
            return (TextDelta(piece),) if piece else ()
        if self._unwrapper is not None:
            piece = self._unwrapper.feed(piece)
        return (CallDelta(self._calls - 1, piece),) if piece and self._kind == _CALL else ()

    def _start(self, block: _Block) -> Iterable[Event]:
        self._kind = block.type
        if block.type == _TEXT:
            return (TextDelta(block.text),) if block.text else ()
        if block.type == _THINKING:
            self._thinking, self._signature = [block.thinking or ""], block.signature or ""
            return (ReasoningDelta(block.thinking),) if block.thinking else ()
        if block.type == "redacted_thinking":
            return (ReasoningEnded(read_redacted(block.data or "")),)
        return self._start_call(block) if block.type == _CALL else ()

    def _start_call(self, block: _Block) -> Iterable[Event]:
        if self._context.has_answer_tool and block.name == ANSWER_TOOL:
            self._kind = _ANSWER
            return ()
        is_free_form = block.name in self._context.free_form
        self._unwrapper = Unwrapper() if is_free_form else None
        self._calls += 1
        started = CallStarted(self._calls - 1, block.id or "", block.name or "", is_free_form)
        whole = bytes(block.input).decode()
        # Some hosts give all arguments at once, in the start of the block.
        return (started, *self._arguments(whole)) if whole != "{}" else (started,)

    def _stop(self) -> Iterable[Event]:
        kind, self._kind = self._kind, ""
        if kind == _THINKING:
            return (ReasoningEnded(read_thinking("".join(self._thinking), self._signature)),)
        if kind == _CALL:
            return (PartEnded(self._calls - 1),)
        return (PartEnded(),) if kind == _TEXT else ()

    def _end(self, delta: _Delta) -> Iterable[Event]:
        stop = stop_of(delta.stop_reason, has_calls=self._calls > 0)
        self._ended = Ended(stop, delta.stop_sequence)
        explanation = delta.stop_details.explanation if delta.stop_details is not None else None
        return (RefusalDelta(explanation),) if explanation else ()
