"""A whole answer, written as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.ids import answer_id
from gateway_middleware.translation.messages.content import safe_id
from gateway_middleware.translation.messages.stops import STOP_REASONS
from gateway_middleware.translation.messages.unreadable_arguments import wrap
from gateway_middleware.translation.messages.usage import usage_of
from gateway_middleware.translation.thinking_blocks import shown_block
from gateway_middleware.translation.vocabulary import Answer, Reasoning, Refusal, Text, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.context import Context

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def write_answer(answer: Answer, context: Context) -> bytes:
    return _encode(
        {
            "id": answer_id(answer.id, "msg_"),
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [_block(part) for part in answer.parts],
            "stop_reason": STOP_REASONS[answer.stop],
            "stop_sequence": answer.stop_sequence,
            "usage": usage_of(answer.usage, context.estimated_input),
        }
    )


def _block(part: Text | ToolCall | Reasoning | Refusal) -> dict[str, Any]:
    if isinstance(part, (Text, Refusal)):
        return {"type": "text", "text": part.text}
    if isinstance(part, Reasoning):
        return shown_block(part)
    return {"type": "tool_use", "id": safe_id(part.id), "name": part.name, "input": arguments_of(part)}


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments as an object: what a model made that is none stays readable in a member of its own."""
    if call.is_free_form:
        return {"input": call.arguments}
    if not call.arguments.strip():
        return {}
    try:
        return _decode_object(call.arguments)
    except (ValueError, RecursionError):
        return wrap(call.arguments)
