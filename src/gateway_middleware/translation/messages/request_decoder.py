"""A Messages request, read into the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.translation.fields import Fields, Losses
from gateway_middleware.translation.messages.tools import read_choice, read_tool
from gateway_middleware.translation.messages.unreadable_arguments import unwrap
from gateway_middleware.translation.options import take_options
from gateway_middleware.translation.thinking_blocks import read_redacted, read_thinking
from gateway_middleware.translation.vocabulary import (
    Conversation,
    Document,
    Image,
    Message,
    OutputFormat,
    Part,
    Role,
    Text,
    ToolCall,
    ToolResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {
    "cache": "cache_control",
    "cache_key": "cache_control",
    "part.cache": "messages[].content[].cache_control",
    "system.cache": "system[].cache_control",
    "tool.cache": "tools[].cache_control",
    "effort": "output_config.effort",
    "output_format": "output_config.format",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "image.detail": "messages[].content[]",
    "image.url": "messages[].content[].source",
    "document": "messages[].content[].source",
    "document.name": "messages[].content[].title",
    "message.role": "messages[].role",
    "message.content": "messages[].content",
    "messages": "messages",
    "reasoning": "messages[].content[].thinking",
    "call.arguments": "messages[].content[].input",
    "call.id": "messages[].content[].tool_use_id",
    "result.image": "messages[].content[].content",
    "result.is_error": "messages[].content[].is_error",
    "tool.strict": "tools[].strict",
    "may_call_parallel": "tool_choice.disable_parallel_tool_use",
    "tools": "tools",
}
_ONLY_ANTHROPIC = "is only for Anthropic providers"
_encode = msgspec.json.Encoder().encode


def read_request(body: dict[str, Any], losses: Losses) -> Conversation:
    """Raises `InvalidRequestError` that names a field which is wrong, or which no other dialect has."""
    fields = Fields(body, "", losses)
    fields.ignore("model", "betas")
    for name in ("mcp_servers", "container"):
        if fields.any(name):
            fields.refuse(name, _ONLY_ANTHROPIC)
    choice, may_call_parallel = read_choice(fields.nested("tool_choice"))
    options = take_options(fields)
    user = fields.nested("metadata").text("user_id")
    config = fields.nested("output_config")
    conversation = Conversation(
        system=_read_system(fields),
        messages=_read_messages(fields),
        tools=tuple(read_tool(tool) for tool in fields.children("tools")),
        tool_choice=choice,
        may_call_parallel=may_call_parallel,
        max_tokens=fields.integer("max_tokens"),
        stop=fields.texts("stop_sequences"),
        output_format=_read_format(fields, config),
        effort=config.text("effort"),
        wants_usage=True,
        **{**options, "user": options["user"] or user},
    )
    fields.close()
    return conversation


def _read_format(fields: Fields, config: Fields) -> OutputFormat | None:
    """`output_config.format`, or `output_format` as it was called before."""
    form = config.nested("format") if config.has("format") else fields.nested("output_format")
    form.ignore("type")
    schema = form.object("schema")
    return None if schema is None else OutputFormat(schema=schema)


def _read_system(fields: Fields) -> tuple[Text, ...]:
    value = fields.any("system")
    if isinstance(value, str):
        return (Text(text=value),) if value else ()
    fields.put_back("system", value)
    return tuple(
        Text(text=block.text("text") or "", cache=block.object("cache_control"))
        for block in fields.children("system")
        if _is_text(block)
    )


def _is_text(block: Fields) -> bool:
    if block.text("type") not in {"text", None}:
        block.refuse("type", "must be text")
    return True


def _read_messages(fields: Fields) -> tuple[Message, ...]:
    if not fields.list_is_given("messages"):
        fields.refuse("messages", "must be an array that is not empty")
    return tuple(_read_message(entry) for entry in fields.children("messages"))


def _read_message(entry: Fields) -> Message:
    role = entry.needed_text("role")
    if role not in {"user", "assistant", "system"}:
        entry.refuse("role", f"is `{role[:32]}`, which is none of this dialect")
    parts = _read_content(entry, "content")
    if role == "system" and not all(isinstance(part, Text) for part in parts):
        entry.refuse("content", "of a system message must be text")
    return Message(role=Role(role), parts=parts)


def _read_content(entry: Fields, name: str) -> tuple[Part, ...]:
    """Content in both of its forms: one string, or a list of blocks."""
    value = entry.any(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (Text(text=value),) if value else ()
    entry.put_back(name, value)
    return tuple(part for block in entry.children(name) if (part := _read_block(block)) is not None)


def _read_block(block: Fields) -> Part | None:
    kind = block.needed_text("type")
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(block)
    block.drop_whole(kind)
    return None


def _text(block: Fields) -> Part:
    return Text(text=block.text("text") or "", cache=block.object("cache_control"))


def _image(block: Fields) -> Part:
    source, cache = block.nested("source"), block.object("cache_control")
    kind = source.text("type")
    if kind == "base64":
        return Image(media_type=source.needed_text("media_type"), data=source.needed_text("data"), cache=cache)
    if kind != "url":
        source.refuse("type", "names a stored file, which only its provider knows; send its content")
    return Image(url=source.needed_text("url"), cache=cache)


def _document(block: Fields) -> Part:
    source, cache = block.nested("source"), block.object("cache_control")
    kind = source.text("type")
    name, has_citations = block.text("title"), bool(block.nested("citations").flag("enabled"))
    if has_citations:
        block.lose("citations")
    if kind == "url":
        return Document(url=source.needed_text("url"), name=name, has_citations=has_citations, cache=cache)
    if kind == "base64":
        return Document(
            media_type=source.needed_text("media_type"), data=source.needed_text("data"), name=name, cache=cache
        )
    source.ignore("media_type")
    if kind == "text":
        return Document(text=source.needed_text("data"), name=name, cache=cache)
    if kind != "content":
        source.refuse("type", "names a stored file, which only its provider knows; send its content")
    return Document(text=_joined(_read_content(source, "content")), name=name, cache=cache)


def _joined(parts: tuple[Part, ...]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def _search_result(block: Fields) -> Part:
    """A search result is read as a document; where it is from stays in its name."""
    source, title = block.text("source") or "", block.text("title") or ""
    if block.nested("citations").flag("enabled"):
        block.lose("citations")
    name = f"{title} ({source})" if title and source else title or source
    return Document(text=_joined(_read_content(block, "content")), name=name, cache=block.object("cache_control"))


def _call(block: Fields) -> Part:
    arguments = block.any("input")
    unreadable = unwrap(arguments)
    block.ignore_direct_caller()
    return ToolCall(
        id=block.needed_text("id"),
        name=block.needed_text("name"),
        arguments=_encode({} if arguments is None else arguments).decode() if unreadable is None else unreadable,
        cache=block.object("cache_control"),
    )


def _result(block: Fields) -> Part:
    parts = tuple(part for part in _read_content(block, "content") if isinstance(part, (Text, Image, Document)))
    return ToolResult(
        call_id=block.needed_text("tool_use_id"),
        parts=parts,
        is_error=bool(block.flag("is_error")),
        cache=block.object("cache_control"),
    )


def _thinking(block: Fields) -> Part:
    return read_thinking(block.text("thinking") or "", block.text("signature") or "")


def _redacted(block: Fields) -> Part:
    return read_redacted(block.needed_text("data"))


_READERS: dict[str, Callable[[Fields], Part]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_use": _call,
    "tool_result": _result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}
