"""Gemini's signatures of its thoughts: they come with its tool calls, and go back on them, through every dialect."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_middleware.core.domain import Surface
from translation.translating import CHAT, MESSAGES, RESPONSES, Call, chunk, sse

SIGNED = {"google": {"thought_signature": "c2lnbmVk"}}
FOREIGN = {"google": {"thought_signature": "skip_thought_signature_validator"}}
ASKED: dict[Surface, dict[str, Any]] = {
    MESSAGES: {"max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]},
    RESPONSES: {"input": [{"role": "user", "content": "hi"}]},
}


def called(call_id: str, extra: Any = None) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return call if extra is None else {**call, "extra_content": extra}


def echoed(surface: Surface, answer: dict[str, Any]) -> dict[str, Any]:
    """The next request of a client that brings back all of the answer, and a result for each call."""
    if surface is MESSAGES:
        ids = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call_id, "content": "1"} for call_id in ids]
        turns = [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": results}]
        return {**ASKED[surface], "messages": [*ASKED[surface]["messages"], *turns]}
    ids = [item["call_id"] for item in answer["output"] if item["type"] == "function_call"]
    outputs = [{"type": "function_call_output", "call_id": call_id, "output": "1"} for call_id in ids]
    return {"input": [*ASKED[surface]["input"], *answer["output"], *outputs]}


def whole(surface: Surface, calls: list[dict[str, Any]], text: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return Call(surface, ASKED[surface], "openai", native=CHAT).answer({"id": "1", "model": "g", "choices": [choice]})


def streamed(surface: Surface, calls: list[dict[str, Any]], text: str | None) -> dict[str, Any]:
    """The whole answer that a stream makes."""
    chunks = [chunk({"content": text})] if text else []
    chunks += [chunk({"tool_calls": [call]}) for call in calls]
    body = {**ASKED[surface], "stream": True}
    events = Call(surface, body, "openai", native=CHAT).stream(sse(*chunks, chunk({}, "stop"), done=True))
    if surface is RESPONSES:
        answer: dict[str, Any] = events[-1]["response"]
        return answer
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta" and event["delta"]["type"] in {"text_delta", "signature_delta"}:
            member = event["delta"]["type"].removesuffix("_delta")
            blocks[-1][member] += event["delta"][member]
    return {"content": blocks}


@pytest.mark.parametrize("surface", [MESSAGES, RESPONSES])
@pytest.mark.parametrize("make", [whole, streamed])
@pytest.mark.parametrize("text", [None, "I look"])
def test_a_signature_comes_back_on_its_call(surface: Surface, make: Any, text: str | None) -> None:
    answer = make(surface, [called("a", SIGNED), called("b")], text)
    back = Call(surface, echoed(surface, answer), "openai", native=CHAT, model="gemini-3-flash")
    turns = [turn for turn in back.body["messages"] if turn["role"] == "assistant"]
    calls = [call for turn in turns for call in turn.get("tool_calls", ())]
    assert [(call["id"], call.get("extra_content")) for call in calls] == [("a", SIGNED), ("b", None)]
    assert back.dropped == ()


@pytest.mark.parametrize("surface", [MESSAGES, RESPONSES])
@pytest.mark.parametrize(("to", "model"), [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5")])
def test_nobody_else_is_shown_it(surface: Surface, to: str, model: str) -> None:
    body = echoed(surface, whole(surface, [called("a", SIGNED)], None))
    if (surface, to) == (MESSAGES, "anthropic"):
        return  # the client's own dialect is not translated
    call = Call(surface, body, to, native=CHAT if to == "openai" else None, model=model)
    assert "c2lnbmVk" not in str(call.body)
    assert len(call.dropped) == 1


@pytest.mark.parametrize(
    ("model", "extra"),
    [("gemini-3-flash", FOREIGN), ("models/Gemini-3.6-pro", FOREIGN), ("gemini-flash-latest", FOREIGN),
     ("gemini-2.5-pro", None), ("gpt-4o", None)],
)  # fmt: skip
def test_calls_that_others_have_made_are_marked_as_such_where_one_is_needed(model: str, extra: Any) -> None:
    body = echoed(MESSAGES, whole(MESSAGES, [called("a"), called("b")], None))
    turns = Call(MESSAGES, body, "openai", native=CHAT, model=model).body["messages"]
    calls = next(turn["tool_calls"] for turn in turns if turn["role"] == "assistant")
    assert [call.get("extra_content") for call in calls] == [extra, None]


@pytest.mark.parametrize(
    "extra", [None, 1, "x", [], {}, {"google": 1}, {"google": {"thought_signature": 1}}, {"a": {}}]
)
def test_what_is_no_signature_is_none(extra: Any) -> None:
    assert [block["type"] for block in whole(MESSAGES, [called("a", extra)], None)["content"]] == ["tool_use"]


def test_signatures_of_calls_that_come_mixed_stay_with_their_calls() -> None:
    first, second = called("a", SIGNED), called("b", {"google": {"thought_signature": "b3RoZXI="}})
    first["function"]["arguments"], second["function"]["arguments"] = '{"x":', '{"y":1}'
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}
    chunks = [
        chunk({"tool_calls": [{"index": 0, **first}]}),
        chunk({"tool_calls": [{"index": 1, **second}]}),
        chunk(rest),
    ]
    call = Call(MESSAGES, {**ASKED[MESSAGES], "stream": True}, "openai", native=CHAT)
    events = call.stream(sse(*chunks, chunk({}, "stop"), done=True))
    told = [event.get("content_block", event.get("delta")) for event in events if "index" in event]
    kinds = [part["type"] for part in told if part is not None]
    assert kinds == ["thinking", "signature_delta", "tool_use", "input_json_delta", "input_json_delta",
                     "thinking", "signature_delta", "tool_use", "input_json_delta"]  # fmt: skip
