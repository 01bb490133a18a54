"""Turns as Messages takes them: user and assistant in alternation, tool results first, nothing empty."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.thinking_blocks import block_of
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
)

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.vocabulary import Conversation

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_EMPTY: dict[str, Any] = {}
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def system_of(conversation: Conversation, losses: Losses) -> list[dict[str, Any]]:
    """The system prompt: all of it in its order, what stands between turns too, which is listed."""
    texts = [text for text in conversation.system if text.text.strip()]
    for message in conversation.messages:
        if message.role is Role.SYSTEM:
            losses.drop("message.role")
            texts += [part for part in message.parts if isinstance(part, Text) and part.text.strip()]
    return [_marked({"type": "text", "text": text.text}, text.cache) for text in texts]


def turns_of(conversation: Conversation, losses: Losses) -> list[dict[str, Any]]:
    """The turns. Neighbours of one role are one turn."""
    turns: list[tuple[Role, list[dict[str, Any]]]] = []
    for message in conversation.messages:
        blocks = _blocks(message, losses) if message.role is not Role.SYSTEM else []
        if not blocks:
            continue
        if turns and turns[-1][0] is message.role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((message.role, blocks))
    if turns and turns[-1][0] is Role.ASSISTANT:
        _trim_prefill(turns[-1][1], losses)
    return [{"role": role.value, "content": _ordered(blocks)} for role, blocks in turns]


def _ordered(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Tool results before everything else; a lone plain text as a string."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


def _trim_prefill(blocks: list[dict[str, Any]], losses: Losses) -> None:
    """The beginning of an answer must not end in white space."""
    last = blocks[-1]
    if last["type"] == "text" and last["text"] != last["text"].rstrip():
        losses.drop("message.content")
        last["text"] = last["text"].rstrip()


def _blocks(message: Message, losses: Losses) -> list[dict[str, Any]]:
    blocks = [block for part in message.parts if (block := _block(part, losses)) is not None]
    if all(_is_blank(block) for block in blocks):
        if blocks:
            losses.drop("message.content")
        return []
    return blocks


def _is_blank(block: dict[str, Any]) -> bool:
    """Whether it is white space, which a turn must not be alone."""
    return block["type"] == "text" and not block["text"].strip()


def _block(part: Part, losses: Losses) -> dict[str, Any] | None:
    """One block, or None for what is empty or cannot be said."""
    if isinstance(part, Text):
        return _marked({"type": "text", "text": part.text}, part.cache) if part.text else None
    if isinstance(part, ToolCall):
        return _call(part, losses)
    if isinstance(part, ToolResult):
        return _result(part, losses)
    if isinstance(part, Image):
        return _image(part, losses)
    if isinstance(part, Document):
        return _document(part, losses)
    if isinstance(part, Refusal):
        losses.drop("refusal")
        return {"type": "text", "text": part.text} if part.text else None
    return _reasoning(part, losses)


def _reasoning(part: Reasoning, losses: Losses) -> dict[str, Any] | None:
    block = block_of(part)
    if block is None:
        losses.drop("reasoning")
    return block


def _call(call: ToolCall, losses: Losses) -> dict[str, Any]:
    arguments: Any = {"input": call.arguments} if call.is_free_form else parsed_arguments(call, losses)
    block = {"type": "tool_use", "id": safe_id(call.id), "name": call.name, "input": arguments}
    return _marked(block, call.cache)


def parsed_arguments(call: ToolCall, losses: Losses) -> dict[str, Any]:
    """The arguments as an object. Raises `InvalidRequestError` that names the call."""
    if not call.arguments.strip():
        return _EMPTY
    try:
        return _decode_object(call.arguments)
    except (ValueError, RecursionError):
        losses.refuse("call.arguments", f"of the call `{call.id[:64]}` must be a JSON object")


def safe_id(call_id: str) -> str:
    """The id of a call in the characters that Messages allows; the same for the call and its result."""
    return _NOT_IN_IDS.sub("_", call_id) or "_"


def _result(result: ToolResult, losses: Losses) -> dict[str, Any]:
    blocks = [content for part in result.parts if (content := _block(part, losses)) is not None]
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": safe_id(result.call_id)}
    if blocks:
        block["content"] = _ordered(blocks)
    if result.is_error:
        block["is_error"] = True
    return _marked(block, result.cache)


def _image(image: Image, losses: Losses) -> dict[str, Any]:
    if image.detail is not None:
        losses.drop("image.detail")
    if image.data is None:
        source = {"type": "url", "url": image.url}
    elif image.media_type in _IMAGE_TYPES:
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    else:
        losses.refuse("image.url", f"holds {image.media_type}: this model reads JPEG, PNG, GIF and WebP")
    return _marked({"type": "image", "source": source}, image.cache)


def _document(document: Document, losses: Losses) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "document", "source": _document_source(document, losses)}
    if document.name is not None:
        block["title"] = document.name
    return _marked(block, document.cache)


def _document_source(document: Document, losses: Losses) -> dict[str, Any]:
    if document.url is not None:
        return {"type": "url", "url": document.url}
    if document.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": document.text}
    media_type = document.media_type or ""
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": document.data}
    if media_type.startswith("text/") or media_type in {"application/json", "application/xml"}:
        return {"type": "text", "media_type": "text/plain", "data": _plain_text(document, losses)}
    return losses.refuse("document", f"holds {media_type}: this model reads PDF and plain text")


def _plain_text(document: Document, losses: Losses) -> str:
    try:
        return msgspec.convert(document.data, bytes).decode()
    except (msgspec.ValidationError, UnicodeDecodeError):
        losses.refuse("document", "must be UTF-8 text in base64")


def _marked(block: dict[str, Any], cache: dict[str, Any] | None) -> dict[str, Any]:
    if cache is not None:
        block["cache_control"] = cache
    return block
