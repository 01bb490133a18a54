"""A whole chat completion, read into the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.translation.chat.signatures import signature_in
from gateway_middleware.translation.free_form import unwrap
from gateway_middleware.translation.vocabulary import Answer, Citation, Reasoning, Refusal, Stop, Text, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.context import Context


class Called(msgspec.Struct):
    """A function or a free-form tool with what it is called with."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: Called | None = None
    custom: Called | None = None
    extra_content: Any = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    """The word of some servers for the same."""
    tool_calls: list[_Call] | None = None
    annotations: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    created: int | None = None


STOPS = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "tool_calls": Stop.TOOL_CALLS,
    "function_call": Stop.TOOL_CALLS,
    "content_filter": Stop.CONTENT_FILTER,
}
_decode = msgspec.json.Decoder(_Completion).decode


def read_answer(body: bytes, context: Context) -> Answer:
    """Raises `UpstreamProtocolError` for what is no chat completion with a choice."""
    try:
        completion = _decode(body)
    except (ValueError, RecursionError):
        raise UpstreamProtocolError("The provider's answer is no chat completion.") from None
    if not completion.choices:
        raise UpstreamProtocolError("The provider's answer has no choices.")
    choice = completion.choices[0]
    parts = _parts(choice.message, context)
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    has_refusal = any(isinstance(part, Refusal) for part in parts)
    return Answer(
        id=completion.id or "",
        model=completion.model or "",
        parts=tuple(parts),
        stop=stop_of(choice.finish_reason, has_calls=has_calls, has_refusal=has_refusal),
        created=completion.created,
    )


def stop_of(reason: str | None, *, has_calls: bool, has_refusal: bool) -> Stop:
    """Why it stopped. Some end with `stop` although they call a tool."""
    stop = STOPS.get(reason or "", Stop.END)
    if stop is not Stop.END:
        return stop
    return Stop.TOOL_CALLS if has_calls else Stop.REFUSAL if has_refusal else Stop.END


def reasoning_of(content: str | None, other: object) -> str | None:
    """The reasoning in `reasoning_content`, or in `reasoning` where that is text."""
    return content or (other if isinstance(other, str) else None)


def _parts(message: _Message, context: Context) -> list[Text | ToolCall | Reasoning | Refusal]:
    parts: list[Text | ToolCall | Reasoning | Refusal] = []
    reasoning = reasoning_of(message.reasoning_content, message.reasoning)
    if reasoning:
        parts.append(Reasoning(text=reasoning))
    if message.content:
        citations = tuple(_citation(annotation) for annotation in message.annotations or ())
        parts.append(Text(text=message.content, citations=citations))
    if message.refusal:
        parts.append(Refusal(text=message.refusal))
    for call in message.tool_calls or ():
        signature = signature_in(call.extra_content)
        called = _call(call, context)
        parts += [called] if signature is None else [signature, called]
    return parts


def _call(call: _Call, context: Context) -> ToolCall:
    called = call.function or call.custom or Called()
    text = (called.arguments if call.custom is None else called.input) or ""
    is_wrapped = call.custom is None and called.name in context.free_form
    return ToolCall(
        id=call.id or "",
        name=called.name or "",
        arguments=unwrap(text) if is_wrapped else text,
        is_free_form=is_wrapped or call.custom is not None,
    )


def _citation(annotation: dict[str, Any]) -> Citation:
    cited = annotation.get("url_citation")
    found = cited if isinstance(cited, dict) else {}
    return Citation(raw=annotation, url=found.get("url"), title=found.get("title"))
