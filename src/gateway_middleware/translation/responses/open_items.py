"""Items of an output while they are being said: the events that begin, continue and end each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.responses.client_tools import SEARCH
from gateway_middleware.translation.responses.held_text import HeldText, LongTexts
from gateway_middleware.translation.responses.output import (
    annotation_of,
    call_item,
    message_item,
    reasoning_item,
    refusal_content,
    search_item,
    text_content,
)
from gateway_middleware.translation.vocabulary import Citation, Reasoning, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.events import CallStarted
    from gateway_middleware.translation.responses.client_tools import ClientTools

_Body = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class OpenItem(ABC):
    """One item. `output_index` is its place in the output; `texts` names what it says where that is long."""

    __slots__ = ("_frame", "_said", "_texts", "item_id", "output_index")

    def __init__(self, item_id: str, texts: LongTexts) -> None:
        self.item_id = item_id
        self.output_index = 0
        self._texts = texts
        self._frame = (b"", b"")
        self._said = HeldText()

    def added(self) -> list[_Body]:
        return [{"type": "response.output_item.added", "output_index": self.output_index, "item": self.first_item()}]

    def done(self) -> list[_Body]:
        last = {"type": "response.output_item.done", "output_index": self.output_index}
        return [*self.end_part(), {**last, "item": self.whole_item()}]

    @abstractmethod
    def first_item(self) -> _Body:
        """The item before anything is said."""

    @abstractmethod
    def whole_item(self) -> _Body:
        """The item when all is said."""

    def say(self, text: str, sequence: int) -> bytes:
        """The server-sent event for more of it, by its number: nearly all events are of this kind."""
        before, after = self._frame
        return b"%b%b%b%d}\n\n" % (before, self._said.add(text), after, sequence)

    def _expect(self, kind: str, **members: Any) -> None:
        """Deltas are of this kind from now on."""
        event = _encode(self._event(kind, **members))
        before = b'event: response.%b\ndata: %b,"delta":' % (kind.encode(), event[:-1])
        logprobs = b',"logprobs":[]' if kind == "output_text.delta" else b""
        self._frame = (before, logprobs + b',"sequence_number":')

    @abstractmethod
    def end_part(self) -> list[_Body]:
        """The events that end what is being said."""

    def _text(self) -> str:
        """What has been said in the part that is open, or its name."""
        return self._texts.name_of(self._said)

    def _event(self, kind: str, **members: Any) -> _Body:
        return {"type": f"response.{kind}", "item_id": self.item_id, "output_index": self.output_index, **members}


class OpenText(OpenItem):
    """A message: parts of text and of refusal."""

    __slots__ = ("_annotations", "_content", "_is_refusal", "_is_speaking")

    def __init__(self, item_id: str, texts: LongTexts) -> None:
        super().__init__(item_id, texts)
        self._content: list[_Body] = []
        self._annotations: list[_Body] = []
        self._is_refusal = False
        self._is_speaking = False

    def first_item(self) -> _Body:
        return message_item(self.item_id, [], "in_progress")

    def whole_item(self) -> _Body:
        return message_item(self.item_id, self._content)

    def turn_to(self, *, is_refusal: bool) -> list[_Body]:
        """The events that begin a part of that kind, unless one is open."""
        if self.is_saying(is_refusal=is_refusal):
            return []
        ended = self.end_part()
        self._is_speaking, self._is_refusal = True, is_refusal
        self._expect("refusal.delta" if is_refusal else "output_text.delta", content_index=len(self._content))
        empty = refusal_content("") if is_refusal else text_content("", [])
        return [*ended, self._part_event("content_part.added", part=empty)]

    def is_saying(self, *, is_refusal: bool) -> bool:
        """Whether a part of that kind is open."""
        return self._is_speaking and self._is_refusal is is_refusal

    def cite(self, citation: Citation) -> list[_Body]:
        annotation = annotation_of(citation, 0, self._said.length)
        if annotation is None or not self._is_speaking:
            return []
        self._annotations.append(annotation)
        place = len(self._annotations) - 1
        return [self._part_event("output_text.annotation.added", annotation_index=place, annotation=annotation)]

    def end_part(self) -> list[_Body]:
        if not self._is_speaking:
            return []
        text, annotations = self._text(), self._annotations
        self._said, self._annotations, self._is_speaking = HeldText(), [], False
        if self._is_refusal:
            part, done = refusal_content(text), self._part_event("refusal.done", refusal=text)
        else:
            part = text_content(text, annotations)
            done = self._part_event("output_text.done", text=text, logprobs=[])
        events = [done, self._part_event("content_part.done", part=part)]
        self._content.append(part)
        return events

    def _part_event(self, kind: str, **members: Any) -> _Body:
        return self._event(kind, content_index=len(self._content), **members)


class OpenCall(OpenItem):
    """A call of a function or of a free-form tool."""

    __slots__ = ("_started", "_tools")

    def __init__(self, item_id: str, texts: LongTexts, started: CallStarted, tools: ClientTools) -> None:
        super().__init__(item_id, texts)
        self._started = started
        self._tools = tools

    def first_item(self) -> _Body:
        return call_item(self.item_id, self._call(""), self._tools, "in_progress")

    def whole_item(self) -> _Body:
        return call_item(self.item_id, self._call(self._text()), self._tools)

    def added(self) -> list[_Body]:
        free_form = self._started.is_free_form
        self._expect("custom_tool_call_input.delta" if free_form else "function_call_arguments.delta")
        return super().added()

    def end_part(self) -> list[_Body]:
        item = self.whole_item()
        if self._started.is_free_form:
            return [self._event("custom_tool_call_input.done", input=item["input"])]
        return [self._event("function_call_arguments.done", name=item["name"], arguments=item["arguments"])]

    def _call(self, arguments: str) -> ToolCall:
        started = self._started
        return ToolCall(id=started.id, name=started.name, arguments=arguments, is_free_form=started.is_free_form)


class OpenSearch(OpenItem):
    """A call of the client's search for tools, which has no events for its arguments: they come with its end."""

    __slots__ = ("_call_id",)

    def __init__(self, item_id: str, texts: LongTexts, started: CallStarted) -> None:
        super().__init__(item_id, texts)
        self._call_id = started.id

    def first_item(self) -> _Body:
        return search_item(self.item_id, self._call(""), "in_progress")

    def whole_item(self) -> _Body:
        return search_item(self.item_id, self._call(str(self._said)))

    def say(self, text: str, sequence: int) -> bytes:
        self._said.add(text)
        return b""

    def end_part(self) -> list[_Body]:
        return []

    def _call(self, arguments: str) -> ToolCall:
        return ToolCall(id=self._call_id, name=SEARCH, arguments=arguments)


