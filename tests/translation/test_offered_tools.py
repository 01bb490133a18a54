"""Tools that a Responses client offers in the course of a conversation, and its own search for them.

Codex names its tools so, whatever the model behind the route is.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import InvalidRequestError
from translation.translating import CHAT, MESSAGES, RESPONSES, Call, message_stream

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools", "parameters": SCHEMA}
HELLO = {"role": "user", "content": "hi"}
ANSWER: dict[str, Any] = {"id": "m", "model": "c", "stop_reason": "tool_use", "usage": {}}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": SCHEMA, **more}


def additional(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": list(tools)}


def namespace(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "description": "", "tools": list(tools)}


def used(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "t", "name": name, "input": arguments}


def streamed(name: str, arguments: str) -> bytes:
    start = {"type": "tool_use", "id": "t", "name": name, "input": {}}
    pieces = [arguments[:5], arguments[5:]]
    return message_stream(
        [start, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces)], stop="tool_use"
    )


@pytest.mark.parametrize(("to", "native"), [("anthropic", None), ("openai", CHAT)])
def test_tools_of_an_item_are_tools_of_the_call(to: str, native: Surface | None) -> None:
    items = [additional(namespace("shell", {"type": "custom", "name": "exec"}), function("look")), HELLO]
    call = Call(RESPONSES, {"input": items}, to, native=native)
    tools = [tool.get(tool.get("type"), tool)["name"] for tool in call.body["tools"]]
    assert tools == ["shell__exec", "look"]
    assert call.dropped == ()


def test_a_call_of_a_tool_of_an_item_has_its_namespace_and_its_form() -> None:
    items = [additional(namespace("shell", {"type": "custom", "name": "exec"})), HELLO]
    answer = Call(RESPONSES, {"input": items}).answer({**ANSWER, "content": [used("shell__exec", input="ls")]})
    (item,) = answer["output"]
    assert (item["type"], item["namespace"], item["name"], item["input"]) == ("custom_tool_call", "shell", "exec", "ls")
    events = Call(RESPONSES, {"input": items, "stream": True}).stream(streamed("shell__exec", '{"input": "ls"}'))
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["namespace"], item["name"], item["input"]) == ("custom_tool_call", "shell", "exec", "ls")


def test_a_tool_that_is_offered_again_is_the_latest() -> None:
    items = [additional(function("f", description="old"), function("g")), HELLO, additional(function("f"))]
    call = Call(RESPONSES, {"input": items, "tools": [function("g", description="listed"), function("h")]})
    assert [(t["name"], t.get("description")) for t in call.body["tools"]] == [("h", None), ("f", None), ("g", None)]


@pytest.mark.parametrize("tool", [{"type": "web_search"}, {"type": "tool_search"}])
def test_a_tool_of_an_item_that_runs_at_the_provider_is_refused(tool: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"input\[\]\.tools\[\]\.type"):
        Call(RESPONSES, {"input": [additional(tool), HELLO]})


def test_the_clients_search_is_a_tool_and_its_call_the_clients_item() -> None:
    body = {"input": [HELLO], "tools": [SEARCH, function("f")]}
    call = Call(RESPONSES, body)
    assert next((t["name"], t["input_schema"]) for t in call.body["tools"]) == ("tool_search", SCHEMA)
    item, other = call.answer({**ANSWER, "content": [used("tool_search", q="mail"), used("f")]})["output"]
    assert item == {"type": "tool_search_call", "id": item["id"], "status": "completed", "call_id": "t",
                    "execution": "client", "arguments": {"q": "mail"}}  # fmt: skip
    assert item["id"].startswith("tsc_")
    assert other["type"] == "function_call"


def test_the_clients_search_in_a_stream_has_its_arguments_at_its_end() -> None:
    call = Call(RESPONSES, {"input": [HELLO], "tools": [SEARCH], "stream": True})
    events = call.stream(streamed("tool_search", '{"q": "mail"}'))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    of_items = [event for event in events if "item" in event]
    assert [event["type"] for event in of_items] == ["response.output_item.added", "response.output_item.done"]
    assert [event["item"]["arguments"] for event in of_items] == [{}, {"q": "mail"}]
    assert events[-1]["response"]["output"] == [of_items[-1]["item"]]


def test_arguments_of_a_search_that_cannot_be_read_are_its_text() -> None:
    call = Call(RESPONSES, {"input": [HELLO], "tools": [SEARCH], "stream": True})
    (item,) = call.stream(streamed("tool_search", '{"q": "ma'))[-1]["response"]["output"]
    assert item["arguments"] == '{"q": "ma'


def test_what_a_search_has_found_can_be_called() -> None:
    found = {"type": "tool_search_output", "execution": "client", "call_id": "t", "status": "completed",
             "tools": [namespace("mail", function("send", defer_loading=True))]}  # fmt: skip
    asked = {"type": "tool_search_call", "execution": "client", "call_id": "t", "arguments": {"q": "mail"}}
    call = Call(RESPONSES, {"input": [HELLO, asked, found], "tools": [SEARCH]})
    assert [tool["name"] for tool in call.body["tools"]] == ["tool_search", "mail__send"]
    _, turn, result = call.body["messages"]
    assert (turn["content"][0]["name"], turn["content"][0]["input"]) == ("tool_search", {"q": "mail"})
    assert "mail__send" in str(result["content"])
    assert call.dropped == ()
    (item,) = call.answer({**ANSWER, "content": [used("mail__send")]})["output"]
    assert (item["namespace"], item["name"]) == ("mail", "send")


def test_a_search_that_has_found_nothing_says_so() -> None:
    found = {"type": "tool_search_output", "execution": "client", "call_id": "t", "tools": []}
    asked = {"type": "tool_search_call", "execution": "client", "call_id": "t"}
    call = Call(RESPONSES, {"input": [HELLO, asked, found], "tools": [SEARCH]})
    assert "Nothing was found." in str(call.body["messages"][-1])


def test_a_search_that_ran_at_the_provider_is_dropped_whatever_it_holds() -> None:
    items = [HELLO, {"type": "tool_search_call", "execution": "server"}, {"type": "tool_search_output", "tools": ["x"]}]
    call = Call(RESPONSES, {"input": items})
    assert set(call.dropped) == {"input[].tool_search_call", "input[].tool_search_output"}
    assert call.answer({**ANSWER, "content": [{"type": "text", "text": "ok"}]})["output"][0]["type"] == "message"


def test_a_function_with_the_name_of_the_search_is_a_function() -> None:
    call = Call(RESPONSES, {"input": [HELLO], "tools": [function("tool_search")]})
    (item,) = call.answer({**ANSWER, "content": [used("tool_search")]})["output"]
    assert (item["type"], item["name"]) == ("function_call", "tool_search")
    assert MESSAGES is call.translation.surface
