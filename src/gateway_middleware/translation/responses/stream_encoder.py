"""Events of the vocabulary, written as a stream of Responses."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

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
from gateway_middleware.translation.responses.client_tools import client_tools
from gateway_middleware.translation.responses.envelope import ending, envelope, incomplete_reason
from gateway_middleware.translation.responses.held_text import LongTexts
from gateway_middleware.translation.responses.open_items import OpenCall, OpenItem, OpenReasoning, OpenSearch, OpenText
from gateway_middleware.translation.vocabulary import Reasoning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway_middleware.core.domain import Usage
    from gateway_middleware.translation.context import Context
    from gateway_middleware.translation.responses.client_tools import ClientTools

_encode = msgspec.json.Encoder().encode
_Body = dict[str, Any]


class ResponsesStreamEncoder:
    """Writes one stream: items one after the other, each with its done events, and the whole response at the end.

    The format repeats all that was said at the end, so that the text of the answer is held until then, once. Events
    that repeat a long text, and what follows them, are the rest that is written when it is taken.
    """

    __slots__ = ("_context", "_has_refusal", "_open", "_output", "_response", "_rest", "_sequence", "_suffix",
                 "_texts", "_tools")  # fmt: skip

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sequence = 0
        self._suffix = ""
        self._response: _Body = {}
        self._output: list[_Body] = []
        self._open: OpenItem | None = None
        self._has_refusal = False
        self._texts = LongTexts()
        self._tools: ClientTools | None = None
        self._rest: list[bytes] = []

    def around(self, delta: Delta) -> None:
        """No event of this format repeats another: they are numbered."""

    def take_rest(self) -> Iterable[bytes]:
        if not self._rest:
            return ()
        rest, self._rest = self._rest, []
        return chain.from_iterable(map(self._texts.pieces, rest))

    def encode(self, event: Event, usage: Usage | None) -> bytes:
        if type(event) is TextDelta:
            item = self._open
            if type(item) is OpenText and item.is_saying(is_refusal=False):
                return self._say(item, event.text)
            return self._text(event.text, is_refusal=False)
        if type(event) is CallDelta:
            return b"" if self._open is None else self._say(self._open, event.arguments)
        if type(event) is ReasoningDelta:
            item, opened = self._reasoning()
            return opened + self._write(item.begin()) + self._say(item, event.text)
        if type(event) is RefusalDelta:
            self._has_refusal = True
            return self._text(event.text, is_refusal=True)
        if type(event) is CallStarted:
            return self._close() + self._add(self._open_call(event))
        if type(event) is PartEnded:
            return self._close() if event.index is not None else self._end_text()
        if type(event) is Ended:
            return self._end(event, usage)
        return self._start(event) if type(event) is Started else self._other(event)

    def _open_call(self, event: CallStarted) -> OpenItem:
        tools = self._tools
        if tools is None:  # a long conversation is looked through once, and only where there are calls
            tools = self._tools = client_tools(self._context.request)
        item_id = self._id(tools.prefix(event.name, is_free_form=event.is_free_form))
        if tools.is_search(event.name):
            return OpenSearch(item_id, self._texts, event)
        return OpenCall(item_id, self._texts, event, tools)

    def _other(self, event: Event) -> bytes:
        if type(event) is ReasoningEnded:
            return self._end_reasoning(event.whole)
        if type(event) is CitationAdded and isinstance(self._open, OpenText):
            return self._write(self._open.cite(event.citation))
        return b""

    def _write(self, events: list[_Body]) -> bytes:
        """Each event with its name and its number."""
        written = []
        for event in events:
            event["sequence_number"] = self._sequence
            self._sequence += 1
            written.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event)))
        if not self._texts.has_any:
            return b"".join(written)
        self._rest += written
        return b""

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._suffix}_{len(self._output)}"

    def _start(self, event: Started) -> bytes:
        response_id = answer_id(event.id, "resp_")
        self._suffix = response_id.removeprefix("resp_")
        self._response = envelope(response_id, event.model, self._context.created, self._context)
        return self._write(
            [{"type": f"response.{kind}", "response": self._response} for kind in ("created", "in_progress")]
        )

    def _add(self, item: OpenItem) -> bytes:
        self._open = item
        item.output_index = len(self._output)
        return self._write(item.added())

    def _reasoning(self) -> tuple[OpenReasoning, bytes]:
        """The reasoning that is open, and what opens it unless it was."""
        if isinstance(self._open, OpenReasoning):
            return self._open, b""
        closed = self._close()
        item = OpenReasoning(self._id("rs"), self._texts)
        return item, closed + self._add(item)

    def _text(self, text: str, *, is_refusal: bool) -> bytes:
        item, opened = self._open, b""
        if not isinstance(item, OpenText):
            closed = self._close()
            item = OpenText(self._id("msg"), self._texts)
            opened = closed + self._add(item)
        return opened + self._write(item.turn_to(is_refusal=is_refusal)) + self._say(item, text)

    def _say(self, item: OpenItem, text: str) -> bytes:
        written = item.say(text, self._sequence)
        if not written:
            return b""
        self._sequence += 1
        if not self._texts.has_any:
            return written
        self._rest.append(written)
        return b""

    def _end_text(self) -> bytes:
        """A text is whole; the next one, if it follows, is another part of the same message."""
        return self._write(self._open.end_part()) if isinstance(self._open, OpenText) else b""

    def _end_reasoning(self, whole: Reasoning) -> bytes:
        item, opened = self._reasoning()
        item.whole = whole
        return opened + self._close()

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        item, self._open = self._open, None
        written = self._write(item.done())
        self._output.append(item.whole_item())
        return written

    def _end(self, event: Ended, usage: Usage | None) -> bytes:
        closed = self._close()
        reason = incomplete_reason(event.stop, has_refusal=self._has_refusal)
        kind = "completed" if reason is None else "incomplete"
        whole = self._response | ending(self._output, usage, reason)
        return closed + self._write([{"type": f"response.{kind}", "response": whole}])
