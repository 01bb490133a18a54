"""A whole answer, written as a response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.ids import answer_id
from gateway_middleware.translation.responses.client_tools import client_tools
from gateway_middleware.translation.responses.envelope import ending, envelope, incomplete_reason
from gateway_middleware.translation.responses.output import (
    annotation_of,
    call_item,
    message_item,
    reasoning_item,
    refusal_content,
    text_content,
)
from gateway_middleware.translation.vocabulary import Answer, Refusal, Text, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.context import Context
    from gateway_middleware.translation.responses.client_tools import ClientTools

_encode = msgspec.json.Encoder().encode


def write_answer(answer: Answer, context: Context) -> bytes:
    response_id = answer_id(answer.id, "resp_")
    created = context.created if answer.created is None else answer.created
    has_refusal = any(isinstance(part, Refusal) for part in answer.parts)
    reason = incomplete_reason(answer.stop, has_refusal=has_refusal)
    output = _output(answer, response_id.removeprefix("resp_"), client_tools(context.request))
    whole = envelope(response_id, answer.model, created, context) | ending(output, answer.usage, reason)
    return _encode(whole | {"completed_at": context.created})


def _output(answer: Answer, suffix: str, tools: ClientTools) -> list[dict[str, Any]]:
    """One item for each part; what is said without a break is one message."""
    output: list[dict[str, Any]] = []
    for part in answer.parts:
        if isinstance(part, (Text, Refusal)):
            if not output or output[-1]["type"] != "message":
                output.append(message_item(f"msg_{suffix}_{len(output)}", []))
            output[-1]["content"].append(_content(part))
        elif isinstance(part, ToolCall):
            prefix = tools.prefix(part.name, is_free_form=part.is_free_form)
            output.append(call_item(f"{prefix}_{suffix}_{len(output)}", part, tools))
        else:
            output.append(reasoning_item(f"rs_{suffix}_{len(output)}", part))
    return output


def _content(part: Text | Refusal) -> dict[str, Any]:
    if isinstance(part, Refusal):
        return refusal_content(part.text)
    found = [annotation_of(citation, 0, len(part.text)) for citation in part.citations]
    return text_content(part.text, [annotation for annotation in found if annotation is not None])
