"""Turns as chat takes them: one message for each tool result, images of results in a message of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.chat.signatures import extras_of, takes_signatures
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


def messages_of(conversation: Conversation, model: str, losses: Losses) -> list[dict[str, Any]]:
    """All messages. Raises `InvalidRequestError` where neither user nor system says anything."""
    written: list[dict[str, Any]] = []
    if conversation.system:
        written.append({"role": "system", "content": _texts(conversation.system)})
    for message in conversation.messages:
        written += _assistant(message, model, losses) if message.role is Role.ASSISTANT else _other(message, losses)
    if all(message["role"] == "assistant" for message in written):
        losses.refuse("messages", "holds nothing of the user")
    return written


def _other(message: Message, losses: Losses) -> list[dict[str, Any]]:
    if message.role is Role.SYSTEM:
        texts = [part for part in message.parts if isinstance(part, Text)]
        return [{"role": "system", "content": _texts(texts)}] if texts else []
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    written = [_result(result, losses) for result in results]
    images = [part for result in results for part in result.parts if not isinstance(part, Text)]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    content = [_user_part(part, losses) for part in (*images, *others)]
    if content:
        written.append({"role": "user", "content": _short(content)})
    return written


def _short(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A lone text as a string."""
    return content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content


def _texts(texts: tuple[Text, ...] | list[Text]) -> str | list[dict[str, Any]]:
    return _short([{"type": "text", "text": text.text} for text in texts])


def _result(result: ToolResult, losses: Losses) -> dict[str, Any]:
    if result.is_error:
        losses.drop("result.is_error")
    texts = [part for part in result.parts if isinstance(part, Text)]
    if len(texts) < len(result.parts):
        losses.drop("result.image")
        texts.append(Text(text="(what else this tool gave follows in the next message of the user)"))
    return {"role": "tool", "tool_call_id": result.call_id, "content": _texts(texts) if texts else ""}


def _user_part(part: Part, losses: Losses) -> dict[str, Any]:
    if isinstance(part, Image):
        detail = {} if part.detail is None else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.address, **detail}}
    if isinstance(part, Document):
        return _document(part, losses)
    if isinstance(part, (Text, Refusal)):
        return {"type": "text", "text": part.text}
    return losses.refuse("message.content", "holds what a user cannot say")


def _document(document: Document, losses: Losses) -> dict[str, Any]:
    if document.url is not None:
        losses.refuse("document", "is a URL of a document, which chat completions cannot read; send its content")
    if document.text is not None:
        losses.drop("document")
        title = f"{document.name}\n\n" if document.name else ""
        return {"type": "text", "text": title + document.text}
    data = f"data:{document.media_type};base64,{document.data}"
    return {"type": "file", "file": {"filename": document.name or _DEFAULT_NAME, "file_data": data}}


def _assistant(message: Message, model: str, losses: Losses) -> list[dict[str, Any]]:
    if any(isinstance(part, (Image, Document, ToolResult)) for part in message.parts):
        losses.refuse("message.content", "holds what an assistant cannot say")
    texts = [part for part in message.parts if isinstance(part, Text)]
    is_gemini = takes_signatures(model)
    extras = extras_of(message, model) if is_gemini else {}
    calls = [_call(part, extras.get(part.id)) for part in message.parts if isinstance(part, ToolCall)]
    refusals = [part.text for part in message.parts if isinstance(part, Refusal)]
    thoughts = [part for part in message.parts if isinstance(part, Reasoning)]
    if any(not is_gemini or part.vendor is not Vendor.GOOGLE for part in thoughts):
        losses.drop("reasoning")
    written: dict[str, Any] = {"role": "assistant", "content": _texts(texts) if texts else None}
    if refusals:
        written["refusal"] = "".join(refusals)
    if calls:
        written["tool_calls"] = calls
    return [written] if texts or calls or refusals else []


def _call(call: ToolCall, extra: dict[str, Any] | None) -> dict[str, Any]:
    signed = {} if extra is None else {"extra_content": extra}
    if call.is_free_form:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}, **signed}
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function, **signed}
