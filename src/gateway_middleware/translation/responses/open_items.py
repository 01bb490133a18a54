"""Items of an output while they are being said: the events that begin, continue and end each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.responses.output import (
    annotation_of,
    call_item,
    message_item,
    reasoning_item,
    refusal_content,
    text_content,
)
from gateway_middleware.translation.vocabulary import Citation, Reasoning, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.events import CallStarted

_Body = dict[str, Any]


class OpenItem(ABC):
    """One item. `output_index` is its place in the output."""

    __slots__ = ("_pieces", "item_id", "output_index")

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.output_index = 0
        self._pieces: list[str] = []

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

    @abstractmethod
    def say(self, text: str) -> list[_Body]:
        """The events for more of it."""

    @abstractmethod
    def end_part(self) -> list[_Body]:
        """The events that end what is being said."""

    def _event(self, kind: str, **members: Any) -> _Body:
        return {"type": f"response.{kind}", "item_id": self.item_id, "output_index": self.output_index, **members}


class OpenText(OpenItem):
    """A message: parts of text and of refusal."""

    __slots__ = ("_annotations", "_content", "_is_refusal", "_is_speaking")

    def __init__(self, item_id: str) -> None:
        super().__init__(item_id)
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
        if self._is_speaking and self._is_refusal is is_refusal:
            return []
        ended = self.end_part()
        self._is_speaking, self._is_refusal = True, is_refusal
        empty = refusal_content("") if is_refusal else text_content("", [])
        return [*ended, self._part_event("content_part.added", part=empty)]

    def say(self, text: str) -> list[_Body]:
        self._pieces.append(text)
        if self._is_refusal:
            return [self._part_event("refusal.delta", delta=text)]
        return [self._part_event("output_text.delta", delta=text, logprobs=[])]

    def cite(self, citation: Citation) -> list[_Body]:
        length = sum(map(len, self._pieces))
        annotation = annotation_of(citation, 0, length)
        if annotation is None or not self._is_speaking:
            return []
        self._annotations.append(annotation)
        place = len(self._annotations) - 1
        return [self._part_event("output_text.annotation.added", annotation_index=place, annotation=annotation)]

    def end_part(self) -> list[_Body]:
        if not self._is_speaking:
            return []
        text, annotations = "".join(self._pieces), self._annotations
        self._pieces, self._annotations, self._is_speaking = [], [], False
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

    __slots__ = ("_namespaces", "_started")

    def __init__(self, item_id: str, started: CallStarted, namespaces: dict[str, tuple[str, str]]) -> None:
        super().__init__(item_id)
        self._started = started
        self._namespaces = namespaces

    def first_item(self) -> _Body:
        return call_item(self.item_id, self._call(""), self._namespaces, "in_progress")

    def whole_item(self) -> _Body:
        return call_item(self.item_id, self._call("".join(self._pieces)), self._namespaces)

    def say(self, text: str) -> list[_Body]:
        self._pieces.append(text)
        kind = "custom_tool_call_input.delta" if self._started.is_free_form else "function_call_arguments.delta"
        return [self._event(kind, delta=text)]

    def end_part(self) -> list[_Body]:
        item = self.whole_item()
        if self._started.is_free_form:
            return [self._event("custom_tool_call_input.done", input=item["input"])]
        return [self._event("function_call_arguments.done", name=item["name"], arguments=item["arguments"])]

    def _call(self, arguments: str) -> ToolCall:
        started = self._started
        return ToolCall(id=started.id, name=started.name, arguments=arguments, is_free_form=started.is_free_form)


class OpenReasoning(OpenItem):
    """Reasoning, shown as a summary. `whole` is what its vendor said of all of it at the end."""

    __slots__ = ("whole",)

    def __init__(self, item_id: str) -> None:
        super().__init__(item_id)
        self.whole: Reasoning | None = None

    def first_item(self) -> _Body:
        return reasoning_item(self.item_id, Reasoning())

    def whole_item(self) -> _Body:
        return reasoning_item(self.item_id, self.whole or Reasoning(text="".join(self._pieces)))

    def say(self, text: str) -> list[_Body]:
        delta = self._event("reasoning_summary_text.delta", summary_index=0, delta=text)
        is_first = not self._pieces
        self._pieces.append(text)
        if not is_first:
            return [delta]
        empty = {"type": "summary_text", "text": ""}
        return [self._event("reasoning_summary_part.added", summary_index=0, part=empty), delta]

    def end_part(self) -> list[_Body]:
        text = "".join(self._pieces)
        if not text:
            return []
        part = {"type": "summary_text", "text": text}
        return [
            self._event("reasoning_summary_text.done", summary_index=0, text=text),
            self._event("reasoning_summary_part.done", summary_index=0, part=part),
        ]
