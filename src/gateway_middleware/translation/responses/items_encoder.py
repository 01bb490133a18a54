"""Turns, written as the items of a Responses request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.vocabulary import (
    Document,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Vendor,
)

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.vocabulary import Conversation

_DEFAULT_NAME = "document.pdf"


def items_of(conversation: Conversation, losses: Losses) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for message in conversation.messages:
        items += _assistant(message, losses) if message.role is Role.ASSISTANT else _other(message, losses)
    return items


def _other(message: Message, losses: Losses) -> list[dict[str, Any]]:
    results = [_result(part, losses) for part in message.parts if isinstance(part, ToolResult)]
    content = [_part(part, losses) for part in message.parts if not isinstance(part, ToolResult)]
    if not content:
        return results
    role = "developer" if message.role is Role.SYSTEM else "user"
    return [*results, {"role": role, "content": _short(content)}]


def _short(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A lone text as a string."""
    return content[0]["text"] if len(content) == 1 and content[0]["type"] == "input_text" else content


def _part(part: Part, losses: Losses) -> dict[str, Any]:
    if isinstance(part, (Text, Refusal)):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.address, "detail": part.detail or "auto"}
    if isinstance(part, Document):
        return _document(part, losses)
    return losses.refuse("message.content", "holds what a user cannot say")


def _document(document: Document, losses: Losses) -> dict[str, Any]:
    if document.text is not None:
        losses.drop("document")
        title = f"{document.name}\n\n" if document.name else ""
        return {"type": "input_text", "text": title + document.text}
    if document.url is not None:
        if document.name is not None:
            losses.drop("document.name")
        return {"type": "input_file", "file_url": document.url}
    data = f"data:{document.media_type};base64,{document.data}"
    return {"type": "input_file", "filename": document.name or _DEFAULT_NAME, "file_data": data}


def _result(result: ToolResult, losses: Losses) -> dict[str, Any]:
    if result.is_error:
        losses.drop("result.is_error")
    kind = "custom_tool_call_output" if result.is_free_form else "function_call_output"
    output = _short([_part(part, losses) for part in result.parts]) if result.parts else ""
    return {"type": kind, "call_id": result.call_id, "output": output}


def _assistant(message: Message, losses: Losses) -> list[dict[str, Any]]:
    return [item for part in message.parts if (item := _said(part, losses)) is not None]


def _said(part: Part, losses: Losses) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return {"role": "assistant", "content": part.text} if part.text else None
    if isinstance(part, Refusal):
        losses.drop("refusal")
        return {"role": "assistant", "content": part.text} if part.text else None
    if isinstance(part, ToolCall):
        return _call(part)
    if isinstance(part, Reasoning):
        return _reasoning(part, losses)
    return losses.refuse("message.content", "holds what an assistant cannot say")


def _call(call: ToolCall) -> dict[str, Any]:
    if call.is_free_form:
        return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}


def _reasoning(reasoning: Reasoning, losses: Losses) -> dict[str, Any] | None:
    """The item for OpenAI itself: what another vendor thought is not shown to it."""
    if reasoning.vendor is not Vendor.OPENAI or reasoning.proof is None:
        losses.drop("reasoning")
        return None
    summary = [{"type": "summary_text", "text": reasoning.text}] if reasoning.text else []
    item = {"type": "reasoning", "summary": summary, "encrypted_content": reasoning.proof}
    return item if reasoning.id is None else {**item, "id": reasoning.id}
