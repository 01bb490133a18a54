"""The parameters of a model call, as far as an answer depends on them."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_middleware.core.domain import Surface
from gateway_middleware.simulator.places import Place


class Turn(msgspec.Struct, frozen=True):
    """One message. Items of other kinds in a Responses input have no role."""

    role: str = ""
    content: Any = None


class StreamOptions(msgspec.Struct, frozen=True):
    """What a chat client may ask of its stream."""

    include_usage: bool = False


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """All fields, of any surface, that the simulator looks at."""

    model: str | None = None
    messages: list[Turn] | None = None
    input: Any = None
    prompt: Any = None
    voice: Any = None
    file: Any = None
    image: Any = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    stream_options: StreamOptions | None = None
    stream_format: str | None = None
    tools: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    dimensions: int | None = None
    encoding_format: str | None = None
    response_format: Any = None
    text: Any = None
    output_config: Any = None

    @property
    def wants_usage(self) -> bool:
        """Whether `stream_options.include_usage` is set."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def output_cap(self) -> int | None:
        """The most output tokens, if there is a cap."""
        return self.max_completion_tokens or self.max_output_tokens or self.max_tokens

    @property
    def answer_schema(self) -> Any:
        """The JSON schema that the answer is to fit, by whichever surface's word for it; None: it is text."""
        form = _member(self.response_format, "json_schema")
        return (
            _member(form, "schema")
            or _member(_member(self.text, "format"), "schema")
            or _member(_member(self.output_config, "format"), "schema")
            or ({"type": "object"} if _member(self.response_format, "type") == "json_object" else None)
        )

    @property
    def has_tool_result(self) -> bool:
        """Whether the last thing said is what a tool answered: then the model speaks and calls no more."""
        if self.messages:
            last = self.messages[-1]
            return last.role == "tool" or _holds(last.content, "tool_result")
        return _holds(self.input[-1:], "function_call_output") if isinstance(self.input, list) else False

    @property
    def prompt_text(self) -> str:
        """What the user said last."""
        for turn in reversed(self.messages or ()):
            if turn.role == "user":
                return _text(turn.content)
        return _text(self.input if self.input is not None else self.prompt)


_decode = msgspec.json.Decoder(Parameters).decode

_REQUIRED: dict[str, tuple[str, ...]] = {
    Surface.CHAT: ("messages",),
    Surface.COMPLETIONS: ("prompt",),
    Surface.RESPONSES: ("input",),
    Surface.INPUT_TOKENS: (),
    Surface.COMPACT: (),
    Surface.EMBEDDINGS: ("input",),
    Surface.MODERATIONS: ("input",),
    Surface.MESSAGES: ("max_tokens", "messages"),
    Surface.COUNT_TOKENS: ("messages",),
    Surface.IMAGES_GENERATIONS: ("prompt",),
    Surface.IMAGES_EDITS: ("image", "prompt"),
    Surface.IMAGES_VARIATIONS: ("image",),
    Surface.AUDIO_SPEECH: ("input", "voice"),
    Surface.AUDIO_TRANSCRIPTIONS: ("file",),
    Surface.AUDIO_TRANSLATIONS: ("file",),
}
_WITHOUT_MODEL = frozenset({Surface.MODERATIONS, Surface.IMAGES_GENERATIONS, Surface.IMAGES_VARIATIONS})


def read(body: bytes, content_type: bytes) -> Parameters:
    """Decode a JSON or multipart body. Raises `ValueError`."""
    if content_type.lower().startswith(b"multipart/form-data"):
        return msgspec.convert(_form(body, content_type), Parameters, strict=False)
    return _decode(body)


def missing(place: Place, parameters: Parameters) -> str | None:
    """The first required field that is not there."""
    if place.model is None and not parameters.model and place.kind not in _WITHOUT_MODEL:
        return "model"
    for name in _REQUIRED[place.kind]:
        if getattr(parameters, name) in (None, []):
            return name
    return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return ""
    parts = content if _is_parts(content) else content[-1:]
    return " ".join(filter(None, map(_part_text, parts)))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _holds(content: Any, kind: str) -> bool:
    return isinstance(content, list) and any(_member(part, "type") == kind for part in content)


def _is_parts(content: list[Any]) -> bool:
    return all(isinstance(part, dict) and "role" not in part for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") or part.get("content") if isinstance(part, dict) else None
    return text if isinstance(text, str) else _text(text)


def _form(body: bytes, content_type: bytes) -> dict[str, str]:
    boundary = content_type.partition(b"boundary=")[2].partition(b";")[0].strip(b' "')
    if not boundary:
        raise ValueError("a form needs a boundary")
    fields = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode("utf-8", "replace").removesuffix("[]")
        fields[name] = value.removesuffix(b"\r\n").decode("utf-8", "replace")
    return fields
