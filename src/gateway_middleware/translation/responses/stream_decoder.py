"""A stream of Responses, read into events of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UpstreamProtocolError
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
from gateway_middleware.translation.responses.answer_decoder import Envelope, Item, citation_of, reasoning_of, stop_of
from gateway_middleware.translation.vocabulary import Refusal, Stop, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway_middleware.translation.context import Context


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    output_index: int = 0
    summary_index: int = 0
    arguments: str | None = None
    input: str | None = None
    item: Item | None = None
    annotation: dict[str, Any] | None = None
    response: Envelope | None = None


_decode = msgspec.json.Decoder(_Event).decode
_CALLS = frozenset({"function_call", "custom_tool_call"})
_ENDS = frozenset({"response.completed", "response.incomplete"})


class ResponsesStreamDecoder:
    """Follows one stream."""

    __slots__ = ("_calls", "_ended", "_has_deltas", "_kinds", "_readers")

    def __init__(self, context: Context) -> None:
        self._calls: dict[int, int] = {}
        self._has_deltas: set[int] = set()
        self._kinds: set[type[object]] = set()
        self._ended = Ended(Stop.END)
        self._readers: dict[str, Callable[[_Event], Iterable[Event]]] = {
            "response.output_text.delta": self._text,
            "response.function_call_arguments.delta": self._arguments,
            "response.custom_tool_call_input.delta": self._arguments,
            "response.function_call_arguments.done": self._all_arguments,
            "response.custom_tool_call_input.done": self._all_arguments,
            "response.refusal.delta": self._refusal,
            "response.reasoning_summary_text.delta": self._reasoning,
            "response.reasoning_text.delta": self._reasoning,
            "response.reasoning_summary_part.added": self._next_summary,
            "response.output_text.annotation.added": self._citation,
            "response.output_item.added": self._start_item,
            "response.output_item.done": self._end_item,
            "response.created": self._start,
        }

    def decode(self, data: bytes) -> Iterable[Event]:
        try:
            event = _decode(data)
        except (ValueError, RecursionError):
            raise UpstreamProtocolError("The provider sent an event that is no event of Responses.") from None
        reader = self._readers.get(event.type)
        if reader is not None:
            return reader(event)
        if event.type in _ENDS and event.response is not None:
            self._ended = Ended(stop_of(event.response, self._kinds))
        return ()

    def repeats(self, data: bytes) -> None:
        """No event of this format repeats another: they are numbered."""

    def finish(self) -> Iterable[Event]:
        return (self._ended,)

    def _start(self, event: _Event) -> Iterable[Event]:
        return (Started(event.response.id or "", event.response.model or ""),) if event.response is not None else ()

    def _text(self, event: _Event) -> Iterable[Event]:
        return (TextDelta(str(event.delta)),) if event.delta else ()

    def _refusal(self, event: _Event) -> Iterable[Event]:
        self._kinds.add(Refusal)
        return (RefusalDelta(str(event.delta)),) if event.delta else ()

    def _reasoning(self, event: _Event) -> Iterable[Event]:
        return (ReasoningDelta(str(event.delta)),) if event.delta else ()

    def _next_summary(self, event: _Event) -> Iterable[Event]:
        return (ReasoningDelta("\n\n"),) if event.summary_index > 0 else ()

    def _citation(self, event: _Event) -> Iterable[Event]:
        return (CitationAdded(citation_of(event.annotation)),) if event.annotation is not None else ()

    def _start_item(self, event: _Event) -> Iterable[Event]:
        item = event.item
        if item is None or item.type not in _CALLS:
            return ()
        self._kinds.add(ToolCall)
        index = self._calls[event.output_index] = len(self._calls)
        return (CallStarted(index, item.call_id or "", item.name or "", item.type == "custom_tool_call"),)

    def _arguments(self, event: _Event) -> Iterable[Event]:
        index = self._calls.get(event.output_index)
        if index is None or not event.delta:
            return ()
        self._has_deltas.add(index)
        return (CallDelta(index, str(event.delta)),)

    def _all_arguments(self, event: _Event) -> Iterable[Event]:
        """Some send the arguments only here."""
        index, whole = self._calls.get(event.output_index), event.arguments or event.input
        if index is None or index in self._has_deltas or not whole:
            return ()
        self._has_deltas.add(index)
        return (CallDelta(index, whole),)

    def _end_item(self, event: _Event) -> Iterable[Event]:
        item = event.item
        if item is None:
            return ()
        if item.type == "reasoning":
            reasoning = reasoning_of(item)
            return () if reasoning is None else (ReasoningEnded(reasoning),)
        index = self._calls.get(event.output_index)
        return (PartEnded(index),) if index is not None or item.type == "message" else ()
