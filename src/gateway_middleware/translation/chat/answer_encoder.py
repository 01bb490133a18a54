"""A whole answer, written as a chat completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.chat.usage import usage_of
from gateway_middleware.translation.ids import answer_id
from gateway_middleware.translation.thinking_blocks import shown_block
from gateway_middleware.translation.vocabulary import Answer, Citation, Reasoning, Refusal, Stop, Text, ToolCall

if TYPE_CHECKING:
    from gateway_middleware.translation.context import Context

FINISH_REASONS = {
    Stop.END: "stop",
    Stop.STOP_SEQUENCE: "stop",
    Stop.PAUSE: "stop",
    Stop.LENGTH: "length",
    Stop.CONTEXT_WINDOW: "length",
    Stop.TOOL_CALLS: "tool_calls",
    Stop.CONTENT_FILTER: "content_filter",
    Stop.REFUSAL: "content_filter",
}
_encode = msgspec.json.Encoder().encode


def write_answer(answer: Answer, context: Context) -> bytes:
    choice = {
        "index": 0,
        "message": _message(answer),
        "logprobs": None,
        "finish_reason": FINISH_REASONS[answer.stop],
    }
    return _encode(
        {
            "id": answer_id(answer.id, "chatcmpl-"),
            "object": "chat.completion",
            "created": context.created if answer.created is None else answer.created,
            "model": answer.model,
            "choices": [choice],
            "usage": usage_of(answer.usage),
        }
    )


def _message(answer: Answer) -> dict[str, Any]:
    texts = [part for part in answer.parts if isinstance(part, Text)]
    refusals = [part.text for part in answer.parts if isinstance(part, Refusal)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text.text for text in texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    annotations = _annotations(texts)
    if annotations:
        message["annotations"] = annotations
    calls = [tool_call(part) for part in answer.parts if isinstance(part, ToolCall)]
    if calls:
        message["tool_calls"] = calls
    reasoning = [part for part in answer.parts if isinstance(part, Reasoning)]
    shown = "".join(part.text for part in reasoning)
    if shown:
        message["reasoning_content"] = shown
    blocks = [shown_block(part) for part in reasoning if part.proof is not None]
    if blocks:
        message["thinking_blocks"] = blocks
    return message


def _annotations(texts: list[Text]) -> list[dict[str, Any]]:
    written, start = [], 0
    for text in texts:
        end = start + len(text.text)
        written += [annotation for cited in text.citations if (annotation := annotation_of(cited, start, end))]
        start = end
    return written


def annotation_of(citation: Citation, start: int, end: int) -> dict[str, Any] | None:
    """The citation of a page in the web; chat knows no other."""
    if citation.url is None:
        return None
    cited = {"url": citation.url, "title": citation.title or "", "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": cited}


def tool_call(call: ToolCall) -> dict[str, Any]:
    if call.is_free_form:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}
