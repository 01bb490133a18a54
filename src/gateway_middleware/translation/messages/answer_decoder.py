"""A whole answer of Messages, read into the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.translation.free_form import unwrap
from gateway_middleware.translation.messages.stops import STOPS
from gateway_middleware.translation.structured import ANSWER_TOOL
from gateway_middleware.translation.thinking_blocks import read_redacted, read_thinking
from gateway_middleware.translation.vocabulary import Answer, Citation, Reasoning, Refusal, Stop, Text, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.context import Context


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    citations: list[dict[str, Any]] | None = None


class StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[_Block]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


_decode = msgspec.json.Decoder(_Message).decode


def read_answer(body: bytes, context: Context) -> Answer:
    """Raises `UpstreamProtocolError` for what is no message."""
    try:
        message = _decode(body)
    except (ValueError, RecursionError):
        raise UpstreamProtocolError("The provider's answer is no message.") from None
    parts = [part for block in message.content if (part := _part(block, context)) is not None]
    if message.stop_details is not None and message.stop_details.explanation:
        parts.append(Refusal(text=message.stop_details.explanation))
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    return Answer(
        id=message.id,
        model=message.model,
        parts=tuple(parts),
        stop=stop_of(message.stop_reason, has_calls=has_calls),
        stop_sequence=message.stop_sequence,
    )


def stop_of(reason: str | None, *, has_calls: bool) -> Stop:
    """Why it stopped. A call that was the answer itself is no call any more, and a call is always one."""
    stop = STOPS.get(reason or "", Stop.END)
    if stop is Stop.TOOL_CALLS and not has_calls:
        return Stop.END
    return Stop.TOOL_CALLS if stop is Stop.END and has_calls else stop


def citation_of(raw: dict[str, Any]) -> Citation:
    url, title = raw.get("url"), raw.get("title")
    return Citation(raw=raw, url=url if isinstance(url, str) else None, title=title if isinstance(title, str) else None)


def _part(block: _Block, context: Context) -> Text | ToolCall | Reasoning | Refusal | None:
    if block.type == "text":
        return Text(text=block.text or "", citations=tuple(citation_of(raw) for raw in block.citations or ()))
    if block.type == "tool_use":
        return _call(block, context)
    if block.type == "thinking":
        return read_thinking(block.thinking or "", block.signature or "")
    if block.type == "redacted_thinking":
        return read_redacted(block.data or "")
    return None


def _call(block: _Block, context: Context) -> Text | ToolCall:
    arguments = bytes(block.input).decode()
    if context.has_answer_tool and block.name == ANSWER_TOOL:
        return Text(text=arguments)
    is_free_form = block.name in context.free_form
    return ToolCall(
        id=block.id or "",
        name=block.name or "",
        arguments=unwrap(arguments) if is_free_form else arguments,
        is_free_form=is_free_form,
    )
