"""A request in the vocabulary, written as a Responses request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.calls import check_calls
from gateway_middleware.translation.messages.tools import object_schema
from gateway_middleware.translation.openai_options import (
    effort_of,
    identity_of,
    is_strict_schema,
    sampling_of,
    tools_of,
)
from gateway_middleware.translation.responses.items_encoder import items_of
from gateway_middleware.translation.vocabulary import Choice, Conversation, OutputFormat, Role, Tool, ToolChoice

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.target import Target

_MIN_OUTPUT = 16
_UNKNOWN_HERE = ("seed", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "stop")


def write_request(conversation: Conversation, target: Target, losses: Losses) -> dict[str, Any]:
    """The body: nothing is stored, and reasoning comes encrypted for the client to bring back."""
    check_calls(conversation, losses)
    body: dict[str, Any] = {"model": target.model}
    if conversation.system:
        body["instructions"] = "\n\n".join(text.text for text in conversation.system)
    body["input"] = items_of(conversation, losses)
    if not conversation.system and all(message.role is Role.ASSISTANT for message in conversation.messages):
        losses.refuse("messages", "holds nothing of the user")
    body["store"] = False
    body |= tools_of(conversation, target, losses, write_tool=_tool, write_choice=_choice)
    _put_reasoning(body, conversation, target, losses)
    _put_cap(body, conversation, target, losses)
    _put_text(body, conversation, target, losses)
    for name in _UNKNOWN_HERE:
        if getattr(conversation, name):
            losses.drop(name)
    body |= identity_of(conversation, target, losses)
    if body.pop("prediction", None) is not None:
        losses.drop("prediction")
    if conversation.is_stream:
        body["stream"] = True
    return body


def _put_reasoning(body: dict[str, Any], conversation: Conversation, target: Target, losses: Losses) -> None:
    effort = effort_of(conversation, target, losses)
    reasoning: dict[str, Any] = {} if effort is None else {"effort": effort}
    if conversation.thinking_display == "summarized" and target.facts.reasons:
        reasoning["summary"] = "auto"
    elif conversation.thinking_display == "summarized":
        losses.drop("thinking.display")
    if reasoning:
        body["reasoning"] = reasoning
    if target.facts.reasons:
        body["include"] = ["reasoning.encrypted_content"]
    body |= sampling_of(conversation, target, effort, losses)


def _put_cap(body: dict[str, Any], conversation: Conversation, target: Target, losses: Losses) -> None:
    """OpenAI refuses a cap that is too small to end anything."""
    cap = conversation.max_tokens
    if cap is None:
        return
    if cap < _MIN_OUTPUT and target.facts.is_openai:
        losses.drop("max_tokens")
        cap = _MIN_OUTPUT
    body["max_output_tokens"] = cap


def _put_text(body: dict[str, Any], conversation: Conversation, target: Target, losses: Losses) -> None:
    text: dict[str, Any] = {}
    if conversation.output_format is not None:
        text["format"] = _format(conversation.output_format)
    if conversation.verbosity is not None and target.facts.reasons:
        text["verbosity"] = conversation.verbosity
    elif conversation.verbosity is not None:
        losses.drop("verbosity")
    if text:
        body["text"] = text


def _format(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    strict = is_strict_schema(output.schema) if output.is_strict is None else output.is_strict
    described = {} if output.description is None else {"description": output.description}
    return {"type": "json_schema", "name": output.name, "schema": output.schema, "strict": strict, **described}


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name} | ({} if tool.description is None else {"description": tool.description})
    if tool.is_free_form:
        return {"type": "custom", **described, **({"format": tool.form} if tool.form else {})}
    # Without the word a schema is made strict, which changes it.
    strict = bool(tool.is_strict)
    return {"type": "function", **described, "parameters": object_schema(tool.schema), "strict": strict}


def _choice(choice: ToolChoice, conversation: Conversation) -> str | dict[str, Any]:
    kinds = {tool.name: "custom" if tool.is_free_form else "function" for tool in conversation.tools}
    if choice.allowed is not None:
        tools = [{"type": kinds.get(name, "function"), "name": name} for name in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.choice.value, "tools": tools}
    if choice.choice is not Choice.NAMED:
        return choice.choice.value
    return {"type": kinds.get(choice.name or "", "function"), "name": choice.name}