class OpenReasoning(OpenItem):
    """Reasoning, shown as a summary. `whole` is what its vendor said of all of it at the end."""

    __slots__ = ("whole",)

    def __init__(self, item_id: str, texts: LongTexts) -> None:
        super().__init__(item_id, texts)
        self.whole: Reasoning | None = None

    def first_item(self) -> _Body:
        return reasoning_item(self.item_id, Reasoning())

    def whole_item(self) -> _Body:
        whole = self.whole
        if whole is None:
            return reasoning_item(self.item_id, Reasoning(text=self._text()))
        if not whole.text or (self._said.is_long and len(whole.text) == self._said.length):
            whole = msgspec.structs.replace(whole, text=self._text())
        return reasoning_item(self.item_id, whole)

    def begin(self) -> list[_Body]:
        """The event that begins the summary, before the first that is said."""
        if self._said.length:
            return []
        self._expect("reasoning_summary_text.delta", summary_index=0)
        empty = {"type": "summary_text", "text": ""}
        return [self._event("reasoning_summary_part.added", summary_index=0, part=empty)]

    def end_part(self) -> list[_Body]:
        text = self._text()
        if not text:
            return []
        part = {"type": "summary_text", "text": text}
        return [
            self._event("reasoning_summary_text.done", summary_index=0, text=text),
            self._event("reasoning_summary_part.done", summary_index=0, part=part),
        ]
