"""A chat completions request, read into the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.fields import Fields, Losses
from gateway_middleware.translation.options import OPENAI_OPTIONS, take_options, take_shared
from gateway_middleware.translation.sources import file_of, image_at
from gateway_middleware.translation.structured import read_format
from gateway_middleware.translation.thinking_blocks import read_redacted, read_thinking
from gateway_middleware.translation.vocabulary import (
    Choice,
    Conversation,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {
    "cache": "cache_control",
    "part.cache": "messages[].content[].cache_control",
    "tool.cache": "tools[].cache_control",
    "effort": "reasoning_effort",
    "thinking": "thinking",
    "output_format": "response_format",
    "output_format.description": "response_format.json_schema.description",
    "max_tokens": "max_tokens",
    "cache_key": "prompt_cache_key",
    "may_call_parallel": "parallel_tool_calls",
    "image.detail": "messages[].content[].image_url.detail",
    "image.url": "messages[].content[].image_url.url",
    "document": "messages[].content[].file",
    "document.name": "messages[].content[].file.filename",
    "message.role": "messages[].role",
    "message.content": "messages[].content",
    "messages": "messages",
    "reasoning": "messages[].thinking_blocks",
    "refusal": "messages[].refusal",
    "call.arguments": "messages[].tool_calls[].function.arguments",
    "call.id": "messages[].tool_call_id",
    "result.image": "messages[].content",
    "result.is_error": "messages[].content",
    "tool.strict": "tools[].function.strict",
    "tool.free_form": "tools[].custom",
    "tool.form": "tools[].custom.format",
    "tools": "tools",
}
_ONLY_OPENAI = "is only for providers of the OpenAI dialect"


def read_request(body: dict[str, Any], losses: Losses) -> Conversation:
    """Raises `InvalidRequestError` that names a field which is wrong, or which no other dialect has."""
    fields = Fields(body, "", losses)
    fields.ignore("model")
    _refuse_foreign(fields)
    system, messages = _read_messages(fields)
    cap, older_cap = fields.integer("max_completion_tokens"), fields.integer("max_tokens")
    if cap is not None and older_cap is not None:
        losses.refuse("max_tokens", "cannot be sent together with `max_completion_tokens`")
    conversation = Conversation(
        system=system,
        messages=messages,
        tools=tuple(_read_tool(tool) for tool in fields.children("tools")),
        tool_choice=_read_choice(fields),
        may_call_parallel=fields.flag("parallel_tool_calls"),
        max_tokens=older_cap if cap is None else cap,
        stop=_read_stop(fields),
        output_format=read_format(fields.nested("response_format"), _schema_of),
        effort=fields.text("reasoning_effort"),
        verbosity=fields.text("verbosity"),
        logprobs=fields.flag("logprobs"),
        wants_usage=bool(_take_stream_options(fields)),
        openai=take_shared(fields, OPENAI_OPTIONS),
        **take_options(fields),
    )
    fields.close()
    return conversation


def _refuse_foreign(fields: Fields) -> None:
    """What would change the meaning of the answer and has no counterpart."""
    for name in ("functions", "function_call", "web_search_options", "audio"):
        if fields.any(name):
            fields.refuse(name, _ONLY_OPENAI)
    if fields.any("store"):
        fields.refuse("store", _ONLY_OPENAI)
    if (fields.integer("n") or 1) > 1:
        fields.refuse("n", "must be 1 here: the provider of this model gives one choice")
    if any(kind != "text" for kind in fields.items("modalities")):
        fields.refuse("modalities", _ONLY_OPENAI)


def _take_stream_options(fields: Fields) -> bool | None:
    options = fields.nested("stream_options")
    wants = options.flag("include_usage")
    options.ignore("include_obfuscation")
    return wants


def _read_stop(fields: Fields) -> tuple[str, ...]:
    stop = fields.any("stop")
    values = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        fields.refuse("stop", "must be a string or an array of strings")
    return tuple(values)


def _schema_of(fields: Fields) -> Fields:
    """What describes a schema: one level below its kind."""
    inner = fields.nested("json_schema")
    if not inner.has("schema"):
        inner.drop("description", "strict")
    return inner


def _read_tool(fields: Fields) -> Tool:
    kind = fields.text("type")
    cache = fields.object("cache_control")
    if kind not in {"function", "custom", None}:
        fields.refuse(
            "type", f"is `{kind}`: a tool that runs at the provider is only for providers of the OpenAI dialect"
        )
    inner = fields.nested(kind or "function")
    return Tool(
        name=inner.needed_text("name"),
        description=inner.text("description"),
        schema=inner.any("parameters"),
        is_strict=inner.flag("strict"),
        is_free_form=kind == "custom",
        form=_read_form(inner.object("format")),
        cache=cache,
    )


def _read_form(form: dict[str, Any] | None) -> dict[str, Any] | None:
    """The format of a free-form tool; Responses writes a grammar without the object around it."""
    grammar = form.get("grammar") if form is not None else None
    return {"type": "grammar", **grammar} if isinstance(grammar, dict) else form


def _read_choice(fields: Fields) -> ToolChoice | None:
    value = fields.any("tool_choice")
    if value is None or isinstance(value, str):
        return None if value is None else ToolChoice(choice=_mode(fields, value))
    choice = fields.child("tool_choice", value)
    kind = choice.needed_text("type")
    if kind == "allowed_tools":
        inner = choice.nested("allowed_tools")
        mode = _mode(fields, inner.needed_text("mode"))
        names = tuple(tool.nested(tool.needed_text("type")).needed_text("name") for tool in inner.children("tools"))
        return ToolChoice(choice=mode, allowed=names)
    if kind not in {"function", "custom"}:
        fields.refuse("tool_choice", "must name a function")
    return ToolChoice(choice=Choice.NAMED, name=choice.nested(kind).needed_text("name"))


def _mode(fields: Fields, mode: str) -> Choice:
    if mode not in {"auto", "none", "required"}:
        fields.refuse("tool_choice", "must be auto, none, required or an object")
    return Choice(mode)


def _read_messages(fields: Fields) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    """The system prompt that stands before everything else, and the rest."""
    if not fields.list_is_given("messages"):
        fields.refuse("messages", "must be an array that is not empty")
    system: list[Text] = []
    messages: list[Message] = []
    for entry in fields.children("messages"):
        role = entry.needed_text("role")
        reader = _READERS.get(role)
        if reader is None:
            entry.refuse("role", f"is `{role[:32]}`, which is none of this dialect")
        message = reader(entry)
        if message.role is Role.SYSTEM and not messages:
            system += [part for part in message.parts if isinstance(part, Text)]
        else:
            messages.append(message)
    return tuple(system), tuple(messages)


def _read_system(entry: Fields) -> Message:
    parts = _content(entry, _text_part)
    return Message(role=Role.SYSTEM, parts=tuple(parts))


def _read_user(entry: Fields) -> Message:
    return Message(role=Role.USER, parts=tuple(_content(entry, _user_part)))


def _read_assistant(entry: Fields) -> Message:
    parts: list[Part] = [*_reasoning(entry), *_content(entry, _assistant_part)]
    refusal = entry.text("refusal")
    if refusal:
        parts.append(Refusal(text=refusal))
    parts += [_read_call(call) for call in entry.children("tool_calls")]
    if entry.any("function_call"):
        entry.refuse("function_call", _ONLY_OPENAI)
    return Message(role=Role.ASSISTANT, parts=tuple(parts))


def _read_result(entry: Fields) -> Message:
    call_id, cache = entry.needed_text("tool_call_id"), entry.object("cache_control")
    parts = tuple(part for part in _content(entry, _user_part))
    return Message(role=Role.USER, parts=(ToolResult(call_id=call_id, parts=parts, cache=cache),))  # type: ignore[arg-type]


_READERS: dict[str, Callable[[Fields], Message]] = {
    "system": _read_system,
    "developer": _read_system,
    "user": _read_user,
    "assistant": _read_assistant,
    "tool": _read_result,
}


def _content(entry: Fields, read: Callable[[Fields, str], Part]) -> list[Part]:
    """Content in both of its forms: one string, or a list of parts."""
    value = entry.any("content")
    if value is None:
        return []
    if isinstance(value, str):
        return [Text(text=value, cache=entry.object("cache_control"))]
    entry.put_back("content", value)
    return [read(part, part.needed_text("type")) for part in entry.children("content")]


def _text_part(part: Fields, kind: str) -> Part:
    if kind != "text":
        part.refuse("type", f"is `{kind[:32]}`, which is not supported here")
    return Text(text=part.text("text") or "", cache=part.object("cache_control"))


def _assistant_part(part: Fields, kind: str) -> Part:
    return Refusal(text=part.text("refusal") or "") if kind == "refusal" else _text_part(part, kind)


def _user_part(part: Fields, kind: str) -> Part:
    cache = part.object("cache_control")
    if kind == "image_url":
        return _image(part, cache)
    if kind == "file":
        file = part.nested("file")
        data = file.text("file_data")
        if data is None:
            file.refuse("file_id", "names a stored file, which only its provider knows; send `file_data`")
        return file_of(data, file.text("filename"), cache)
    text = _text_part(part, kind)
    return Text(text=text.text, cache=cache) if isinstance(text, Text) else text


def _image(part: Fields, cache: dict[str, Any] | None) -> Part:
    value = part.any("image_url")
    image = part.child("image_url", {"url": value} if isinstance(value, str) else value)
    detail = image.text("detail")
    return image_at(image.needed_text("url"), None if detail == "auto" else detail, cache)


def _read_call(call: Fields) -> ToolCall:
    call_id, kind = call.needed_text("id"), call.text("type") or "function"
    if kind not in {"function", "custom"}:
        call.refuse("type", f"is `{kind[:32]}`, which is not supported here")
    inner = call.nested(kind)
    name = inner.needed_text("name")
    arguments = inner.text("input" if kind == "custom" else "arguments") or ""
    call.ignore("index")
    return ToolCall(id=call_id, name=name, arguments=arguments, is_free_form=kind == "custom")


def _reasoning(entry: Fields) -> list[Part]:
    """Reasoning that the gateway gave with an answer, in the members that others use for it as well."""
    shown = entry.any("reasoning_content")
    blocks = [_thinking_block(block) for block in entry.children("thinking_blocks")]
    if not blocks and isinstance(shown, str) and shown:
        return [Reasoning(text=shown)]
    return blocks


def _thinking_block(block: Fields) -> Part:
    if block.text("type") == "redacted_thinking":
        return read_redacted(block.needed_text("data"))
    return read_thinking(block.text("thinking") or "", block.text("signature") or "")
