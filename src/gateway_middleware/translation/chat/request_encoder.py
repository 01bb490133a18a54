"""A request in the vocabulary, written as a chat completions request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.core.domain import Dialect
from gateway_middleware.translation.calls import check_calls
from gateway_middleware.translation.chat.content import messages_of
from gateway_middleware.translation.free_form import as_functions
from gateway_middleware.translation.messages.tools import object_schema
from gateway_middleware.translation.openai_options import (
    effort_of,
    identity_of,
    is_strict_schema,
    sampling_of,
    tools_of,
)
from gateway_middleware.translation.vocabulary import Choice, Conversation, OutputFormat, Tool, ToolChoice

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.target import Target

_MAX_STOPS = 4
_AS_THEY_ARE = ("seed", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")


def write_request(conversation: Conversation, target: Target, losses: Losses) -> dict[str, Any]:
    """The body. `losses` takes what chat, or this model, has no word for."""
    check_calls(conversation, losses)
    if _has_only_functions(target):
        conversation = as_functions(conversation, losses)
    body: dict[str, Any] = {"model": target.model, "messages": messages_of(conversation, target.model, losses)}
    body |= tools_of(conversation, target, losses, write_tool=_tool, write_choice=_choice)
    effort = effort_of(conversation, target, losses)
    if conversation.thinking_display is not None:
        losses.drop("thinking.display")
    if effort is not None:
        _put_effort(body, effort, target, losses)
    body |= sampling_of(conversation, target, effort, losses)
    if conversation.max_tokens is not None:
        body[_cap_name(target)] = conversation.max_tokens
    _put_stop(body, conversation, target, losses)
    if conversation.output_format is not None:
        body["response_format"] = _format(conversation.output_format)
    if conversation.verbosity is not None:
        _put_verbosity(body, conversation.verbosity, target, losses)
    body |= {name: value for name in _AS_THEY_ARE if (value := getattr(conversation, name)) is not None}
    body |= identity_of(conversation, target, losses)
    if conversation.is_stream:
        body["stream"] = True
    return body


def _has_only_functions(target: Target) -> bool:
    """Free-form tools are OpenAI's own: other servers of its format refuse them."""
    return target.dialect is Dialect.OPENAI and not target.facts.is_openai


def _cap_name(target: Target) -> str:
    """Reasoning models only know the newer name; so may an Azure deployment, whose name says little."""
    is_opaque = target.dialect is Dialect.AZURE and not target.facts.is_known
    return "max_completion_tokens" if target.facts.reasons or is_opaque else "max_tokens"


def _put_effort(body: dict[str, Any], effort: str, target: Target, losses: Losses) -> None:
    if "tools" in body and target.facts.has_effort_apart_from_tools:
        losses.drop("effort")
        return
    body["reasoning_effort"] = effort


def _put_stop(body: dict[str, Any], conversation: Conversation, target: Target, losses: Losses) -> None:
    if not conversation.stop:
        return
    if target.facts.reasons:
        losses.drop("stop")
        return
    if len(conversation.stop) > _MAX_STOPS:
        losses.drop("stop")
    body["stop"] = list(conversation.stop[:_MAX_STOPS])


def _put_verbosity(body: dict[str, Any], verbosity: str, target: Target, losses: Losses) -> None:
    if target.facts.reasons:
        body["verbosity"] = verbosity
    else:
        losses.drop("verbosity")


def _format(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    strict = is_strict_schema(output.schema) if output.is_strict is None else output.is_strict
    schema: dict[str, Any] = {"name": output.name, "schema": output.schema, "strict": strict}
    if output.description is not None:
        schema["description"] = output.description
    return {"type": "json_schema", "json_schema": schema}


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name}
    if tool.description is not None:
        described["description"] = tool.description
    if tool.is_free_form:
        return {"type": "custom", "custom": described | _form(tool.form)}
    strict = {} if tool.is_strict is None else {"strict": tool.is_strict}
    return {"type": "function", "function": {**described, "parameters": object_schema(tool.schema), **strict}}


def _form(form: dict[str, Any] | None) -> dict[str, Any]:
    if not form:
        return {}
    grammar = {name: value for name, value in form.items() if name != "type"}
    return {"format": {"type": form.get("type", "grammar"), "grammar": grammar} if grammar else form}


def _choice(choice: ToolChoice, conversation: Conversation) -> str | dict[str, Any]:
    kinds = {tool.name: "custom" if tool.is_free_form else "function" for tool in conversation.tools}
    if choice.allowed is not None:
        tools = [_named(name, kinds) for name in choice.allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.choice.value, "tools": tools}}
    return _named(choice.name or "", kinds) if choice.choice is Choice.NAMED else choice.choice.value


def _named(name: str, kinds: dict[str, str]) -> dict[str, Any]:
    kind = kinds.get(name, "function")
    return {"type": kind, kind: {"name": name}}
