"""Requests with a value of a wrong kind anywhere: each is translated, or refused in words. Nothing else is raised."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import InvalidRequestError, TranslationError
from provider_calls import deployment, model_request
from translation.translating import CHAT, MESSAGES, RESPONSES, Call, provider

ODD: list[Any] = [None, [], {}, "", "x", 0, -1, 1.5, 10**30, -1e308, True, [None], [[]], ["x"], [{}], [1], {"a": None},
                  {"type": "x"}, [{"type": ["x"]}], "\x00", "data:,", "https://"]  # fmt: skip
_SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
_GRAMMAR = {"syntax": "lark", "definition": "x"}
_MARK = {"type": "ephemeral"}
_PIXEL = "data:image/png;base64,iVBORw0KGgo="
_PDF = "data:application/pdf;base64,JVBERi0="

_CHAT = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": _MARK}]},
        {"role": "user", "name": "bob", "content": [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": _PIXEL, "detail": "low"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": _PDF}},
        ]},
        {"role": "assistant", "content": "b", "refusal": None, "reasoning_content": "r",
         "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}],
         "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "1"}]},
        {"role": "tool", "tool_call_id": "d", "content": "2"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": _SCHEMA, "strict": True}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "grammar", "grammar": _GRAMMAR}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA, "strict": True}},
    "stop": ["x"], "n": 1, "seed": 1, "temperature": 0.5, "top_p": 0.5, "max_completion_tokens": 99, "logprobs": False,
    "logit_bias": {"1": 2}, "user": "u", "metadata": {"a": "b"}, "modalities": ["text"], "reasoning_effort": "high",
    "verbosity": "low", "service_tier": "auto", "parallel_tool_calls": True, "prompt_cache_key": "k",
    "safety_identifier": "s",
}  # fmt: skip
_RESPONSES = {
    "instructions": "i",
    "input": [
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "h"}]},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "s"}]},
        {"role": "user", "content": [
            {"type": "input_text", "text": "a"},
            {"type": "input_image", "image_url": _PIXEL, "detail": "auto"},
            {"type": "input_file", "filename": "a.pdf", "file_data": _PDF},
        ]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}], "encrypted_content": "e"},
        {"type": "message", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "b", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "namespace": "ns", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
        {"type": "tool_search_call", "execution": "client", "call_id": "e", "arguments": {"q": "x"}},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "1"}]},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "2"},
        {"type": "tool_search_output", "execution": "client", "call_id": "e",
         "tools": [{"type": "namespace", "name": "m", "tools": [{"type": "function", "name": "k"}]}]},
        {"type": "web_search_call", "id": "w"},
    ],
    "tools": [{"type": "function", "name": "f", "description": "d", "parameters": _SCHEMA, "strict": True},
              {"type": "custom", "name": "g", "format": {"type": "grammar", **_GRAMMAR}},
              {"type": "tool_search", "execution": "client", "parameters": _SCHEMA},
              {"type": "namespace", "name": "ns", "description": "d", "tools": [{"type": "function", "name": "f"}]}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA}, "verbosity": "low"},
    "reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
    "truncation": "auto",
    "max_output_tokens": 99, "temperature": 0.5, "metadata": {"a": "b"}, "user": "u",
    "client_metadata": {"a": "b"}, "max_tool_calls": 3, "parallel_tool_calls": True, "service_tier": "auto",
}  # fmt: skip
_MESSAGES = {
    "max_tokens": 9999,
    "system": [{"type": "text", "text": "s", "cache_control": _MARK}],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "a", "cache_control": _MARK},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "t"}},
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "b", "citations": [{"type": "char_location", "cited_text": "c"}]},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"q": "x"}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "is_error": True,
                                      "content": [{"type": "text", "text": "1"}]}]},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": _SCHEMA, "cache_control": _MARK}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": _SCHEMA}},
    "stop_sequences": ["x"], "metadata": {"user_id": "u"}, "temperature": 1, "top_k": 5, "service_tier": "auto",
    "context_management": {"edits": [{"type": "x"}]}, "mcp_servers": [],
}  # fmt: skip
WAYS = [
    (CHAT, _CHAT, MESSAGES, "anthropic", None),
    (CHAT, _CHAT, RESPONSES, "openai", RESPONSES),
    (RESPONSES, _RESPONSES, MESSAGES, "anthropic", None),
    (RESPONSES, _RESPONSES, CHAT, "openai", CHAT),
    (MESSAGES, _MESSAGES, CHAT, "openai", CHAT),
    (MESSAGES, _MESSAGES, RESPONSES, "openai", RESPONSES),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield (*path, name)
        yield from places(member, (*path, name))


def with_value(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    parent: Any = changed
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return changed


@pytest.mark.parametrize(("surface", "body", "target", "to", "native"), WAYS)
def test_the_whole_request_is_translated(
    surface: Surface, body: dict[str, Any], target: Surface, to: str, native: Surface | None
) -> None:
    assert Call(surface, body, to, native=native).translation.surface is target


@pytest.mark.parametrize(("surface", "body", "target", "to", "native"), WAYS)
def test_an_odd_value_anywhere_is_translated_or_refused_in_words(
    surface: Surface, body: dict[str, Any], target: Surface, to: str, native: Surface | None
) -> None:
    surprises = []
    for path in places(body):
        for value in ODD:
            try:
                call = Call(surface, with_value(body, path, value), to, native=native)
                call.answer(_answer_of(target))
            except InvalidRequestError as refusal:
                surprises += [] if refusal.message else [(path, value, "without a word")]
            except Exception as error:  # noqa: BLE001  each of them is a finding
                surprises.append((path, value, repr(error)))
    assert surprises == []


def _answer_of(target: Surface) -> dict[str, Any]:
    if target is MESSAGES:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        return {"id": "m", "model": "c", "content": [block], "stop_reason": "tool_use", "usage": {}}
    if target is CHAT:
        message = {"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{}"}}]}
        return {"id": "1", "model": "g", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    item = {"type": "function_call", "id": "fc", "call_id": "t", "name": "f", "arguments": "{}"}
    return {"id": "resp_1", "model": "g", "status": "completed", "output": [item], "usage": None}


def test_numbers_that_nobody_can_hold_are_refused_in_words() -> None:
    request = model_request(CHAT, b'{"model":"gpt-x","messages":[{"role":"user","content":"hi"}],"seed":1e999}')
    with pytest.raises(TranslationError, match="Number out of range"):
        provider("anthropic").prepare(request, deployment("claude-sonnet-4-5", "anthropic"))
