"""What clients may rely on in the streams of the three surfaces, checked with the official SDKs' own types."""

from __future__ import annotations

from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway_middleware.core.domain import Surface

WHOLE: dict[Surface, TypeAdapter[Any]] = {
    Surface.CHAT: TypeAdapter(ChatCompletion),
    Surface.RESPONSES: TypeAdapter(Response),
    Surface.MESSAGES: TypeAdapter(Message),
}
EVENT: dict[Surface, TypeAdapter[Any]] = {
    Surface.CHAT: TypeAdapter(ChatCompletionChunk),
    Surface.RESPONSES: TypeAdapter(ResponseStreamEvent),
    Surface.MESSAGES: TypeAdapter(RawMessageStreamEvent),
}


def check_stream(surface: Surface, events: list[dict[str, Any]]) -> None:
    """Every event is one of the SDK's, and they come in the order that the format demands."""
    for event in events:
        EVENT[surface].validate_python(event)
    _GRAMMARS[surface](events)


def _chat(events: list[dict[str, Any]]) -> None:
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert [choice["finish_reason"] is not None for choice in choices] == [False] * (len(choices) - 1) + [True]
    assert len({event["id"] for event in events}) == 1
    known: list[int] = []
    for choice in choices:
        for call in choice["delta"].get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(known)
                known.append(call["index"])
            assert call["index"] == known[-1]


def _messages(events: list[dict[str, Any]]) -> None:
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    is_open, index = False, -1
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            is_open, index = True, index + 1
        else:
            assert is_open
            is_open = event["type"] != "content_block_stop"
        assert event["index"] == index
    assert not is_open


def _responses(events: list[dict[str, Any]]) -> None:
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    last = events[-1]["response"]
    assert added == [item["id"] for item in done]
    assert last["output"] == done
    assert events[-1]["type"] == f"response.{last['status']}"
    for item in done:
        said = "".join(e["delta"] for e in events if e.get("item_id") == item["id"] and e["type"].endswith(".delta"))
        assert said.startswith(_text_of(item) if item["type"] != "function_call" or said else "")


def _text_of(item: dict[str, Any]) -> str:
    if item["type"] == "message":
        return "".join(part.get("text", "") + part.get("refusal", "") for part in item["content"])
    if item["type"] == "reasoning":
        return "".join(part["text"] for part in item["summary"])
    return str(item["arguments"] if item["type"] == "function_call" else item["input"])


_GRAMMARS = {Surface.CHAT: _chat, Surface.MESSAGES: _messages, Surface.RESPONSES: _responses}
