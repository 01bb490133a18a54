"""Every field of a request is carried, listed, or refused: requests are made of the SDKs' own types."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import MessageParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import ResponseInputItemParam
from openai.types.responses import ToolParam as ResponsesToolParam
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import TranslationError
from translation.sdk_values import objects, values
from translation.translating import CHAT, MESSAGES, RESPONSES, Call

PARAMS = {
    CHAT: CompletionCreateParamsNonStreaming,
    RESPONSES: ResponseCreateParamsNonStreaming,
    MESSAGES: MessageCreateParamsNonStreaming,
}
TURNS = {CHAT: ChatCompletionMessageParam, RESPONSES: ResponseInputItemParam, MESSAGES: MessageParam}
TOOLS = {CHAT: ChatCompletionToolUnionParam, RESPONSES: ResponsesToolParam, MESSAGES: ToolParam}
PROMPTS = {CHAT: "messages", RESPONSES: "input", MESSAGES: "messages"}
BASES: dict[Surface, dict[str, Any]] = {
    CHAT: {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    },
    RESPONSES: {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}]},
    MESSAGES: {
        "max_tokens": 4000,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    },
}
WAYS = [
    (CHAT, MESSAGES),
    (CHAT, RESPONSES),
    (RESPONSES, MESSAGES),
    (RESPONSES, CHAT),
    (MESSAGES, CHAT),
    (MESSAGES, RESPONSES),
]
SILENT = {
    "model",
    "id",
    "status",
    "type",
    "role",
    "caller",
    "phase",
    "allowed_callers",
    "eager_input_streaming",
    "include_obfuscation",
    "include_usage",
    "source.media_type",
    "logprobs",
    "json_schema.name",
    "json_schema.strict",
    "text.format.name",
    "text.format.strict",
}
"""Ends of paths whose members say nothing to a model: ids, kinds, places of other members, what the reader answers."""
DEFAULTS = {
    "reasoning_effort": "none",
    "reasoning.effort": "none",
    "n": 1,
    "truncation": "disabled",
    "service_tier": "auto",
    "reasoning.context": "auto",
    "reasoning.mode": "standard",
    "detail": "auto",
    "modalities[]": "text",
    "include[]": "reasoning.encrypted_content",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
}
"""Values that say what is so anyway."""


def translated(surface: Surface, body: dict[str, Any], target: Surface) -> Call | None:
    try:
        return Call(surface, body, "anthropic" if target is MESSAGES else "openai", native=target)
    except TranslationError:
        return None


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every leaf of a body: its path without indices, and the keys that lead to it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        step = f"{path}[]" if isinstance(value, list) else f"{path}.{key}" if path else str(key)
        if isinstance(member, (dict, list)) and member:
            for below, keys in leaves(member, step):
                yield below, [key, *keys]
        elif member not in (None, False, [], {}, ""):
            yield step, [key]


def without(body: dict[str, Any], keys: list[Any]) -> dict[str, Any]:
    """The body without one leaf."""
    changed: Any = copy.deepcopy(body)
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    result: dict[str, Any] = changed
    return result


def is_listed(path: str, dropped: tuple[str, ...]) -> bool:
    """Whether the path, something around it, or something in it is listed; deep places are told by the member alone."""
    root, end = path.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0], path.rpartition(".")[2]
    return any(
        path.startswith(name)
        or name.startswith(path)
        or (name.split("[")[0].split(".")[0] == root and name.rpartition(".")[2] in {end, *path.split(".")})
        for name in dropped
    )


def is_within(body: Any, keys: list[Any], dropped: tuple[str, ...]) -> bool:
    """Whether an object around the leaf is listed as a whole, by its kind."""
    ends = {name.rpartition(".")[2] for name in dropped}
    for key in keys:
        if isinstance(body, dict) and body.get("type") in ends:
            return True
        body = body[key]
    return False


def is_silent(path: str, value: Any) -> bool:
    return (
        "logprobs[]" in path
        or any(path == end or path.endswith(f".{end}") for end in SILENT)
        or any((path == end or path.endswith(f".{end}")) and value == default for end, default in DEFAULTS.items())
    )


def value_at(body: Any, keys: list[Any]) -> Any:
    for key in keys:
        body = body[key]
    return body


def check(surface: Surface, body: dict[str, Any], target: Surface) -> None:
    """For each leaf: it changes what goes upstream, or it is listed, or without it the request is refused."""
    call = translated(surface, body, target)
    if call is None:
        return
    for path, keys in leaves(body):
        if (
            is_silent(path, value_at(body, keys))
            or is_listed(path, call.dropped)
            or is_within(body, keys, call.dropped)
        ):
            continue
        less = translated(surface, without(body, keys), target)
        assert less is None or less.body != call.body, f"{path} is lost in silence: {body}"


@pytest.mark.parametrize(("surface", "target"), WAYS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_option_is_lost_in_silence(surface: Surface, target: Surface, data: st.DataObject) -> None:
    options = data.draw(objects(PARAMS[surface], 1))
    for name in ("tools", PROMPTS[surface], "stream"):
        options.pop(name, None)
    if "user" in options and "safety_identifier" in options:
        options["safety_identifier"] = "somebody else"
    check(surface, {**options, **BASES[surface]}, target)


@pytest.mark.parametrize(("surface", "target"), WAYS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_nothing_of_a_turn_is_lost_in_silence(surface: Surface, target: Surface, data: st.DataObject) -> None:
    turn = data.draw(values(TURNS[surface]))
    first = {"role": "user", "content": "hi"}
    check(surface, {**BASES[surface], PROMPTS[surface]: [first, turn]}, target)


@pytest.mark.parametrize(("surface", "target"), WAYS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_nothing_of_a_tool_is_lost_in_silence(surface: Surface, target: Surface, data: st.DataObject) -> None:
    check(surface, {**BASES[surface], "tools": [data.draw(values(TOOLS[surface]))]}, target)


@pytest.mark.parametrize(("surface", "target"), WAYS)
@settings(max_examples=15, deadline=None)
@given(name=st.from_regex(r"x_[a-z]{3,8}", fullmatch=True), value=st.sampled_from([1, "a", [1], {"a": 1}, True]))
def test_a_member_that_nobody_knows_is_listed_wherever_it_stands(
    surface: Surface, target: Surface, name: str, value: Any
) -> None:
    call = translated(surface, {**BASES[surface], name: value}, target)
    assert call is not None
    assert name in call.dropped
    body = copy.deepcopy(BASES[surface])
    body["tools"][0][name] = value
    call = translated(surface, body, target)
    assert call is not None
    assert f"tools[].{name}" in call.dropped


@pytest.mark.parametrize("summary", ["summary", "generate_summary"])
@pytest.mark.parametrize("effort", ["none", "minimal"])
def test_a_summary_of_reasoning_that_there_is_no_room_for_is_listed(summary: str, effort: str) -> None:
    body = {"max_output_tokens": 1, "reasoning": {"effort": effort, summary: "auto"}, **BASES[Surface.RESPONSES]}
    call = translated(Surface.RESPONSES, body, Surface.MESSAGES)
    assert call is not None
    assert f"reasoning.{summary}" in call.dropped
