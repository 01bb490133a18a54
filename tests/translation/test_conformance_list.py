"""What translating gateways got wrong elsewhere: each case of the collected list is one test, by its number."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_middleware.core.domain import Dialect, Surface, Usage
from gateway_middleware.core.errors import TranslationError, UpstreamProtocolError, UpstreamStatusError
from gateway_middleware.edge.dialects import render
from provider_calls import pieces, relay
from translation.translating import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Call,
    called,
    chunk,
    events_of,
    message_stream,
    more,
    provider,
    sse,
    user,
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
A_TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "out", "schema": SCHEMA, "strict": True}}


def chat(**options: Any) -> dict[str, Any]:
    return {"messages": [user()], **options}


def messages(**options: Any) -> dict[str, Any]:
    return {"max_tokens": 100, "messages": [user()], **options}


def on_openai(*chunks: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """The events a Messages client gets for a chat stream."""
    return Call(MESSAGES, messages(stream=True, **options), "openai").stream(sse(*chunks, done=True))


def on_claude(stream: bytes, **options: Any) -> list[dict[str, Any]]:
    """The chunks a chat client gets for a stream of Messages."""
    return Call(CHAT, chat(stream=True, **options)).stream(stream)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("content_block_") for event in events]


def text_block(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts)]


def test_01_the_delta_that_opens_a_block_is_not_lost() -> None:
    events = on_openai(chunk({"role": "assistant"}), chunk({"content": "first"}), chunk({}, "stop"))
    assert kinds(events)[1:4] == ["start", "delta", "stop"]
    assert events[2]["delta"] == {"type": "text_delta", "text": "first"}


@pytest.mark.parametrize("word", ["reasoning_content", "reasoning"])
def test_02_thinking_is_a_block_of_its_own(word: str) -> None:
    events = on_openai(chunk({word: "hm"}), chunk({"content": "so"}), chunk({}, "stop"))
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["thinking", "text"]
    assert events[2]["delta"] == {"type": "thinking_delta", "thinking": "hm"}


def test_03_there_is_one_message_start() -> None:
    first = {**chunk({}), "choices": [], "id": "", "model": ""}
    events = on_openai(
        first, chunk({"role": "assistant"}), chunk({"role": "assistant", "content": "a"}), chunk({}, "stop")
    )
    assert kinds(events).count("message_start") == 1


def test_04_no_empty_text_block_stands_before_a_tool_block() -> None:
    events = on_openai(
        chunk({"role": "assistant", "content": ""}), chunk(called(0, "c", "f", "{}")), chunk({}, "tool_calls")
    )
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["tool_use"]


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
def test_05_a_tool_call_stops_as_a_tool_call(reason: str) -> None:
    events = on_openai(chunk(called(0, "c", "f", "{}")), chunk({}, reason))
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_06_every_parallel_call_is_a_block_in_its_order() -> None:
    chunks = [called(0, "a", "f"), called(1, "b", "g"), more(0, '{"x"'), more(1, '{"y":2}'), more(0, ":1}")]
    events = on_openai(*map(chunk, chunks), chunk({}, "tool_calls"))
    assert kinds(events)[1:-2] == ["start", "delta", "delta", "stop", "start", "delta", "stop"]
    spoken = [(e["index"], e["delta"]["partial_json"]) for e in events if e["type"] == "content_block_delta"]
    assert spoken == [(0, '{"x"'), (0, ":1}"), (1, '{"y":2}')]


def test_07_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    chunks = on_claude(message_stream([block, {"type": "input_json_delta", "partial_json": ""}], stop="tool_use"))
    pieces_of = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks if "tool_calls" in c["choices"][0]["delta"]]
    assert "".join(piece["function"]["arguments"] for piece in pieces_of) == "{}"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    answer = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    assert Call(MESSAGES, messages(), "openai").answer(answer)["content"][0]["input"] == {}


def test_08_message_start_says_how_large_the_prompt_is() -> None:
    events = on_openai(
        chunk({"content": "a"}),
        chunk({}, "stop"),
        {**chunk({}), "choices": [], "usage": {"prompt_tokens": 77, "completion_tokens": 3}},
    )
    assert json.loads(json.dumps(events[0]["message"]["usage"]))["input_tokens"] > 0
    assert events[-2]["usage"]["input_tokens"] == 77
    assert events[-2]["usage"]["output_tokens"] == 3


def test_09_cached_tokens_are_counted_in_each_convention() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10, "output_tokens": 5}
    message = {"id": "m", "model": "c", "content": [], "stop_reason": "end_turn", "usage": usage}
    counted = Call(CHAT, chat()).answer(message)["usage"]
    assert (counted["prompt_tokens"], counted["total_tokens"]) == (100, 105)
    assert counted["prompt_tokens_details"] == {"cached_tokens": 80, "audio_tokens": 0, "cache_write_tokens": 10}
    reported = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 80}}
    completion = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": reported}
    spent = Call(MESSAGES, messages(), "openai").answer(completion)["usage"]
    assert (spent["input_tokens"], spent["cache_read_input_tokens"]) == (20, 80)


def test_10_cumulative_usage_is_not_added_up() -> None:
    chunks = on_claude(message_stream(text_block("a"), output_tokens=42), stream_options={"include_usage": True})
    assert chunks[-1]["usage"]["completion_tokens"] == 42
    assert chunks[-1]["usage"]["prompt_tokens"] == 10


def test_11_cache_counts_that_come_only_at_the_end_count() -> None:
    stream = message_stream(text_block("a")).replace(
        b'"stop_sequence":null},"usage":{', b'"stop_sequence":null},"usage":{"cache_read_input_tokens":7,'
    )
    call = Call(CHAT, chat(stream=True))
    reader = call.reader(is_event_stream=True)
    relay(reader, [stream])
    assert reader.usage == Usage(input_tokens=17, output_tokens=5, cached_input_tokens=7)


def test_12_what_compaction_used_counts() -> None:
    iterations = [{"input_tokens": 100, "output_tokens": 20}, {"input_tokens": 10, "output_tokens": 5}]
    usage = {"input_tokens": 10, "output_tokens": 5, "iterations": iterations}
    message = {"id": "m", "model": "c", "content": [], "stop_reason": "end_turn", "usage": usage}
    counted = Call(CHAT, chat()).answer(message)["usage"]
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (110, 25)


def test_13_the_lifetime_of_a_cache_write_reaches_metering() -> None:
    created = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 9}
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 10, "cache_creation": created}
    message = {"id": "m", "model": "c", "content": [], "stop_reason": "end_turn", "usage": usage}
    reader = Call(CHAT, chat()).reader(is_event_stream=False)
    relay(reader, [json.dumps(message).encode()])
    assert json.loads(reader.raw_usage or b"")["cache_creation"] == created


def test_14_reasoning_tokens_are_told_and_are_in_the_output() -> None:
    usage = {"input_tokens": 1, "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 40}}
    message = {"id": "m", "model": "c", "content": [], "stop_reason": "end_turn", "usage": usage}
    counted = Call(CHAT, chat()).answer(message)["usage"]
    assert counted["completion_tokens"] == 50
    assert counted["completion_tokens_details"] == {"reasoning_tokens": 40}


THINKING = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "b3BhcXVl"}


def test_15_signed_and_redacted_thinking_come_back_as_they_went() -> None:
    used = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    message = {"id": "m", "model": "c", "content": [THINKING, REDACTED, used], "stop_reason": "tool_use", "usage": {}}
    said = Call(CHAT, chat()).answer(message)["choices"][0]["message"]
    assert said["thinking_blocks"] == [THINKING, REDACTED]
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "ok"}
    again = Call(CHAT, {"messages": [user(), said, result], "tools": [TOOL]})
    assert again.body["messages"][1]["content"] == [THINKING, REDACTED, used]
    items = Call(RESPONSES, {"input": "hi"}).answer(message)["output"]
    output = {"type": "function_call_output", "call_id": "toolu_1", "output": "ok"}
    echoed = Call(RESPONSES, {"input": [user(), *items, output]})
    assert echoed.body["messages"][1]["content"] == [THINKING, REDACTED, used]


def test_16_signed_thinking_without_text_stays() -> None:
    silent = {"type": "thinking", "thinking": "", "signature": "c2ln"}
    stream = message_stream(
        [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "signature_delta", "signature": "c2ln"}],
        text_block("a"),
    )
    deltas = [c["choices"][0]["delta"] for c in on_claude(stream)]
    assert {"thinking_blocks": [silent]} in deltas
    history = [user(), {"role": "assistant", "content": "a", "thinking_blocks": [silent]}, user()]
    assert Call(CHAT, {"messages": history}).body["messages"][1]["content"][0] == silent


def test_17_a_body_of_the_providers_own_dialect_is_not_touched() -> None:
    from provider_calls import model_request

    body = b'{"model":"claude-sonnet-4-5","max_tokens":1,"thinking":{"type":"adaptive","display":"omitted"},"x":[1]}'
    request = model_request(Surface.MESSAGES, body)
    target = request.route.deployments[0]
    named = type(target)(provider="anthropic", model="claude-sonnet-4-5")
    upstream = provider("anthropic").prepare(request, named)
    assert upstream.translation is None
    assert upstream.body == body


def test_18_thinking_of_claude_is_no_text_for_openai_and_is_told() -> None:
    history = [user(), {"role": "assistant", "content": [THINKING, {"type": "text", "text": "so"}]}, user()]
    call = Call(MESSAGES, messages(messages=history), "openai")
    assert call.body["messages"][1] == {"role": "assistant", "content": "so"}
    assert "messages[].content[].thinking" in call.dropped


def test_19_a_forced_tool_gives_way_to_thinking() -> None:
    call = Call(CHAT, chat(reasoning_effort="high", tools=[TOOL], tool_choice="required"))
    assert call.body["thinking"]["type"] == "enabled"
    assert call.body["tool_choice"] == {"type": "auto"}
    assert "tool_choice" in call.dropped


def test_20_structured_output_by_a_tool_is_text_and_stops() -> None:
    call = Call(CHAT, chat(response_format=FORMAT), model="claude-3-5-haiku-20241022")
    name = call.body["tool_choice"]["name"]
    used = {"type": "tool_use", "id": "t", "name": name, "input": {"x": 1}}
    message = {"id": "m", "model": "c", "content": [used], "stop_reason": "tool_use", "usage": {}}
    choice = call.answer(message)["choices"][0]
    assert json.loads(choice["message"]["content"]) == {"x": 1}
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]
    streamed = Call(CHAT, chat(response_format=FORMAT, stream=True), model="claude-3-5-haiku-20241022").stream(
        message_stream(
            [{**used, "input": {}}, {"type": "input_json_delta", "partial_json": '{"x"'},
             {"type": "input_json_delta", "partial_json": ":1}"}],
            stop="tool_use",
        )
    )  # fmt: skip
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in streamed) == '{"x":1}'
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        ("none", None),
        ("minimal", 1024),
        ("low", 2048),
        ("medium", 8192),
        ("high", 16_384),
        ("xhigh", 32_000),
        ("max", 32_000),
    ],
)
def test_21_every_effort_has_its_budget(effort: str, thinking: int | None) -> None:
    body = Call(CHAT, chat(reasoning_effort=effort, max_tokens=60_000)).body
    assert (body.get("thinking") or {}).get("budget_tokens") == thinking


@pytest.mark.parametrize("cap", [2048, 3000, 4096, 20_000])
def test_22_the_budget_is_below_the_cap(cap: int) -> None:
    body = Call(CHAT, chat(reasoning_effort="high", max_tokens=cap)).body
    assert 1024 <= body["thinking"]["budget_tokens"] < body["max_tokens"] == cap
    small = Call(CHAT, chat(reasoning_effort="high", max_tokens=1500))
    assert "thinking" not in small.body
    assert "reasoning_effort" in small.dropped


def calls_of(*ids: str) -> dict[str, Any]:
    listed = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "content": None, "tool_calls": listed}


def result_of(call_id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_23_parallel_results_are_one_turn_and_come_first() -> None:
    history = [user(), calls_of("a", "b"), result_of("b"), user("and now"), result_of("a")]
    turns = Call(CHAT, {"messages": history, "tools": [TOOL]}).body["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["type"] for block in turns[2]["content"]] == ["tool_result", "tool_result", "text"]


def test_24_a_call_or_a_result_alone_is_refused_by_its_id() -> None:
    with pytest.raises(TranslationError, match="toolu_gone"):
        Call(CHAT, {"messages": [user(), result_of("toolu_gone")]})
    with pytest.raises(TranslationError, match="toolu_open"):
        Call(CHAT, {"messages": [user(), calls_of("toolu_open"), user("well?")]})


def test_25_an_image_in_a_tool_result_is_not_lost() -> None:
    used = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    content = [{"type": "text", "text": "here"}, IMAGE]
    result = {"type": "tool_result", "tool_use_id": "t", "content": content}
    history = [user(), {"role": "assistant", "content": [used]}, user([result])]
    sent = Call(MESSAGES, messages(messages=history), "openai").body["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "user"]
    assert sent[3]["content"][0]["image_url"]["url"] == "data:image/png;base64,AAAA"
    by_responses = Call(MESSAGES, messages(messages=history), "openai", speak=RESPONSES).body["input"]
    assert by_responses[2]["output"][1]["type"] == "input_image"


def test_26_content_and_system_as_lists_are_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    sent = Call(CHAT, {"messages": [{"role": "system", "content": parts}, user(parts)]}).body
    assert [block["text"] for block in sent["system"]] == ["a", "b"]
    assert [block["text"] for block in sent["messages"][0]["content"]] == ["a", "b"]
    body = Call(MESSAGES, messages(system=parts, messages=[user(parts)]), "openai").body
    assert [part["text"] for part in body["messages"][0]["content"]] == ["a", "b"]


def test_27_every_system_message_is_there_in_its_order() -> None:
    history = [{"role": "system", "content": "one"}, {"role": "developer", "content": "two"}, user(),
               {"role": "system", "content": "three"}, user()]  # fmt: skip
    call = Call(CHAT, {"messages": history})
    assert [block["text"] for block in call.body["system"]] == ["one", "two", "three"]
    assert call.dropped == ("messages[].role",)


def test_28_nothing_but_the_assistant_is_refused_here() -> None:
    with pytest.raises(TranslationError, match="messages"):
        Call(MESSAGES, messages(messages=[{"role": "assistant", "content": "I"}]), "openai")


def test_29_sampling_is_carried_or_told() -> None:
    full = Call(CHAT, chat(stop=["a", "b"], temperature=0.5), model="claude-sonnet-4-0")
    assert full.body["stop_sequences"] == ["a", "b"]
    assert full.body["temperature"] == 0.5
    both = Call(CHAT, chat(temperature=0.5, top_p=0.9))
    assert both.dropped == ("top_p",)
    fixed = Call(CHAT, chat(temperature=0.5, top_p=0.9, top_k=3), model="claude-opus-4-7")
    assert set(fixed.dropped) == {"temperature", "top_p", "top_k"}
    assert not {"temperature", "top_p", "top_k"} & set(fixed.body)
    hot = Call(CHAT, chat(temperature=1.7))
    assert (hot.body["temperature"], hot.dropped) == (1, ("temperature",))


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt-4o", "max_tokens"), ("gpt-5-mini", "max_completion_tokens"), ("o4-mini", "max_completion_tokens"),
     ("gpt-6-sol", "max_completion_tokens")],
)  # fmt: skip
def test_30_the_cap_has_the_name_that_the_model_knows(model: str, name: str) -> None:
    body = Call(MESSAGES, messages(), "openai", model=model, speak=CHAT).body
    assert body[name] == 100
    assert len({"max_tokens", "max_completion_tokens"} & set(body)) == 1


def test_31_a_cap_that_is_missing_is_the_models() -> None:
    assert Call(CHAT, chat()).body["max_tokens"] == 32_000
    assert Call(CHAT, chat(), model="claude-3-opus-20240229").body["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"),
     ("model_context_window_exceeded", "length"), ("pause_turn", "stop")],
)  # fmt: skip
def test_32_stop_reasons_have_their_counterparts(stop: str, finish: str) -> None:
    assert on_claude(message_stream(text_block("a"), stop=stop))[-1]["choices"][0]["finish_reason"] == finish


def test_32_incomplete_comes_before_what_is_in_it() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x'}
    response = {"id": "resp_1", "model": "gpt", "status": "incomplete", "output": [call],
                "incomplete_details": {"reason": "max_output_tokens"}}  # fmt: skip
    assert Call(MESSAGES, messages(), "openai", speak=RESPONSES).answer(response)["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("chosen", "written"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_33_tool_choice_in_all_its_forms(chosen: Any, written: dict[str, Any]) -> None:
    assert Call(CHAT, chat(tools=[TOOL], tool_choice=chosen)).body["tool_choice"] == written
    back = Call(MESSAGES, messages(tools=[A_TOOL], tool_choice=written), "openai")
    assert back.body["tool_choice"] == chosen


def test_34_every_chunk_has_its_head() -> None:
    chunks = on_claude(message_stream(text_block("a", "b")))
    assert {(c["id"], c["model"], c["object"]) for c in chunks} == {("chatcmpl-1", "claude", "chat.completion.chunk")}
    assert all(c["created"] for c in chunks)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


def test_35_usage_comes_only_to_those_who_ask() -> None:
    silent = on_claude(message_stream(text_block("a")))
    assert all("usage" not in c and c["choices"] for c in silent)
    asked = on_claude(message_stream(text_block("a")), stream_options={"include_usage": True})
    assert (asked[-1]["choices"], asked[-1]["usage"]["completion_tokens"]) == ([], 5)
    body = Call(MESSAGES, messages(stream=True), "openai").body
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("choices", [[], None, [{"index": 0, "delta": {}}]])
def test_36_usage_may_come_with_any_choices(choices: Any) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    events = on_openai(chunk({"content": "a"}), chunk({}, "stop"), {**chunk({}), "choices": choices, "usage": usage})
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (7, 2)


def test_37_every_cache_mark_goes_through_and_is_told_where_it_cannot() -> None:
    mark = {"type": "ephemeral"}
    part = {"type": "text", "text": "a", "cache_control": mark}
    history = [{"role": "system", "content": [part]}, user([part]), {"role": "assistant", "content": "b"}, user([part])]
    sent = Call(CHAT, {"messages": history}).body
    marked = [sent["system"][0], sent["messages"][0]["content"][0], sent["messages"][2]["content"][0]]
    assert [block["cache_control"] for block in marked] == [mark] * 3
    away = Call(MESSAGES, messages(system=[part], messages=[user([part])]), "openai")
    assert set(away.dropped) == {"system[].cache_control", "messages[].content[].cache_control"}
    assert away.body["prompt_cache_key"]


def test_38_an_error_wears_the_clients_dialect() -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"}}'
    error = UpstreamStatusError("max_tokens: too large", upstream_status=400, upstream_headers=[], body=body)
    _, _, written = render(error, Dialect.OPENAI, "r")
    assert json.loads(written)["error"]["message"] == "max_tokens: too large"
    with pytest.raises(TranslationError) as refused:
        Call(CHAT, chat(n=2))
    assert (refused.value.param, refused.value.http_status) == ("n", 400)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
def test_40_a_stream_may_be_cut_anywhere(newline: bytes, size: int) -> None:
    stream = message_stream(text_block("été ", "☕", "x")) + b": end"
    whole = relay(Call(CHAT, chat(stream=True)).reader(is_event_stream=True), [stream])
    reader = Call(CHAT, chat(stream=True)).reader(is_event_stream=True)
    cut = relay(reader, pieces(b": hello\n\n".replace(b"\n", newline) + stream.replace(b"\n", newline), size))
    assert cut == whole
    assert reader.is_complete


def test_41_an_error_on_a_stream_request_is_json() -> None:
    error = UpstreamStatusError("no", upstream_status=400, upstream_headers=[], body=b'{"error":{"message":"no"}}')
    _, headers, _ = render(error, Dialect.ANTHROPIC, "r")
    assert dict(headers)[b"content-type"] == b"application/json"


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"type": "object", "properties": {}, "required": []}])
def test_42_a_tool_without_arguments_has_a_schema_that_both_take(schema: Any) -> None:
    function = {"name": "f"} if schema is None else {"name": "f", "parameters": schema}
    sent = Call(CHAT, chat(tools=[{"type": "function", "function": function}])).body["tools"][0]["input_schema"]
    assert (sent["type"], sent["properties"]) == ("object", {})
    back = Call(MESSAGES, messages(tools=[{"name": "f", "input_schema": schema or {}}]), "openai")
    assert back.body["tools"][0]["function"]["parameters"]["properties"] == {}


def test_43_items_that_nobody_knows_are_told_and_free_form_tools_are_served() -> None:
    patch = {"type": "custom", "name": "apply_patch", "description": "d", "format": {"type": "text"}}
    items = [user(), {"type": "future_call", "id": "x"}]
    call = Call(RESPONSES, {"input": items, "tools": [patch]})
    assert call.dropped == ("input[].future_call",)
    used = {"type": "tool_use", "id": "t", "name": "apply_patch", "input": {"input": "*** Begin\n☕"}}
    message = {"id": "m", "model": "c", "content": [used], "stop_reason": "tool_use", "usage": {}}
    item = call.answer(message)["output"][0]
    assert (item["type"], item["input"]) == ("custom_tool_call", "*** Begin\n☕")
    stream = message_stream(
        [{**used, "input": {}}]
        + [
            {"type": "input_json_delta", "partial_json": p}
            for p in pieces_of('{"input": "*** Begin\\n\\u2615 \\"q\\""}')
        ],
        stop="tool_use",
    )
    events = Call(RESPONSES, {"input": items, "tools": [patch], "stream": True}).stream(stream)
    spoken = [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(spoken) == '*** Begin\n☕ "q"'
    assert len(spoken) > 5
    with pytest.raises(TranslationError, match="web_search"):
        Call(RESPONSES, {"input": "hi", "tools": [{"type": "web_search"}]})


def pieces_of(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(0, len(text), 2)]


@pytest.mark.parametrize(("surface", "to"), [(CHAT, "anthropic"), (RESPONSES, "anthropic"), (MESSAGES, "openai")])
def test_44_the_model_is_the_deployments(surface: Surface, to: str) -> None:
    body = {CHAT: chat(), RESPONSES: {"input": "hi"}, MESSAGES: messages()}[surface]
    assert Call(surface, body, to, model="upstream-model").body["model"] == "upstream-model"


def test_a_stream_that_is_none_of_the_format_is_an_error() -> None:
    reader = Call(CHAT, chat(stream=True)).reader(is_event_stream=True)
    with pytest.raises(UpstreamProtocolError):
        reader.feed(b'data: {"type":"message_start","message":5}\n\n')


def test_an_error_event_ends_the_stream_and_what_came_before_it_stays() -> None:
    reader = Call(CHAT, chat(stream=True)).reader(is_event_stream=True)
    stream = message_stream(text_block("a"))
    cut = stream[: stream.index(b"event: content_block_stop")]
    error = sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    written = reader.feed(cut + error)
    assert [c["choices"][0]["delta"].get("content") for c in events_of(written)][-1] == "a"
    assert reader.error is not None
    assert "Overloaded" in reader.error.message
    assert reader.finish() == b""
