"""The chunks of a chat completion, read into events of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.translation.chat.answer_decoder import Called, reasoning_of, stop_of
from gateway_middleware.translation.chat.signatures import signature_in
from gateway_middleware.translation.context import Repeated
from gateway_middleware.translation.events import (
    CallDelta,
    CallStarted,
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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.translation.context import Context
    from gateway_middleware.translation.vocabulary import Reasoning


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: Called | None = None
    custom: Called | None = None
    extra_content: Any = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    """The word of some servers for the same."""
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_any = msgspec.json.Decoder().decode


class _OpenCall:
    """A call whose arguments are on their way."""

    __slots__ = ("_unwrapper", "arguments", "index", "signature", "started")

    def __init__(
        self, index: int, started: CallStarted, signature: Reasoning | None, unwrapper: Unwrapper | None
    ) -> None:
        self.index = index
        self.started = started
        self.signature = signature
        self._unwrapper = unwrapper
        self.arguments: list[str] = []

    def begin(self) -> list[Event]:
        """What comes before its arguments."""
        return [self.started] if self.signature is None else [ReasoningEnded(self.signature), self.started]

    def say(self, piece: str) -> list[Event]:
        """What a piece of its arguments, in their order, says."""
        text = piece if self._unwrapper is None else self._unwrapper.feed(piece)
        return [CallDelta(self.started.index, text)] if text else []

    @property
    def is_unwrapped(self) -> bool:
        """Whether its arguments are JSON, from which text is taken."""
        return self._unwrapper is not None

    @property
    def is_whole(self) -> bool:
        try:
            _decode_any("".join(self.arguments))
        except (ValueError, RecursionError):
            return False
        return True


def _only_delta(chunk: _Chunk) -> _Delta | None:
    """The delta of a chunk that has nothing else to say."""
    choices = chunk.choices or ()
    if len(choices) != 1 or choices[0].index != 0 or choices[0].finish_reason:
        return None
    return choices[0].delta


class ChatStreamDecoder:
    """Follows one stream. Calls come out one after the other, also where their pieces come mixed.

    Pieces of a later call wait only while the arguments of the one before it are not a whole JSON value.
    """

    __slots__ = ("_calls", "_free_form", "_has_refusal", "_has_started", "_order", "_reason")

    def __init__(self, context: Context) -> None:
        self._free_form = context.free_form
        self._has_started = False
        self._has_refusal = False
        self._reason: str | None = None
        self._calls: dict[int, _OpenCall] = {}
        self._order: list[int] = []

    def decode(self, data: bytes) -> Iterable[Event]:
        if data.startswith(b"[DONE]"):
            return ()
        try:
            chunk = _decode(data)
        except (ValueError, RecursionError):
            raise UpstreamProtocolError("The provider sent an event that is no chunk of a chat completion.") from None
        events: list[Event] = []
        for choice in chunk.choices or ():
            if not self._has_started:
                self._has_started = True
                events.append(Started(chunk.id or "", chunk.model or ""))
            if choice.index == 0:
                self._reason = choice.finish_reason or self._reason
                self._read(choice.delta, events)
        return events

    def repeats(self, data: bytes) -> Repeated | None:
        delta = _only_delta(_decode(data))
        if delta is None or delta.refusal:
            return None
        reasoning = reasoning_of(delta.reasoning_content, delta.reasoning)
        if delta.tool_calls:
            return None if reasoning or delta.content else self._repeated_call(delta.tool_calls)
        if reasoning:
            return None if delta.content else Repeated(ReasoningDelta(reasoning), reasoning)
        return Repeated(TextDelta(delta.content), delta.content) if delta.content else None

    def _repeated_call(self, pieces: list[_Call]) -> Repeated | None:
        """More arguments of the call that comes out now, where they come out as they are."""
        piece = pieces[0]
        call = self._calls.get(-1 if piece.index is None else piece.index)
        called = piece.function
        if len(pieces) > 1 or call is None or called is None or self._order[:1] != [call.index] or call.is_unwrapped:
            return None
        arguments = called.arguments
        return (
            Repeated(CallDelta(call.started.index, arguments), arguments, call.arguments.append) if arguments else None
        )

    def finish(self) -> Iterable[Event]:
        events: list[Event] = [] if self._has_started else [Started("", "")]
        while self._order:
            self._close_first(events)
        stop = stop_of(self._reason, has_calls=bool(self._calls), has_refusal=self._has_refusal)
        return [*events, Ended(stop)]

    def _read(self, delta: _Delta | None, events: list[Event]) -> None:
        if delta is None:
            return
        reasoning = reasoning_of(delta.reasoning_content, delta.reasoning)
        if reasoning:
            events.append(ReasoningDelta(reasoning))
        if delta.content:
            events.append(TextDelta(delta.content))
        if delta.refusal:
            self._has_refusal = True
            events.append(RefusalDelta(delta.refusal))
        for call in delta.tool_calls or ():
            self._read_call(call, events)

    def _read_call(self, piece: _Call, events: list[Event]) -> None:
        index = self._index_of(piece)
        called = piece.function or piece.custom or Called()
        call = self._calls.get(index)
        if call is None:
            call = self._open(index, piece, called, events)
        arguments = called.arguments or called.input or ""
        if not arguments or self._is_late(index, arguments):
            return
        call.arguments.append(arguments)
        if self._order[0] == index:
            events += call.say(arguments)
        elif self._calls[self._order[0]].is_whole:
            self._close_first(events)

    def _is_late(self, index: int, arguments: str) -> bool:
        """Whether the call has ended. Raises `UpstreamProtocolError` when more than white space comes after it."""
        if index in self._order:
            return False
        if arguments.strip():
            raise UpstreamProtocolError("The provider sent more of a tool call after its arguments were whole.")
        return True

    def _index_of(self, piece: _Call) -> int:
        """Some leave the index out: an id then says that another call begins."""
        if piece.index is not None:
            return piece.index
        return len(self._calls) if piece.id or not self._calls else len(self._calls) - 1

    def _open(self, index: int, piece: _Call, called: Called, events: list[Event]) -> _OpenCall:
        is_wrapped = piece.custom is None and called.name in self._free_form
        is_free_form = is_wrapped or piece.custom is not None
        started = CallStarted(len(self._calls), piece.id or f"call_{index}", called.name or "", is_free_form)
        unwrapper = Unwrapper() if is_wrapped else None
        call = self._calls[index] = _OpenCall(index, started, signature_in(piece.extra_content), unwrapper)
        self._order.append(index)
        if len(self._order) > 1 and self._calls[self._order[0]].is_whole:
            self._close_first(events)
        elif len(self._order) == 1:
            events += call.begin()
        return call

    def _close_first(self, events: list[Event]) -> None:
        """The first open call is whole; the next one comes out with what of it has waited."""
        ended = self._calls[self._order.pop(0)]
        ended.arguments.clear()
        events.append(PartEnded(ended.started.index))
        if self._order:
            following = self._calls[self._order[0]]
            events += following.begin()
            for piece in following.arguments:
                events += following.say(piece)
