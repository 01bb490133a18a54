"""Free-form tools on servers of OpenAI's format that have functions only: wrapped on the way there, unwrapped back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translation.translating import CHAT, RESPONSES, Call, called, chunk, more, sse

GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
TOOLS = [{"type": "custom", "name": "patch", "description": "d", "format": GRAMMAR}, {"type": "function", "name": "f"}]
TEXT = '*** "Begin"\n\\ ü😀'


def call(model: str = "mistral-large", to: str = "openai", **body: Any) -> Call:
    return Call(RESPONSES, {"input": "hi", "tools": TOOLS, **body}, to, native=CHAT, model=model)


def test_the_tool_is_a_function_and_its_grammar_is_listed() -> None:
    asked = call(tool_choice={"type": "custom", "name": "patch"})
    tool = asked.body["tools"][0]
    assert (tool["type"], tool["function"]["description"]) == ("function", "d")
    assert tool["function"]["parameters"]["properties"] == {"input": {"type": "string"}}
    assert asked.body["tool_choice"] == {"type": "function", "function": {"name": "patch"}}
    assert asked.dropped == ("tools[].format",)


@pytest.mark.parametrize("form", [{}, {"format": {"type": "text"}}])
def test_nothing_is_lost_of_a_tool_without_a_grammar(form: dict[str, Any]) -> None:
    assert call(tools=[{"type": "custom", "name": "patch", **form}]).dropped == ()


@pytest.mark.parametrize(("model", "to"), [("gpt-5.5", "openai"), ("a-deployment", "azure")])
def test_openais_own_models_keep_it(model: str, to: str) -> None:
    asked = call(model, to)
    assert (asked.body["tools"][0]["type"], asked.dropped) == ("custom", ())


def test_a_call_that_is_echoed_is_a_functions() -> None:
    echoed = [{"role": "user", "content": "hi"},
              {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": TEXT},
              {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}]  # fmt: skip
    _, turn, result = call(input=echoed).body["messages"]
    (written,) = turn["tool_calls"]
    assert (written["type"], json.loads(written["function"]["arguments"])) == ("function", {"input": TEXT})
    assert (result["role"], result["tool_call_id"]) == ("tool", "c")


def test_a_whole_answer_is_unwrapped() -> None:
    calls = [{"id": "a", "function": {"name": "patch", "arguments": json.dumps({"input": TEXT})}},
             {"id": "b", "function": {"name": "f", "arguments": '{"input": "x"}'}}]  # fmt: skip
    choice = {"index": 0, "message": {"role": "assistant", "tool_calls": calls}, "finish_reason": "tool_calls"}
    patch, other = call().answer({"id": "1", "model": "m", "choices": [choice]})["output"]
    assert (patch["type"], patch["input"]) == ("custom_tool_call", TEXT)
    assert (other["type"], other["arguments"]) == ("function_call", '{"input": "x"}')


@given(text=st.text(max_size=30), size=st.integers(1, 9))
def test_a_stream_is_unwrapped_however_it_is_cut(text: str, size: int) -> None:
    arguments = json.dumps({"input": text})
    pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    chunks = [chunk(called(0, "a", "patch")), chunk(called(1, "b", "patch"))]
    chunks += [chunk(more(1, piece)) for piece in pieces]  # the second one waits for the first
    chunks += [chunk(more(0, piece)) for piece in pieces]
    events = call(stream=True).stream(sse(*chunks, chunk({}, "tool_calls"), done=True))
    output = events[-1]["response"]["output"]
    assert [(item["type"], item["input"]) for item in output] == [("custom_tool_call", text)] * 2
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == text * 2
