"""A request in the vocabulary, written for Messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.models import ModelFacts, Sampling
from gateway_middleware.translation.calls import check_calls
from gateway_middleware.translation.messages.content import system_of, turns_of
from gateway_middleware.translation.messages.thinking import Plan, forces_a_tool, plan_thinking
from gateway_middleware.translation.messages.tools import choice_of, object_schema, tools_of
from gateway_middleware.translation.structured import ANSWER_TOOL, JSON_INSTRUCTION, answer_tool
from gateway_middleware.translation.vocabulary import Choice, ToolChoice

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.target import Target
    from gateway_middleware.translation.vocabulary import Conversation, OutputFormat

_UNKNOWN_HERE = ("seed", "logit_bias", "top_logprobs", "verbosity", "frequency_penalty", "presence_penalty", "logprobs")
_TIERS = {"default": "standard_only", "standard_only": "standard_only"}


def write_request(conversation: Conversation, target: Target, losses: Losses) -> dict[str, Any]:
    """The body. `losses` takes what Messages, or this model, has no word for."""
    facts = target.facts
    check_calls(conversation, losses)
    output = conversation.output_format
    is_by_tool = output is not None and output.schema is not None and not facts.has_schemas
    if output is not None and is_by_tool:
        conversation = _with_answer_tool(conversation, output)
    plan = plan_thinking(conversation, facts, losses)
    if plan.is_thinking and forces_a_tool(conversation):
        if not is_by_tool:
            losses.drop("tool_choice")
        conversation = msgspec.structs.replace(conversation, tool_choice=ToolChoice(choice=Choice.AUTO))
    body: dict[str, Any] = {"model": target.model, "max_tokens": plan.max_tokens}
    _put_prompt(body, conversation, losses)
    _put_tools(body, conversation, facts, losses)
    _put_output(body, None if is_by_tool else output, plan, losses)
    _put_sampling(body, conversation, facts, plan, losses)
    _put_options(body, conversation, losses)
    return body


def _with_answer_tool(conversation: Conversation, output: OutputFormat) -> Conversation:
    """The model must call the tool, or one of the client's where there are some."""
    names = Choice.REQUIRED if conversation.tools else Choice.NAMED
    return msgspec.structs.replace(
        conversation,
        tools=(*conversation.tools, answer_tool(output)),
        tool_choice=ToolChoice(choice=names, name=None if conversation.tools else ANSWER_TOOL),
    )


def _put_prompt(body: dict[str, Any], conversation: Conversation, losses: Losses) -> None:
    system, turns = system_of(conversation, losses), turns_of(conversation, losses)
    output = conversation.output_format
    if output is not None and output.schema is None:
        losses.drop("output_format")
        system.append({"type": "text", "text": JSON_INSTRUCTION})
    if not turns and system:
        losses.drop("message.role")
        turns, system = [{"role": "user", "content": system}], []
    if not turns:
        losses.refuse("messages", "holds no content")
    if system:
        is_plain = len(system) == 1 and system[0].keys() == {"type", "text"}
        body["system"] = system[0]["text"] if is_plain else system
    body["messages"] = turns


def _put_tools(body: dict[str, Any], conversation: Conversation, facts: ModelFacts, losses: Losses) -> None:
    tools = tools_of(conversation, facts, losses)
    if tools:
        body["tools"] = tools
    choice = choice_of(conversation, has_tools=bool(tools))
    if choice is not None:
        body["tool_choice"] = choice


def _put_output(body: dict[str, Any], output: OutputFormat | None, plan: Plan, losses: Losses) -> None:
    config: dict[str, Any] = {}
    if plan.thinking is not None:
        body["thinking"] = plan.thinking
    if plan.effort is not None:
        config["effort"] = plan.effort
    if output is not None and output.schema is not None:
        config["format"] = {"type": "json_schema", "schema": object_schema(output.schema)}
        if output.description is not None:
            losses.drop("output_format.description")
    if config:
        body["output_config"] = config


def _put_sampling(
    body: dict[str, Any], conversation: Conversation, facts: ModelFacts, plan: Plan, losses: Losses
) -> None:
    """A value that is the default says nothing and is left out without a word where it may not be said."""
    options = {"temperature": conversation.temperature, "top_p": conversation.top_p, "top_k": conversation.top_k}
    is_fixed = facts.sampling is Sampling.FIXED or plan.is_thinking
    for name, value in options.items():
        if value is None:
            continue
        is_second = facts.sampling is Sampling.ONE and name == "top_p" and "temperature" in body
        if is_fixed or is_second:
            if value != 1 or name == "top_k":
                losses.drop(name)
        elif name == "temperature" and value > 1:
            losses.drop(name)
            body[name] = 1
        else:
            body[name] = value


def _put_options(body: dict[str, Any], conversation: Conversation, losses: Losses) -> None:
    if conversation.stop:
        _put_stop(body, conversation.stop, losses)
    user = conversation.user or conversation.openai.get("safety_identifier")
    if user:
        body["metadata"] = {"user_id": user}
    for name in conversation.openai:
        if name != "safety_identifier" or conversation.user:
            losses.drop(name)
    for name in _UNKNOWN_HERE:
        if getattr(conversation, name):
            losses.drop(name)
    if conversation.service_tier in _TIERS:
        body["service_tier"] = _TIERS[conversation.service_tier]
    elif conversation.service_tier not in {None, "auto"}:
        losses.drop("service_tier")
    if conversation.cache is not None:
        body["cache_control"] = conversation.cache
    elif conversation.cache_key is not None:
        losses.drop("cache_key")
        body["cache_control"] = {"type": "ephemeral"}
    if conversation.is_stream:
        body["stream"] = True


def _put_stop(body: dict[str, Any], stop: tuple[str, ...], losses: Losses) -> None:
    sequences = [sequence for sequence in stop if sequence.strip()]
    if len(sequences) < len(stop):
        losses.drop("stop")
    if sequences:
        body["stop_sequences"] = sequences
