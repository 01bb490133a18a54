"""Where the text stands in the events of a stream, in each of the three dialects, sans-IO."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import msgspec

from gateway_middleware.core.sse import parse_event
from gateway_middleware.guard.port import Part

Key: TypeAlias = "tuple[object, ...]"
"""Which text of the stream: a choice, a tool call of a choice, a content block, a part of an item."""
_Path: TypeAlias = "tuple[str | int, ...]"
"""Where a text stands in a choice of a chat stream."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_CHAT_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
_TOOL_FIELDS = (("function", "arguments"), ("custom", "input"))
_MESSAGES_FIELDS = {
    "text_delta": ("text", Part.TEXT),
    "thinking_delta": ("thinking", Part.TEXT),
    "input_json_delta": ("partial_json", Part.TOOL_ARGUMENTS),
}
_RESPONSES_DELTAS = {
    "response.output_text.delta": Part.TEXT,
    "response.refusal.delta": Part.TEXT,
    "response.reasoning_text.delta": Part.TEXT,
    "response.reasoning_summary_text.delta": Part.TEXT,
    "response.function_call_arguments.delta": Part.TOOL_ARGUMENTS,
    "response.custom_tool_call_input.delta": Part.TOOL_ARGUMENTS,
    "response.mcp_call_arguments.delta": Part.TOOL_ARGUMENTS,
    "response.code_interpreter_call_code.delta": Part.TOOL_ARGUMENTS,
}
_RESPONSES_PLACES = ("output_index", "content_index", "summary_index")


class TextEvent:
    """One event with one piece of text: which text it belongs to, and how it is written with another piece."""

    __slots__ = ("_event", "_field", "_holder", "key", "part", "text")

    def __init__(self, event: Event, holder: dict[str, Any], field: str, key: Key, part: Part) -> None:
        self._event = event
        self._holder = holder
        self._field = field
        self.key = key
        self.part = part
        self.text: str = holder[field]

    def written(self, text: str) -> bytes:
        """The event with this text: its own bytes where nothing has changed."""
        if text == self.text and self._event.raw:
            return self._event.raw
        self._holder[self._field] = text
        return self._event.encoded()

    def ends(self, key: Key) -> bool:
        """Whether that text is over when this one begins: a choice calls its tools when it has said what it says."""
        is_of_same_choice = self.key[0] == "choice" and key[:2] == self.key[:2]
        return is_of_same_choice and self.part is Part.TOOL_ARGUMENTS and key[2] != "tool"

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
    found = [(choice, path) for choice in choices for path in _paths_of(choice)]
    if len(found) == 1 and len(choices) == 1:
        return [_text_at(event, *found[0])]
    return [_alone(event, choice, path) for choice, path in found]


def _text_at(event: Event, choice: dict[str, Any], path: _Path) -> TextEvent:
    *steps, field = path
    holder: Any = choice
    for step in steps:
        holder = holder[step]
    if not _is_of_tool(path):
        return TextEvent(event, holder, str(field), ("choice", choice.get("index"), field), Part.TEXT)
    calls = choice["delta"].get("tool_calls")
    tool = calls[path[2]].get("index", path[2]) if path[1] == "tool_calls" else None
    return TextEvent(event, holder, str(field), ("choice", choice.get("index"), "tool", tool), Part.TOOL_ARGUMENTS)


def _is_of_tool(path: _Path) -> bool:
    return len(path) > 1 and path[1] in {"tool_calls", "function_call"}


def _paths_of(choice: Any) -> list[_Path]:
    """Where the texts of a choice stand."""
    if not isinstance(choice, dict):
        return []
    delta = choice.get("delta")
    paths: list[_Path] = [("delta", field) for field in _CHAT_FIELDS if _has_text(delta, field)]
    if isinstance(delta, dict):
        paths += _paths_of_tools(delta)
    return paths or ([("text",)] if _has_text(choice, "text") else [])


def _paths_of_tools(delta: dict[str, Any]) -> list[_Path]:
    calls = delta.get("tool_calls")
    paths: list[_Path] = [
        ("delta", "tool_calls", number, kind, field)
        for number, call in enumerate(calls if isinstance(calls, list) else ())
        for kind, field in _TOOL_FIELDS
        if isinstance(call, dict) and _has_text(call.get(kind), field)
    ]
    if _has_text(delta.get("function_call"), "arguments"):
        paths.append(("delta", "function_call", "arguments"))
    return paths


def _alone(event: Event, choice: dict[str, Any], path: _Path) -> TextEvent:
    """A copy of an event that has nothing but one text of one choice; what else there is stays with its last text."""
    copy = _decode(_encode({**event.data, "choices": [choice]}))
    only = copy["choices"][0]
    paths = _paths_of(only)
    is_last = path == paths[-1]
    text = _text_at(Event(b"", event.name, copy), only, path)
    if isinstance(only.get("delta"), dict):
        _leave_out(only["delta"], [other for other in paths if other != path], path, is_last=is_last)
    if not is_last:
        only["finish_reason"] = None
    return text


def _leave_out(delta: dict[str, Any], others: list[_Path], path: _Path, *, is_last: bool) -> None:
    """Take the other texts out of a delta, and tool calls without a text unless this is its last text."""
    for other in others:
        if other[1] != "tool_calls":
            del delta[str(other[1])]
    calls = delta.get("tool_calls")
    if not isinstance(calls, list):
        return
    own = path[2] if path[1] == "tool_calls" else None
    shown_elsewhere = {other[2] for other in others if other[1] == "tool_calls"}
    kept = [call for n, call in enumerate(calls) if n == own or (is_last and n not in shown_elsewhere)]
    if kept:
        delta["tool_calls"] = kept
    else:
        del delta["tool_calls"]


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
    field, part = _MESSAGES_FIELDS.get(str(delta.get("type")), ("", Part.TEXT))
    key = ("block", event.data.get("index"))
    return [TextEvent(event, delta, field, key, part)] if _has_text(delta, field) else []


def _responses(event: Event) -> list[TextEvent]:
    data = event.data
    part = _RESPONSES_DELTAS.get(str(data.get("type")))
    if part is None or not _has_text(data, "delta"):
        return []
    return [TextEvent(event, data, "delta", (data["type"], *map(data.get, _RESPONSES_PLACES)), part)]


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
