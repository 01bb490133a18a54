"""A Responses request, read into the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.fields import Fields, Losses
from gateway_middleware.translation.options import OPENAI_OPTIONS, take_options, take_shared
from gateway_middleware.translation.responses.items_decoder import read_input
from gateway_middleware.translation.responses.tools_decoder import ONLY_OPENAI, read_tools, together
from gateway_middleware.translation.structured import read_format
from gateway_middleware.translation.vocabulary import Choice, Conversation, Role, Text, ToolChoice

if TYPE_CHECKING:
    from gateway_middleware.translation.vocabulary import Message

NAMES = {
    "cache": "cache_control",
    "part.cache": "input[].content[].cache_control",
    "system.cache": "input[].content[].cache_control",
    "tool.cache": "tools[].cache_control",
    "effort": "reasoning.effort",
    "thinking": "reasoning",
    "thinking.display": "reasoning.summary",
    "output_format": "text.format",
    "output_format.description": "text.format.description",
    "verbosity": "text.verbosity",
    "max_tokens": "max_output_tokens",
    "cache_key": "prompt_cache_key",
    "may_call_parallel": "parallel_tool_calls",
    "image.detail": "input[].content[].detail",
    "image.url": "input[].content[].image_url",
    "document": "input[].content[].file_data",
    "document.name": "input[].content[].filename",
    "message.role": "input[].role",
    "message.content": "input[].content",
    "messages": "input",
    "reasoning": "input[].reasoning",
    "refusal": "input[].content[].refusal",
    "call.arguments": "input[].arguments",
    "call.id": "input[].call_id",
    "result.image": "input[].output",
    "tool.strict": "tools[].strict",
    "tool.form": "tools[].format",
    "tools": "tools",
}
_STATE = ("previous_response_id", "conversation", "prompt", "background", "store")
_DEFAULTS = {"truncation": "disabled", "modalities": ["text"]}
_NO_LOSS = {"context": "auto", "mode": "standard"}
_CARRIED_INCLUDES = {"reasoning.encrypted_content"}


def read_request(body: dict[str, Any], losses: Losses) -> Conversation:
    """Raises `InvalidRequestError` that names a field which is wrong, or which no other surface has."""
    fields = Fields(body, "", losses)
    fields.ignore("model")
    for name in _STATE:
        if fields.any(name):
            fields.refuse(name, ONLY_OPENAI)
    _ignore_defaults(fields, _DEFAULTS)
    if set(fields.texts("include")) - _CARRIED_INCLUDES:
        losses.drop("include")
    fields.nested("stream_options").ignore("include_obfuscation")
    text, reasoning = fields.nested("text"), fields.nested("reasoning")
    turns, offered = read_input(fields)
    system, messages = _split_system(fields.text("instructions"), turns)
    options = take_options(fields)
    conversation = Conversation(
        system=system,
        messages=messages,
        tools=together(read_tools(fields), offered),
        tool_choice=_read_choice(fields),
        may_call_parallel=fields.flag("parallel_tool_calls"),
        max_tokens=fields.integer("max_output_tokens"),
        output_format=read_format(text.nested("format"), lambda described: described),
        verbosity=text.text("verbosity"),
        wants_usage=True,
        openai=take_shared(fields, OPENAI_OPTIONS),
        **{**options, **_read_reasoning(reasoning)},
    )
    fields.close()
    return conversation


def _ignore_defaults(fields: Fields, defaults: dict[str, Any]) -> None:
    for name, default in defaults.items():
        value = fields.any(name)
        if value != default:
            fields.put_back(name, value)


def _split_system(
    instructions: str | None, messages: tuple[Message, ...]
) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    """The instructions, and the system prompt that stands before everything else."""
    system = [Text(text=instructions)] if instructions else []
    if messages and messages[0].role is Role.SYSTEM:
        system += [part for part in messages[0].parts if isinstance(part, Text)]
        messages = messages[1:]
    return tuple(system), messages


def _read_reasoning(fields: Fields) -> dict[str, Any]:
    """Effort, and whether the reasoning is to be shown. The old name of that is listed: it goes on under another."""
    _ignore_defaults(fields, _NO_LOSS)
    effort = fields.text("effort")
    if effort is None:
        fields.drop("summary", "generate_summary")
    summary, old_summary = fields.text("summary"), fields.text("generate_summary")
    if old_summary is not None:
        fields.lose("generate_summary")
    summary = summary or old_summary
    return {"effort": effort, "thinking_display": None if summary is None else "summarized"}


def _read_choice(fields: Fields) -> ToolChoice | None:
    value = fields.any("tool_choice")
    if value is None or isinstance(value, str):
        return None if value is None else ToolChoice(choice=_mode(fields, value))
    choice = fields.child("tool_choice", value)
    kind = choice.needed_text("type")
    if kind == "allowed_tools":
        mode = _mode(fields, choice.needed_text("mode"))
        names = tuple(tool.needed_text("name") for tool in choice.children("tools") if tool.text("type") is not None)
        return ToolChoice(choice=mode, allowed=names)
    if kind not in {"function", "custom"}:
        choice.refuse("type", f"is `{kind[:32]}`: a tool that runs at the provider {ONLY_OPENAI}")
    return ToolChoice(choice=Choice.NAMED, name=choice.needed_text("name"))


def _mode(fields: Fields, mode: str) -> Choice:
    if mode not in {"auto", "none", "required"}:
        fields.refuse("tool_choice", "must be auto, none, required or an object")
    return Choice(mode)
