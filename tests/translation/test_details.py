"""Corners of requests, answers and streams, in tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import (
    TranslationError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamStreamError,
)
from gateway_middleware.translation.chat.stream_encoder import ChatStreamEncoder
from gateway_middleware.translation.context import Context
from gateway_middleware.translation.events import PartEnded, ReasoningDelta, ReasoningEnded
from gateway_middleware.translation.fields import Losses
from gateway_middleware.translation.messages.content import turns_of
from gateway_middleware.translation.messages.stream_encoder import MessagesStreamEncoder
from gateway_middleware.translation.vocabulary import (
    Conversation,
    Document,
    Message,
    Reasoning,
    Role,
    ToolResult,
    Vendor,
)
from provider_calls import deployment, model_request, relay, tried_without
from translation.translating import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Call,
    called,
    chunk,
    events_of,
    message_stream,
    provider,
    sse,
    user,
)

A_TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
GRAMMAR = {"syntax": "lark", "definition": "start: x"}
CUSTOM = {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": GRAMMAR}}}
R_CUSTOM = {"type": "custom", "name": "c", "format": {"type": "grammar", **GRAMMAR}}


def chat(**options: Any) -> dict[str, Any]:
    return {"messages": [user()], **options}


def messages(**options: Any) -> dict[str, Any]:
    return {"max_tokens": 4000, "messages": [user()], **options}


def said(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return messages(messages=[user(), {"role": role, "content": list(blocks)}])


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


REFUSED: list[tuple[Surface, dict[str, Any], str]] = [
    (CHAT, chat(messages=[]), "messages"),
    (CHAT, chat(messages="hi"), "messages"),
    (CHAT, chat(messages=[5]), "messages[]"),
    (CHAT, chat(messages=[{"content": "x"}]), "messages[].role"),
    (CHAT, chat(messages=[{"role": "function", "name": "f", "content": "x"}]), "messages[].role"),
    (CHAT, chat(messages=[user([{"type": "text", "text": 5}])]), "messages[].content[].text"),
    (CHAT, chat(messages=[user([{"type": "video"}])]), "messages[].content[].type"),
    (CHAT, chat(messages=[user([{"type": "file", "file": {"file_id": "f"}}])]), "messages[].content[].file.file_id"),
    (CHAT, chat(messages=[user(), {"role": "assistant", "function_call": {"name": "f"}}]), "messages[].function_call"),
    (CHAT, chat(messages=[user(), {"role": "assistant", "tool_calls": [{"id": "c", "type": "x"}]}]),
     "messages[].tool_calls[].type"),
    (CHAT, chat(temperature="warm"), "temperature"),
    (CHAT, chat(max_tokens=1.5), "max_tokens"),
    (CHAT, chat(max_tokens=9, max_completion_tokens=9), "max_tokens"),
    (CHAT, chat(stop=[1]), "stop"),
    (CHAT, chat(stop={"a": 1}), "stop"),
    (CHAT, chat(store=True), "store"),
    (CHAT, chat(functions=[{"name": "f"}]), "functions"),
    (CHAT, chat(modalities=["text", "audio"]), "modalities"),
    (CHAT, chat(response_format={"type": "grammar"}), "response_format.type"),
    (CHAT, chat(tools=[{"type": "web_search"}]), "tools[].type"),
    (CHAT, chat(tools=[TOOL], tool_choice="perhaps"), "tool_choice"),
    (CHAT, chat(tools=[TOOL], tool_choice={"type": "hosted"}), "tool_choice"),
    (CHAT, chat(messages=[user(" ")]), "messages"),
    (CHAT, chat(messages=[user([{"type": "image_url", "image_url": "data:image/tiff;base64,AA"}])]),
     "messages[].content[].image_url.url"),
    (CHAT, chat(messages=[user([{"type": "file", "file": {"filename": "a.docx", "file_data": "AA"}}])]),
     "messages[].content[].file"),
    (CHAT, chat(messages=[user([{"type": "file", "file": {"filename": "a.txt", "file_data": "/w=="}}])]),
     "messages[].content[].file"),
    (CHAT, chat(messages=[user(), {"role": "assistant", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{x"}}]},
        {"role": "tool", "tool_call_id": "c", "content": ""}]), "messages[].tool_calls[].function.arguments"),
    (RESPONSES, {"input": []}, "input"),
    (RESPONSES, {"input": [{"role": "robot", "content": "x"}]}, "input[].role"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[].type"),
    (RESPONSES, {"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[].type"),
    (RESPONSES, {"input": [user([{"type": "input_audio"}])]}, "input[].content[].type"),
    (RESPONSES, {"input": [user([{"type": "input_image", "file_id": "f"}])]}, "input[].content[].file_id"),
    (RESPONSES, {"input": [user([{"type": "input_file", "file_id": "f"}])]}, "input[].content[].file_id"),
    (RESPONSES, {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "https://a"}]}]},
     "input[].content"),
    (RESPONSES, {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, {"input": "x", "background": True}, "background"),
    (RESPONSES, {"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    (RESPONSES, {"input": "x", "tool_choice": "perhaps"}, "tool_choice"),
    (RESPONSES, {"input": "x", "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
    (MESSAGES, messages(messages=[]), "messages"),
    (MESSAGES, messages(messages=[{"role": "robot", "content": "x"}]), "messages[].role"),
    (MESSAGES, messages(system=[{"type": "image"}]), "system[].type"),
    (MESSAGES, messages(stop_sequences=[1]), "stop_sequences"),
    (MESSAGES, messages(mcp_servers=[{"url": "x"}]), "mcp_servers"),
    (MESSAGES, messages(container="c"), "container"),
    (MESSAGES, messages(tools=[{"type": "bash_20250124", "name": "bash"}]), "tools[].type"),
    (MESSAGES, messages(tool_choice={"type": "perhaps"}), "tool_choice.type"),
    (MESSAGES, said({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[].content[].source.type"),
    (MESSAGES, said(document({"type": "file", "file_id": "f"})), "messages[].content[].source.type"),
    (MESSAGES, said(document({"type": "url", "url": "https://a"})), "messages[].content[].source"),
    (MESSAGES, messages(messages=[{"role": "system", "content": [{"type": "image", "source": {
        "type": "url", "url": "https://a"}}]}]), "messages[].content"),
    (MESSAGES, said({"type": "tool_use", "id": "t", "name": "f", "input": {}}), "messages[].content"),
    (MESSAGES, said(document({"type": "text", "data": "x"}), role="assistant"), "messages[].content"),
]  # fmt: skip


@pytest.mark.parametrize(("surface", "body", "param"), REFUSED)
def test_what_cannot_be_said_is_refused_by_its_name(surface: Surface, body: dict[str, Any], param: str) -> None:
    with pytest.raises(TranslationError) as refused:
        Call(surface, body, "openai" if surface is MESSAGES else "anthropic", speak=CHAT)
    assert refused.value.param == param
    assert f"`{param}`" in refused.value.message


@pytest.mark.parametrize("blocks", [
    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    {"type": "thinking", "thinking": "x", "signature": "s"},
])  # fmt: skip
def test_a_user_says_nothing_of_an_assistant_to_responses(blocks: dict[str, Any]) -> None:
    with pytest.raises(TranslationError, match="user"):
        Call(MESSAGES, said(blocks), "openai", speak=RESPONSES)
    image = {"type": "image", "source": {"type": "url", "url": "https://a"}}
    with pytest.raises(TranslationError, match="assistant"):
        Call(MESSAGES, said(image, role="assistant"), "openai", speak=RESPONSES)
    with pytest.raises(TranslationError, match="holds nothing of the user"):
        Call(MESSAGES, messages(messages=[{"role": "assistant", "content": "x"}]), "openai", speak=RESPONSES)


def test_documents_in_all_their_forms() -> None:
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    blocks = [
        document({"type": "text", "media_type": "text/plain", "data": "plain"}, title="T"),
        document({"type": "content", "content": texts}),
        {
            "type": "search_result",
            "source": "https://s",
            "title": "S",
            "content": texts,
            "citations": {"enabled": True},
        },
        document({"type": "base64", "media_type": "application/pdf", "data": "AA"}, citations={"enabled": True}),
    ]
    by_chat = Call(MESSAGES, said(*blocks), "openai")
    content = by_chat.body["messages"][1]["content"]
    assert [part.get("text") for part in content] == ["T\n\nplain", "a\nb", "S (https://s)\n\na\nb", None]
    assert content[3]["file"] == {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AA"}
    assert set(by_chat.dropped) == {"messages[].content[].source", "messages[].content[].citations"}
    linked = document({"type": "url", "url": "https://a/a.pdf"}, title="T")
    by_responses = Call(MESSAGES, said(*blocks, linked), "openai", speak=RESPONSES)
    content = by_responses.body["input"][1]["content"]
    assert content[3]["filename"] == "document.pdf"
    assert content[4] == {"type": "input_file", "file_url": "https://a/a.pdf"}
    assert "messages[].content[].title" in by_responses.dropped


def test_files_of_chat_and_responses_reach_claude() -> None:
    parts = [
        {"type": "file", "file": {"filename": "a.txt", "file_data": "aGk="}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}},
        {"type": "image_url", "image_url": "https://a/a.png"},
    ]
    content = Call(CHAT, chat(messages=[user(parts)])).body["messages"][0]["content"]
    assert content[0] == {"type": "document", "title": "a.txt", "source": {
        "type": "text", "media_type": "text/plain", "data": "hi"}}  # fmt: skip
    assert content[1]["source"] == {"type": "base64", "media_type": "application/pdf", "data": "AA"}
    assert content[2]["source"] == {"type": "url", "url": "https://a/a.png"}
    items = [user([{"type": "input_file", "file_url": "https://a/a.pdf"}])]
    assert Call(RESPONSES, {"input": items}).body["messages"][0]["content"][0]["source"]["type"] == "url"


def test_tool_results_in_all_their_forms() -> None:
    used = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    history = [user(), {"role": "assistant", "content": [used]},
               user([{"type": "tool_result", "tool_use_id": "t", "is_error": True}])]  # fmt: skip
    by_chat = Call(MESSAGES, messages(messages=history), "openai")
    assert by_chat.body["messages"][2] == {"role": "tool", "tool_call_id": "t", "content": ""}
    assert by_chat.dropped == ("messages[].content[].is_error",)
    by_responses = Call(MESSAGES, messages(messages=history), "openai", speak=RESPONSES)
    assert by_responses.body["input"][2] == {"type": "function_call_output", "call_id": "t", "output": ""}
    items = [user(), {"type": "custom_tool_call", "call_id": "c", "name": "c", "input": "raw"},
             {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}]  # fmt: skip
    turns = Call(RESPONSES, {"input": items, "tools": [R_CUSTOM]}).body["messages"]
    assert turns[1]["content"][0]["input"] == {"input": "raw"}
    assert turns[2]["content"][0]["content"] == "done"


def test_free_form_tools_between_chat_and_responses() -> None:
    history = [user(), {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {
        "name": "c", "input": "raw"}}]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]  # fmt: skip
    chosen = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CUSTOM_NAME, FUNCTION_NAME]}}
    body = chat(messages=history, tools=[CUSTOM, TOOL], tool_choice=chosen)
    there = Call(CHAT, body, "openai", native=RESPONSES).body
    assert there["tools"][0] == R_CUSTOM
    assert there["input"][1] == {"type": "custom_tool_call", "call_id": "c", "name": "c", "input": "raw"}
    assert there["tool_choice"]["tools"] == [{"type": "custom", "name": "c"}, {"type": "function", "name": "f"}]
    back = Call(RESPONSES, {**there, "model": "x"}, "openai", native=CHAT).body
    assert back["tools"][0] == CUSTOM
    assert back["tool_choice"] == chosen
    assert back["messages"][1]["tool_calls"][0]["custom"] == {"name": "c", "input": "raw"}
    plain = {"type": "custom", "custom": {"name": "c"}}
    assert Call(CHAT, chat(tools=[plain]), "openai", native=RESPONSES).body["tools"] == [
        {"type": "custom", "name": "c"}
    ]


CUSTOM_NAME = {"type": "custom", "custom": {"name": "c"}}
FUNCTION_NAME = {"type": "function", "function": {"name": "f"}}


def test_allowed_tools_are_all_that_claude_sees() -> None:
    chosen = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [FUNCTION_NAME]}}
    call = Call(CHAT, chat(tools=[CUSTOM, TOOL], tool_choice=chosen))
    assert [tool["name"] for tool in call.body["tools"]] == ["f"]
    assert call.body["tool_choice"] == {"type": "any"}
    grammar = Call(RESPONSES, {"input": "x", "tools": [R_CUSTOM], "tool_choice": {"type": "custom", "name": "c"}})
    assert grammar.dropped == ("tools[].format",)
    assert grammar.body["tool_choice"] == {"type": "tool", "name": "c"}
    flat = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    tools = [{"type": "function", "name": "f", "parameters": {}}]
    assert Call(RESPONSES, {"input": "x", "tools": tools, "tool_choice": flat}).body["tool_choice"] == {"type": "auto"}


def test_calls_one_by_one_in_both_words() -> None:
    serial = Call(CHAT, chat(tools=[TOOL], parallel_tool_calls=False)).body
    assert serial["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    asked = {"type": "auto", "disable_parallel_tool_use": True}
    for speak in (CHAT, RESPONSES):
        call = Call(MESSAGES, messages(tools=[A_TOOL], tool_choice=asked), "openai", speak=speak)
        assert call.body["parallel_tool_calls"] is False
        old = Call(MESSAGES, messages(tools=[A_TOOL], tool_choice=asked), "openai", model="o3", speak=speak)
        assert old.dropped == ("tool_choice.disable_parallel_tool_use",)


def test_strict_tools_where_the_model_has_them() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}
    assert Call(CHAT, chat(tools=[tool])).body["tools"][0]["strict"] is True
    old = Call(CHAT, chat(tools=[tool]), model="claude-sonnet-4-0")
    assert old.dropped == ("tools[].function.strict",)
    odd = {"type": "function", "function": {"name": "f", "parameters": True}}
    assert Call(CHAT, chat(tools=[odd])).body["tools"][0]["input_schema"] is True
    untyped = {"type": "function", "function": {"name": "f", "parameters": {"anyOf": []}}}
    assert Call(CHAT, chat(tools=[untyped])).body["tools"][0]["input_schema"]["type"] == "object"


SCHEMA = {"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "string"}]}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "is_strict"), [(SCHEMA, True), ({**SCHEMA, "required": []}, False), ({"type": "object"}, False)]
)
def test_a_schema_of_claude_is_strict_where_openai_takes_it(schema: dict[str, Any], *, is_strict: bool) -> None:
    body = messages(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert Call(MESSAGES, body, "openai").body["response_format"]["json_schema"]["strict"] is is_strict
    written = Call(MESSAGES, body, "openai", speak=RESPONSES).body["text"]["format"]
    assert (written["strict"], written["schema"]) == (is_strict, schema)
    before = messages(output_format={"type": "json_schema", "schema": schema})
    assert "response_format" in Call(MESSAGES, before, "openai").body


def test_output_formats_between_all() -> None:
    form = {"type": "json_schema", "name": "n", "description": "d", "schema": SCHEMA, "strict": True}
    to_chat = Call(RESPONSES, {"input": "x", "text": {"format": form}}, "openai", native=CHAT).body
    assert to_chat["response_format"]["json_schema"] == {k: v for k, v in form.items() if k != "type"}
    to_responses = Call(CHAT, chat(response_format=to_chat["response_format"]), "openai", native=RESPONSES).body
    assert to_responses["text"]["format"] == form
    loose = Call(CHAT, chat(response_format={"type": "json_object"}))
    assert loose.body["system"].startswith("Answer with one JSON object")
    assert loose.dropped == ("response_format",)
    for to in (CHAT, RESPONSES):
        body = {"input": "x", "text": {"format": {"type": "json_object"}}} if to is CHAT else chat(
            response_format={"type": "json_object"})  # fmt: skip
        call = Call(RESPONSES if to is CHAT else CHAT, body, "openai", native=to)
        assert "json_object" in json.dumps(call.body)
    bare = chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "description": "d"}})
    assert "response_format.json_schema.description" in Call(CHAT, bare).dropped
    with_tools = Call(CHAT, chat(response_format=to_chat["response_format"], tools=[TOOL]), model="claude-sonnet-4-0")
    assert with_tools.body["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("model", "wanted", "written", "is_told"),
    [
        ("gpt-5", "none", "minimal", True),
        ("gpt-5", "max", "high", True),
        ("gpt-5.2", "max", "xhigh", True),
        ("gpt-5.6-sol", "max", "max", False),
        ("o3", "minimal", "low", True),
        ("gpt-5", "enormous", "enormous", False),
        ("gpt-4o", "high", None, True),
        ("gpt-4o", "none", None, False),
    ],
)
def test_efforts_become_those_that_the_model_knows(
    model: str, wanted: str, written: str | None, *, is_told: bool
) -> None:
    body = {"input": "x", "reasoning": {"effort": wanted}}
    call = Call(RESPONSES, body, "openai", model=model, native=CHAT)
    assert call.body.get("reasoning_effort") == written
    assert bool(call.dropped) is is_told


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [({"type": "enabled", "budget_tokens": 1024}, "low"), ({"type": "enabled", "budget_tokens": 9000}, "medium"),
     ({"type": "adaptive"}, None), ({"type": "disabled"}, None)],
)  # fmt: skip
def test_thinking_becomes_an_effort(thinking: dict[str, Any], effort: str | None) -> None:
    body = messages(thinking=thinking)
    assert Call(MESSAGES, body, "openai", model="gpt-5", speak=CHAT).body.get("reasoning_effort") == effort
    told = Call(MESSAGES, body, "openai", model="gpt-4o", speak=CHAT).dropped
    assert bool(told) is (thinking["type"] != "disabled")


def test_reasoning_is_asked_for_and_shown() -> None:
    shown = messages(thinking={"type": "enabled", "budget_tokens": 2048, "display": "summarized"})
    call = Call(MESSAGES, shown, "openai", model="gpt-5", speak=RESPONSES)
    assert call.body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert call.body["include"] == ["reasoning.encrypted_content"]
    assert call.body["store"] is False
    plain = Call(MESSAGES, shown, "openai", model="gpt-4o", speak=RESPONSES)
    assert "include" not in plain.body
    assert "thinking.display" in plain.dropped
    to_chat = Call(MESSAGES, shown, "openai", model="gpt-5", speak=CHAT)
    assert to_chat.dropped == ("thinking.display",)
    effort = messages(output_config={"effort": "high"}, thinking={"type": "enabled", "budget_tokens": 2048})
    assert Call(MESSAGES, effort, "openai", model="gpt-5", speak=CHAT).dropped == ("thinking.budget_tokens",)
    summary = {"input": "x", "reasoning": {"effort": "high", "summary": "auto"}}
    claude = Call(RESPONSES, summary, model="claude-opus-4-7").body
    assert claude["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert claude["output_config"] == {"effort": "high"}
    alone = Call(RESPONSES, {"input": "x", "reasoning": {"summary": "auto", "context": "auto"}})
    assert alone.dropped == ("reasoning.summary",)
    ext = Call(CHAT, chat(thinking={"type": "enabled", "budget_tokens": 3000, "display": "omitted"}, max_tokens=9000))
    assert ext.body["thinking"] == {"type": "enabled", "budget_tokens": 3000, "display": "omitted"}
    adaptive = Call(CHAT, chat(thinking={"type": "adaptive"}, max_tokens=50_000), model="claude-opus-4-5")
    assert adaptive.body["thinking"]["budget_tokens"] == 16_384
    off = Call(CHAT, chat(thinking={"type": "disabled", "display": "omitted"}))
    assert off.dropped == ("thinking.display",)
    never = Call(CHAT, chat(reasoning_effort="low"), model="claude-3-opus-20240229")
    assert never.dropped == ("reasoning_effort",)


def test_thinking_rests_while_calls_are_answered_without_their_thinking() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    history = [
        user(),
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    call = Call(CHAT, chat(messages=history, reasoning_effort="high"))
    assert "thinking" not in call.body
    assert call.dropped == ("reasoning_effort",)
    adaptive = Call(CHAT, chat(messages=history, reasoning_effort="high"), model="claude-opus-4-7")
    assert adaptive.body["thinking"] == {"type": "adaptive"}


def test_efforts_and_tools_apart_where_chat_has_them_apart() -> None:
    body = messages(tools=[A_TOOL], output_config={"effort": "low"})
    call = Call(MESSAGES, body, "openai", model="gpt-5.6-sol", speak=CHAT)
    assert call.dropped == ("output_config.effort",)
    assert Call(MESSAGES, body, "openai", model="gpt-5.6-sol").body["reasoning"] == {"effort": "low"}


def test_stops_caps_and_words_of_models() -> None:
    many = Call(MESSAGES, messages(stop_sequences=list("abcde")), "openai")
    assert (many.body["stop"], many.dropped) == (list("abcd"), ("stop_sequences",))
    assert Call(MESSAGES, messages(stop_sequences=["a"]), "openai", model="gpt-5", speak=CHAT).dropped == (
        "stop_sequences",
    )
    assert Call(CHAT, chat(stop=["\n", "a"])).body["stop_sequences"] == ["a"]
    small = Call(MESSAGES, {**messages(), "max_tokens": 5}, "openai", speak=RESPONSES)
    assert (small.body["max_output_tokens"], small.dropped) == (16, ("max_tokens",))
    verbose = {"input": "x", "text": {"verbosity": "low"}}
    assert Call(RESPONSES, verbose, "openai", model="gpt-5", native=CHAT).body["verbosity"] == "low"
    assert Call(RESPONSES, verbose, "openai", native=CHAT).dropped == ("text.verbosity",)
    assert Call(CHAT, chat(verbosity="low"), "openai", native=RESPONSES).dropped == ("verbosity",)
    assert Call(CHAT, chat(verbosity="low"), "openai", model="gpt-5", native=RESPONSES).body["text"] == {
        "verbosity": "low"
    }
    assert Call(CHAT, chat(prediction={"type": "content"}), "openai", native=RESPONSES).dropped == ("prediction",)
    azure = Call(MESSAGES, messages(), "azure", model="my-deployment", speak=CHAT)
    assert azure.body["max_completion_tokens"] == 4000


def test_identities_tiers_and_caches() -> None:
    long = Call(MESSAGES, messages(metadata={"user_id": "u" * 99}, service_tier="standard_only"), "openai")
    assert len(long.body["user"]) == 64
    assert long.dropped == ("metadata.user_id",)
    assert long.body["service_tier"] == "default"
    tier = Call(CHAT, chat(service_tier="default", safety_identifier="s", prompt_cache_key="k", metadata={"a": "b"}))
    assert tier.body["service_tier"] == "standard_only"
    assert tier.body["metadata"] == {"user_id": "s"}
    assert tier.body["cache_control"] == {"type": "ephemeral"}
    assert set(tier.dropped) == {"metadata", "prompt_cache_key"}
    assert Call(CHAT, chat(service_tier="flex", user="u", safety_identifier="s")).dropped == (
        "safety_identifier", "service_tier")  # fmt: skip
    mark = {"type": "ephemeral"}
    tool = {**A_TOOL, "cache_control": mark}
    marked = messages(cache_control=mark, tools=[tool])
    assert Call(MESSAGES, marked, "azure").dropped == ("cache_control", "tools[].cache_control")
    assert "prompt_cache_key" not in Call(MESSAGES, marked, "azure").body
    assert Call(CHAT, chat(cache_control=mark, prompt_cache_key="k")).body["cache_control"] == mark


def test_prompts_that_messages_would_refuse() -> None:
    only = Call(CHAT, chat(messages=[{"role": "system", "content": "be brief"}]))
    assert only.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "be brief"}]}]
    assert only.dropped == ("messages[].role",)
    prefill = Call(CHAT, chat(messages=[user(), {"role": "assistant", "content": "so \n"}]))
    assert prefill.body["messages"][1]["content"] == "so"
    blank = Call(CHAT, chat(messages=[user("  "), user("a")]))
    assert blank.body["messages"] == [{"role": "user", "content": "a"}]
    assert blank.dropped == ("messages[].content",)
    refusal = Call(
        CHAT, chat(messages=[user(), {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, user()])
    )
    assert refusal.body["messages"][1]["content"] == "no"
    assert refusal.dropped == ("messages[].refusal",)
    spoken = [user(), {"role": "assistant", "refusal": "no"}, user()]
    assert Call(CHAT, chat(messages=spoken), "openai", native=RESPONSES).dropped == ("messages[].refusal",)
    kept = {"input": [user(), {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, user()]}
    assert Call(RESPONSES, kept, "openai", native=CHAT).body["messages"][1]["refusal"] == "no"
    thought = Call(
        CHAT, chat(messages=[user(), {"role": "assistant", "content": "a", "reasoning_content": "t"}, user()])
    )
    assert thought.dropped == ("messages[].thinking_blocks",)
    middle = Call(RESPONSES, {"input": [user(), {"role": "developer", "content": "x"}, user()]}, "openai", native=CHAT)
    assert [m["role"] for m in middle.body["messages"]] == ["user", "system", "user"]
    there = Call(CHAT, chat(messages=[user(), {"role": "system", "content": "x"}, user()]), "openai", native=RESPONSES)
    assert [m["role"] for m in there.body["input"]] == ["user", "developer", "user"]


def test_proofs_go_back_to_their_makers_only() -> None:
    response = {"id": "resp_1", "model": "gpt", "status": "completed", "output": [
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "gA",
         "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {"type": "web_search_call", "id": "ws"},
        {"type": "message", "content": [{"type": "output_text", "text": "a", "annotations": [
            {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 1}]}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "c", "input": "raw"},
    ]}  # fmt: skip
    message = Call(MESSAGES, messages(), "openai", model="gpt-5", speak=RESPONSES).answer(response)
    assert message["content"][0] == {"type": "thinking", "thinking": "t", "signature": "openai.rs_1.gA"}
    assert message["content"][-1]["input"] == {"input": "raw"}
    history = [user(), {"role": "assistant", "content": message["content"][:2]}, user()]
    again = Call(MESSAGES, messages(messages=history), "openai", model="gpt-5", speak=RESPONSES).body
    assert again["input"][1] == {"type": "reasoning", "id": "rs_1", "encrypted_content": "gA",
                                 "summary": [{"type": "summary_text", "text": "t"}]}  # fmt: skip
    assert "messages[].thinking_blocks" in Call(CHAT, chat(messages=[user(), {"role": "assistant", "content": "a",
        "thinking_blocks": message["content"][:1]}, user()])).dropped  # fmt: skip
    completion = Call(CHAT, chat(), "openai", native=RESPONSES).answer(response)["choices"][0]["message"]
    assert completion["annotations"][0]["url_citation"]["url"] == "https://a"
    assert completion["tool_calls"][0] == {"id": "c", "type": "custom", "custom": {"name": "c", "input": "raw"}}
    nameless = {**history[1], "content": [{"type": "thinking", "thinking": "t", "signature": "openai..gA"}]}
    bare = Call(MESSAGES, messages(messages=[user(), nameless, user()]), "openai", model="gpt-5", speak=RESPONSES).body
    assert "id" not in bare["input"][1]


def test_answers_of_third_parties_and_of_filters() -> None:
    call = Call(MESSAGES, messages(), "openai")
    shown = {"choices": [{"message": {"reasoning_content": "t", "content": "a"}, "finish_reason": "stop"}]}
    assert call.answer(shown)["content"][0] == {"type": "thinking", "thinking": "t", "signature": ""}
    other: Any = {"choices": [{"message": {"reasoning": "t", "content": "a"}, "finish_reason": "stop"}]}
    assert call.answer(other)["content"] == call.answer(shown)["content"]
    other["choices"][0]["message"]["reasoning"] = {"not": "text"}
    assert [part["type"] for part in call.answer(other)["content"]] == ["text"]
    assert call.answer({"choices": [{"finish_reason": "content_filter"}]})["stop_reason"] == "refusal"
    refused = {"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]}
    assert call.answer(refused)["stop_reason"] == "refusal"
    cut = {
        "choices": [
            {
                "message": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"x'}}]},
                "finish_reason": "length",
            }
        ]
    }
    assert call.answer(cut)["content"][0]["input"] == {"__not_json__": '{"x'}
    bad: list[Any] = [[], 5]
    for choices in bad:
        with pytest.raises(UpstreamProtocolError):
            call.answer({"choices": choices})
    with pytest.raises(UpstreamProtocolError):
        Call(CHAT, chat()).answer({"content": 5})
    with pytest.raises(UpstreamProtocolError):
        Call(MESSAGES, messages(), "openai", speak=RESPONSES).answer({"output": 5})
    with pytest.raises(UpstreamStreamError):
        call.answer({"error": {"message": "no", "code": "server_error"}})
    reader = call.reader(is_event_stream=False)
    assert relay(reader, [b'{"cut": ']) == b""
    assert not reader.is_complete


def test_a_refusal_of_claude_is_told_with_its_words() -> None:
    message = {"id": "m", "model": "c", "content": [], "stop_reason": "refusal", "stop_details": {
        "type": "refusal", "explanation": "not that"}, "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
    choice = Call(CHAT, chat()).answer(message)["choices"][0]
    assert (choice["message"]["refusal"], choice["finish_reason"]) == ("not that", "content_filter")
    response = Call(RESPONSES, {"input": "x"}).answer(message)
    assert (response["status"], response["output"][0]["content"][0]["refusal"]) == ("completed", "not that")
    stream = message_stream([{"type": "text", "text": "a"}], stop="refusal").replace(
        b'"stop_reason":"refusal"', b'"stop_reason":"refusal","stop_details":{"explanation":"no"}'
    )
    events = Call(RESPONSES, {"input": "x", "stream": True}).stream(stream)
    assert [e["type"] for e in events if "refusal" in e["type"]] == ["response.refusal.delta", "response.refusal.done"]
    assert events[-1]["type"] == "response.completed"
    assert any(c["choices"][0]["delta"].get("refusal") == "no" for c in Call(CHAT, chat(stream=True)).stream(stream))
    silent = {**message, "stop_details": None}
    assert Call(RESPONSES, {"input": "x"}).answer(silent)["incomplete_details"] == {"reason": "content_filter"}


def test_streams_of_responses_in_all_their_events() -> None:
    response = {"id": "resp_1", "model": "gpt", "status": "in_progress"}
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "c", "input": ""}
    function = {"type": "function_call", "call_id": "d", "name": "f", "arguments": ""}
    cited = {"type": "url_citation", "url": "https://a", "title": "A"}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1"}},
        {"type": "response.reasoning_summary_part.added", "summary_index": 0},
        {"type": "response.reasoning_summary_text.delta", "delta": "one"},
        {"type": "response.reasoning_summary_part.added", "summary_index": 1},
        {"type": "response.reasoning_text.delta", "delta": "two"},
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1",
         "encrypted_content": "gA", "summary": [{"text": "one"}, {"text": "two"}]}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.annotation.added", "annotation": cited},
        {"type": "response.output_text.annotation.added"},
        {"type": "response.refusal.delta", "delta": "no"},
        {"type": "response.output_item.done", "output_index": 1, "item": {"type": "message"}},
        {"type": "response.output_item.added", "output_index": 2, "item": custom},
        {"type": "response.custom_tool_call_input.delta", "output_index": 2, "delta": "ra"},
        {"type": "response.custom_tool_call_input.done", "output_index": 2, "input": "ra"},
        {"type": "response.output_item.done", "output_index": 2, "item": custom},
        {"type": "response.output_item.added", "output_index": 3, "item": function},
        {"type": "response.function_call_arguments.delta", "output_index": 9, "delta": "x"},
        {"type": "response.function_call_arguments.done", "output_index": 3, "arguments": '{"x":1}'},
        {"type": "response.output_item.done", "output_index": 3, "item": function},
        {"type": "response.output_item.done"},
        {"type": "response.output_item.added"},
        {"type": "response.completed", "response": {**response, "status": "completed", "usage": {
            "input_tokens": 1, "output_tokens": 2}}},
    ]  # fmt: skip
    chunks = Call(CHAT, chat(stream=True), "openai", native=RESPONSES).stream(sse(*events))
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "one\n\ntwo"
    assert {
        "thinking_blocks": [{"type": "thinking", "thinking": "one\n\ntwo", "signature": "openai.rs_1.gA"}]
    } in deltas
    assert any(d.get("annotations") for d in deltas)
    assert {"tool_calls": [{"index": 0, "custom": {"input": "ra"}}]} in deltas
    assert {"tool_calls": [{"index": 1, "function": {"arguments": '{"x":1}'}}]} in deltas
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    blocks = Call(MESSAGES, messages(stream=True), "openai", speak=RESPONSES).stream(sse(*events))
    assert [e["content_block"]["type"] for e in blocks if e["type"] == "content_block_start"] == [
        "thinking", "text", "tool_use", "tool_use"]  # fmt: skip
    with pytest.raises(UpstreamProtocolError):
        Call(CHAT, chat(stream=True), "openai", native=RESPONSES).stream(b'data: {"type":5}\n\n')


def test_a_response_that_fails_in_its_stream_is_an_error() -> None:
    failed = {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "broken inside"}}
    reader = Call(CHAT, chat(stream=True), "openai", native=RESPONSES).reader(is_event_stream=True)
    reader.feed(sse({"type": "response.created", "response": {"id": "r", "model": "m"}}))
    assert reader.feed(sse({"type": "response.failed", "response": failed})) == b""
    assert reader.error is not None
    assert "broken inside" in reader.error.message


def test_streams_of_claude_in_all_their_events() -> None:
    web = {
        "type": "citations_delta",
        "citation": {"type": "web_search_result_location", "url": "https://a", "title": "A"},
    }
    page = {"type": "citations_delta", "citation": {"type": "page_location"}}
    stream = message_stream(
        [{"type": "redacted_thinking", "data": "xx"}],
        [{"type": "thinking", "thinking": "t", "signature": "s"}],
        [{"type": "text", "text": "a"}, web, page, {"type": "text_delta", "text": ""}],
        [{"type": "text", "text": "b"}],
        [{"type": "server_tool_use", "id": "s", "name": "x"}, {"type": "input_json_delta", "partial_json": "{}"}],
        [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}],
        stop="tool_use",
    )
    events = Call(RESPONSES, {"input": "x", "stream": True}).stream(stream)
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "reasoning", "message", "function_call"]
    assert output[0]["encrypted_content"] == "anthropic.redacted.xx"
    assert [part["text"] for part in output[2]["content"]] == ["a", "b"]
    assert output[2]["content"][0]["annotations"][0]["url"] == "https://a"
    assert output[3]["arguments"] == '{"x":1}'
    deltas = [c["choices"][0]["delta"] for c in Call(CHAT, chat(stream=True)).stream(stream)]
    assert {"thinking_blocks": [{"type": "redacted_thinking", "data": "xx"}]} in deltas
    whole = {"id": "m", "model": "c", "stop_reason": "end_turn", "usage": {}, "content": [
        {"type": "redacted_thinking", "data": "xx"}, {"type": "server_tool_use", "id": "s", "name": "x"},
        {"type": "text", "text": "a", "citations": [web["citation"], page["citation"]]},
        {"type": "text", "text": "b"}]}  # fmt: skip
    response = Call(RESPONSES, {"input": "x"}).answer(whole)
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]


def test_streams_of_chat_in_all_their_shapes() -> None:
    call = Call(MESSAGES, messages(stream=True), "openai")
    nameless = {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
    more = {"tool_calls": [{"function": {"arguments": ""}}]}
    second = {"tool_calls": [{"id": "b", "function": {"name": "g"}}]}
    no_delta = {**chunk({}), "choices": [{"index": 0, "finish_reason": "tool_calls"}]}
    other = {**chunk({"content": "other"}), "choices": [{"index": 1, "delta": {"content": "other"}}]}
    events = call.stream(sse(chunk(nameless), chunk(more), chunk(second), other, no_delta, done=True))
    assert [e["content_block"]["name"] for e in events if e["type"] == "content_block_start"] == ["f", "g"]
    refusal = Call(MESSAGES, messages(stream=True), "openai").stream(
        sse(chunk({"refusal": "no"}), chunk({}, "stop"), done=True)
    )
    assert refusal[-2]["delta"]["stop_reason"] == "refusal"
    empty = Call(MESSAGES, messages(stream=True), "openai").stream(sse({**chunk({}), "choices": []}, done=True))
    assert [e["type"] for e in empty] == ["message_start", "message_delta", "message_stop"]
    thought = Call(RESPONSES, {"input": "x", "stream": True}, "openai", native=CHAT).stream(
        sse(chunk({"reasoning_content": "t"}), chunk({"content": "a"}), chunk({}, "length"), done=True)
    )
    assert thought[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert thought[-1]["response"]["output"][0]["summary"][0]["text"] == "t"
    waiting = [called(0, "a", "f"), called(1, "b", "g", '{"y":2}')]
    held = Call(MESSAGES, messages(stream=True), "openai").stream(
        sse(*map(chunk, waiting), chunk({}, "tool_calls"), done=True)
    )
    assert [e["delta"]["partial_json"] for e in held if e["type"] == "content_block_delta"] == ['{"y":2}']
    with pytest.raises(UpstreamProtocolError):
        Call(MESSAGES, messages(stream=True), "openai").stream(b'data: {"choices":5}\n\n')


def test_free_form_calls_in_pieces() -> None:
    def spoken(*pieces: str) -> str:
        block = {"type": "tool_use", "id": "t", "name": "c", "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        events = Call(RESPONSES, {"input": "x", "tools": [R_CUSTOM], "stream": True}).stream(
            message_stream([block, *deltas], stop="tool_use")
        )
        return "".join(e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta")

    assert spoken('{"in', 'put":"a', "\\", "n\\ud83d", '\\ude00b"', "}", " ") == "a\n😀b"
    odd = {"type": "tool_use", "id": "t", "name": "c", "input": {"other": 1}}
    message = {"id": "m", "model": "c", "content": [odd], "stop_reason": "tool_use", "usage": {}}
    assert Call(RESPONSES, {"input": "x", "tools": [R_CUSTOM]}).answer(message)["output"][0]["input"] == '{"other":1}'
    chosen = Call(CHAT, chat(tools=[CUSTOM], stream=True)).stream(
        message_stream([{**odd, "input": {}}, {"type": "input_json_delta", "partial_json": '{"input":"raw"}'}])
    )
    assert any(c["choices"][0]["delta"].get("tool_calls", [{}])[0].get("custom") == {"input": "raw"} for c in chosen)


def test_pieces_of_calls_that_come_mixed_or_late() -> None:
    mixed = [called(0, "a", "f"), called(1, "b", "g"), piece(0, "{}"), piece(1, '{"y"'), piece(1, ":2}"), piece(0, " ")]
    events = Call(MESSAGES, messages(stream=True), "openai").stream(
        sse(*map(chunk, mixed), chunk({}, "tool_calls"), done=True)
    )
    spoken = [(e["index"], e["delta"]["partial_json"]) for e in events if e["type"] == "content_block_delta"]
    assert spoken == [(0, "{}"), (1, '{"y"'), (1, ":2}")]
    with pytest.raises(UpstreamProtocolError, match="after its arguments were whole"):
        Call(MESSAGES, messages(stream=True), "openai").stream(sse(*map(chunk, [*mixed, piece(0, "x")])))


def piece(index: int, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def test_what_a_stream_may_show_of_reasoning() -> None:
    encoder = MessagesStreamEncoder(Context(created=1))
    redacted = ReasoningEnded(Reasoning(proof="xx", vendor=Vendor.ANTHROPIC, is_redacted=True))
    signed = ReasoningEnded(Reasoning(proof="s", vendor=Vendor.ANTHROPIC))
    unsigned = ReasoningEnded(Reasoning(text="t"))
    written = [encoder.encode(event, None) for event in (redacted, signed, ReasoningDelta("t"), unsigned, unsigned)]
    assert [e["type"] for e in events_of(written[0])] == ["content_block_start", "content_block_stop"]
    assert events_of(written[1])[1]["delta"] == {"type": "signature_delta", "signature": "s"}
    assert [e["type"] for e in events_of(written[3])] == ["content_block_stop"]
    assert written[4] == b""
    assert ChatStreamEncoder(Context(created=1)).encode(PartEnded(), None) == b""


def test_samples_that_fixed_models_do_not_take() -> None:
    asked = messages(temperature=0.5, top_p=1, top_k=3)
    fixed = Call(MESSAGES, asked, "openai", model="gpt-5", speak=CHAT)
    assert (fixed.dropped, fixed.body["top_p"]) == (("temperature", "top_k"), 1)
    effort = messages(temperature=0.5, output_config={"effort": "low"})
    assert Call(MESSAGES, effort, "openai", model="gpt-5.2", speak=CHAT).dropped == ("temperature",)
    assert Call(MESSAGES, messages(temperature=0.5), "openai", model="gpt-5.2", speak=CHAT).body["temperature"] == 0.5
    assert "stop_sequences" not in Call(CHAT, chat(stop=[" "])).body
    thinks = Call(CHAT, chat(reasoning_effort="high", response_format={"type": "json_schema", "json_schema": {
        "name": "n", "schema": SCHEMA}}), model="claude-sonnet-4-0")  # fmt: skip
    assert thinks.body["tool_choice"] == {"type": "auto"}
    assert not thinks.dropped
    marked = {**TOOL, "cache_control": {"type": "ephemeral"}}
    assert Call(CHAT, chat(tools=[marked])).body["tools"][0]["cache_control"] == {"type": "ephemeral"}
    both = {"type": "auto", "disable_parallel_tool_use": False}
    assert Call(MESSAGES, messages(tools=[A_TOOL], tool_choice=both), "openai", model="o3", speak=CHAT).dropped == ()
    assert Call(MESSAGES, messages(tools=[A_TOOL], tool_choice=both), "openai", model="o3").dropped == ()


def test_what_claude_reads_of_empty_and_failed_results() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    history = [
        user(),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]
    turns = Call(CHAT, chat(messages=history, tools=[TOOL])).body["messages"]
    assert turns[1]["content"][0]["input"] == {}
    assert turns[2]["content"] == [{"type": "tool_result", "tool_use_id": "c"}]


def test_what_only_a_fourth_dialect_could_say_to_claude() -> None:
    failed = ToolResult(call_id="c", parts=(), is_error=True)
    plain = Document(text="plain", name="T")
    turn = Message(role=Role.USER, parts=(plain, failed))
    losses = Losses({})
    (written,) = turns_of(Conversation(messages=(turn,)), losses)
    assert written["content"][0] == {"type": "tool_result", "tool_use_id": "c", "is_error": True}
    assert written["content"][1]["source"] == {"type": "text", "media_type": "text/plain", "data": "plain"}


def test_citations_that_chat_has_no_word_for_are_left_out() -> None:
    page = {"type": "citations_delta", "citation": {"type": "page_location"}}
    chunks = Call(CHAT, chat(stream=True)).stream(
        message_stream([{"type": "text", "text": "a"}, page, {"type": "odd_delta"}])
    )
    assert not any("annotations" in c["choices"][0]["delta"] for c in chunks)
    listed = Call(RESPONSES, {"input": [user([{"type": "input_text", "text": "a", "annotations": [1]}]), user([
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "file_url": "https://a"}])]})  # fmt: skip
    assert set(listed.dropped) == {"input[].content[].annotations", "input[].content[].file_url"}


def test_a_provider_that_refuses_stream_options_is_learnt_of() -> None:
    error = UpstreamStatusError("no", upstream_status=400, upstream_headers=[], body=b"stream_options is unknown")
    body = json.dumps({**messages(stream=True), "model": "gpt"}).encode()
    request = model_request(MESSAGES, body, is_stream=True)
    wrapped, target = provider("openai"), deployment("learns-from-translation")
    assert b"stream_options" in wrapped.prepare(request, target).body
    assert tried_without(wrapped, request, target, error)
    assert b"stream_options" not in wrapped.prepare(request, target).body
    native = model_request(Surface.RESPONSES, b'{"model":"gpt"}', is_stream=True)
    assert not tried_without(wrapped, native, target, error)


def test_tools_of_a_namespace_have_one_name_elsewhere() -> None:
    tools = [{"type": "namespace", "name": "ns", "description": "d", "tools": [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]}]  # fmt: skip
    used = {"type": "tool_use", "id": "t", "name": "ns__f", "input": {"x": 1}}
    items = [user(), {"type": "function_call", "call_id": "c", "namespace": "ns", "name": "f", "arguments": "{}"},
             {"type": "function_call_output", "call_id": "c", "output": "1"}]  # fmt: skip
    call = Call(RESPONSES, {"input": items, "tools": tools})
    assert call.body["tools"][0]["name"] == "ns__f"
    assert call.body["messages"][1]["content"][0]["name"] == "ns__f"
    assert call.dropped == ("tools[].description",)
    message = {"id": "m", "model": "c", "content": [used], "stop_reason": "tool_use", "usage": {}}
    item = call.answer(message)["output"][0]
    assert (item["namespace"], item["name"], item["arguments"]) == ("ns", "f", '{"x":1}')
    events = Call(RESPONSES, {"input": "x", "tools": tools, "stream": True}).stream(
        message_stream([used], stop="tool_use")
    )
    assert events[-1]["response"]["output"][0]["namespace"] == "ns"


def test_an_adapter_keeps_its_own_face() -> None:
    wrapped = provider("anthropic")
    assert (wrapped.dialect.value, wrapped.model_prefixes, wrapped.otel_name) == ("anthropic", ("claude",), "anthropic")
    assert wrapped.price_id == "anthropic"
    assert wrapped.is_stream([(b"content-type", b"text/event-stream")])
    assert wrapped.supports(CHAT)
    assert not wrapped.supports(Surface.EMBEDDINGS)


def test_ids_of_any_form_become_the_clients() -> None:
    message: dict[str, Any] = {"id": "odd", "model": "c", "content": [], "stop_reason": None, "usage": {}}
    assert Call(CHAT, chat()).answer(message)["id"] == "chatcmpl-odd"
    assert events_of(b"data: [DONE]\n\n") == []


def test_a_call_that_the_output_cap_cut_keeps_its_text_and_is_that_text_again_when_echoed() -> None:
    cut = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "ab'}}]}
    answered = {"id": "1", "model": "gpt", "choices": [{"index": 0, "message": cut, "finish_reason": "length"}]}
    message = Call(MESSAGES, messages(tools=[A_TOOL]), to="openai").answer(answered)
    (block,) = message["content"]
    assert (message["stop_reason"], block["input"]) == ("max_tokens", {"__not_json__": '{"x": "ab'})
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "no"}
    turns = [user(), {"role": "assistant", "content": [block]}, user([result])]
    echoed = Call(MESSAGES, {"max_tokens": 9, "messages": turns, "tools": [A_TOOL]}, to="openai")
    assert echoed.body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"x": "ab'


@pytest.mark.parametrize("arguments", [{"__not_json__": 1}, {"__not_json__": "x", "y": 2}])
def test_arguments_that_only_look_like_cut_ones_are_left_alone(arguments: dict[str, Any]) -> None:
    block = {"type": "tool_use", "id": "c", "name": "f", "input": arguments}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "no"}
    turns = [user(), {"role": "assistant", "content": [block]}, user([result])]
    call = Call(MESSAGES, {"max_tokens": 9, "messages": turns, "tools": [A_TOOL]}, to="openai")
    assert json.loads(call.body["messages"][1]["tool_calls"][0]["function"]["arguments"]) == arguments
