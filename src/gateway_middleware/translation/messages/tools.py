"""Tools as Messages takes them, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.free_form import FREE_FORM_SCHEMA
from gateway_middleware.translation.vocabulary import Choice, Tool, ToolChoice

if TYPE_CHECKING:
    from gateway_middleware.core.models import ModelFacts
    from gateway_middleware.translation.fields import Fields, Losses
    from gateway_middleware.translation.vocabulary import Conversation

_CHOICES = {"auto": Choice.AUTO, "any": Choice.REQUIRED, "none": Choice.NONE, "tool": Choice.NAMED}
_TYPES = {choice: name for name, choice in _CHOICES.items()}


def read_tool(fields: Fields) -> Tool:
    """Raises `InvalidRequestError` for a tool that runs at the provider."""
    kind = fields.text("type")
    if kind not in {None, "custom"}:
        fields.refuse("type", f"is `{kind}`: a tool of Anthropic's is only for Anthropic providers")
    tool = Tool(
        name=fields.needed_text("name"),
        description=fields.text("description"),
        schema=fields.any("input_schema"),
        is_strict=fields.flag("strict"),
        cache=fields.object("cache_control"),
    )
    fields.ignore("eager_input_streaming")
    return tool


def read_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and whether calls may be parallel."""
    kind = fields.text("type")
    if kind is None:
        return None, None
    if kind not in _CHOICES:
        fields.refuse("type", "must be auto, any, tool or none")
    serial = fields.flag("disable_parallel_tool_use")
    choice = _CHOICES[kind]
    name = fields.needed_text("name") if choice is Choice.NAMED else None
    return ToolChoice(choice=choice, name=name), None if serial is None else not serial


def tools_of(conversation: Conversation, facts: ModelFacts, losses: Losses) -> list[dict[str, Any]]:
    """The tools, without those that the choice does not allow."""
    choice = conversation.tool_choice
    allowed = choice.allowed if choice is not None else None
    return [_tool(tool, facts, losses) for tool in conversation.tools if allowed is None or tool.name in allowed]


def _tool(tool: Tool, facts: ModelFacts, losses: Losses) -> dict[str, Any]:
    schema = FREE_FORM_SCHEMA if tool.is_free_form else object_schema(tool.schema)
    written: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.form is not None and tool.form.get("type") != "text":
        losses.drop("tool.form")
    if tool.is_strict and not tool.is_free_form:
        if facts.has_schemas:
            written["strict"] = True
        else:
            losses.drop("tool.strict")
    if tool.cache is not None:
        written["cache_control"] = tool.cache
    return written


def object_schema(schema: Any) -> Any:
    """A schema of an object, which a tool without arguments may lack. What is no schema is for the provider to say."""
    if schema is None or schema == {}:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") != "object":
        schema = {"type": "object", **{name: value for name, value in schema.items() if name != "type"}}
    return schema if schema.get("properties") is not None else {**schema, "properties": {}}


def choice_of(conversation: Conversation, *, has_tools: bool) -> dict[str, Any] | None:
    """The choice in Messages' words, or None for the default."""
    choice = conversation.tool_choice
    if not has_tools:
        return None
    written: dict[str, Any] = {"type": _TYPES[choice.choice if choice else Choice.AUTO]}
    if choice is not None and choice.name is not None:
        written["name"] = choice.name
    if conversation.may_call_parallel is False and written["type"] != "none":
        written["disable_parallel_tool_use"] = True
    return written if choice is not None or len(written) > 1 else None
