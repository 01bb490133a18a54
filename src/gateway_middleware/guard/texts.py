"""Where the text stands in the events of a stream, in each of the three dialects, sans-IO."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import msgspec

from gateway_middleware.core.sse import parse_event

Key: TypeAlias = "tuple[object, ...]"
"""Which text of the stream: a choice, a content block, a part of an item."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_CHAT_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
_MESSAGES_FIELDS = {"text_delta": "text", "thinking_delta": "thinking"}
_RESPONSES_DELTAS = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)
_RESPONSES_PLACES = ("output_index", "content_index", "summary_index")


class TextEvent:
    """One event with one piece of text: which text it belongs to, and how it is written with another piece."""

    __slots__ = ("_event", "_field", "_holder", "key", "text")

    def __init__(self, event: Event, holder: dict[str, Any], field: str, key: Key) -> None:
        self._event = event
        self._holder = holder
        self._field = field
        self.key = key
        self.text: str = holder[field]

    def written(self, text: str) -> bytes:
        """The event with this text: its own bytes where nothing has changed."""
        if text == self.text and self._event.raw:
            return self._event.raw
        self._holder[self._field] = text
        return self._event.encoded()

    @property
    def is_repeated(self) -> bool:
        """Whether the stream writes this text once more, whole, when it ends."""
        return self._event.data.get("type") in _RESPONSES_DELTAS


class OtherEvent:
    """An event without text of its own. It may repeat, at its end, what a stream has written before."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    @property
    def is_silent(self) -> bool:
        """Whether it says nothing that has an order: a comment, a ping."""
        data = self._event.data
        return data is None or (isinstance(data, dict) and data.get("type") == "ping")

    @property
    def key(self) -> Key | None:
        """The text within which it stands, and which goes on behind it; None: no text goes on behind it."""
        data = self._event.data
        if not isinstance(data, dict):
            return None
        if data.get("type") == "content_block_delta":
            return ("block", data.get("index"))
        choices = data.get("choices")
        if isinstance(choices, list) and len(choices) == 1 and _goes_on(choices[0]):
            return ("choice", choices[0].get("index"), "content")
        return None

    def written(self, replaced: dict[str, str]) -> bytes:
        """The event with whole texts replaced where it repeats them."""
        return self._event.encoded() if replaced and _replace_texts(self._event.data, replaced) else self._event.raw


class Event(NamedTuple):
    """One event as it came (`raw`; empty for a part of one), and what it says."""

    raw: bytes
    name: bytes
    data: Any

    def encoded(self) -> bytes:
        """What it says by now."""
        name = b"event: " + self.name + b"\n" if self.name else b""
        return name + b"data: " + _encode(self.data) + b"\n\n"


def read_event(raw: bytes) -> list[TextEvent | OtherEvent]:
    """The event, as several where it has several texts: one for each."""
    name, data = parse_event(raw)
    try:
        members = _decode(data) if data else None
    except (ValueError, RecursionError):
        members = data  # `[DONE]`, or nothing that could be read
    event = Event(raw, name, members)
    texts = _texts_of(event) if isinstance(members, dict) else []
    return list(texts) if texts else [OtherEvent(event)]


def _texts_of(event: Event) -> list[TextEvent]:
    return _chat(event) or _messages(event) or _responses(event)


def _chat(event: Event) -> list[TextEvent]:
    """Chat's `choices[].delta` and the `choices[].text` of legacy completions."""
    choices = event.data.get("choices")
    if not isinstance(choices, list):
        return []
    found = [(choice, holder, field) for choice in choices for holder, field in _fields_of_choice(choice)]
    if len(found) == 1 and len(choices) == 1:
        choice, holder, field = found[0]
        return [TextEvent(event, holder, field, ("choice", choice.get("index"), field))]
    return [_alone(event, choice, field) for choice, _, field in found]


def _fields_of_choice(choice: Any) -> list[tuple[dict[str, Any], str]]:
    if not isinstance(choice, dict):
        return []
    delta: dict[str, Any] = choice.get("delta") or {}
    fields = [(delta, field) for field in _CHAT_FIELDS if _has_text(delta, field)]
    return fields or ([(choice, "text")] if _has_text(choice, "text") else [])


def _alone(event: Event, choice: dict[str, Any], field: str) -> TextEvent:
    """A copy of an event that has nothing but one text of one choice; what ends the choice stays with its last text."""
    copy = _decode(_encode({**event.data, "choices": [choice]}))
    only = copy["choices"][0]
    fields = [name for _, name in _fields_of_choice(only)]
    holder = only if field == "text" else only["delta"]
    for other in fields:
        if other != field:
            del holder[other]
    if field != fields[-1]:
        only["finish_reason"] = None
    return TextEvent(Event(b"", event.name, copy), holder, field, ("choice", only.get("index"), field))


def _goes_on(choice: Any) -> bool:
    """Whether a choice without text in this event neither ends nor turns to something else."""
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None:
        return False
    delta = choice.get("delta")
    return isinstance(delta, dict) and not any(delta.get(name) for name in ("tool_calls", "function_call", "audio"))


def _messages(event: Event) -> list[TextEvent]:
    delta = event.data.get("delta")
    if event.data.get("type") != "content_block_delta" or not isinstance(delta, dict):
        return []
    field = _MESSAGES_FIELDS.get(str(delta.get("type")), "")
    return [TextEvent(event, delta, field, ("block", event.data.get("index")))] if _has_text(delta, field) else []


def _responses(event: Event) -> list[TextEvent]:
    data = event.data
    if data.get("type") not in _RESPONSES_DELTAS or not _has_text(data, "delta"):
        return []
    return [TextEvent(event, data, "delta", (data["type"], *map(data.get, _RESPONSES_PLACES)))]


def _has_text(holder: Any, field: str) -> bool:
    return isinstance(holder, dict) and isinstance(holder.get(field), str) and bool(holder[field])


def _replace_texts(value: Any, replaced: dict[str, str]) -> bool:
    """Put other texts in the place of those that stand here whole. Whether there were any."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    has_changed = False
    for key, inner in list(items):
        if isinstance(inner, str) and inner in replaced:
            value[key] = replaced[inner]
            has_changed = True
        elif isinstance(inner, dict | list):
            has_changed |= _replace_texts(inner, replaced)
    return has_changed
