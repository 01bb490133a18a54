"""Streams in which a model calls one tool, as each kind of provider sends them: what agents then do is real."""

from __future__ import annotations

import json
from typing import Any

from gateway_middleware.simulator import Replay

HEADERS = (("content-type", "text/event-stream; charset=utf-8"),)


def calling(surface: str, name: str, arguments: dict[str, Any] | str, *, namespace: str | None = None) -> Replay:
    """A stream that ends with a call of a tool: `arguments` are an object, or, for a free-form tool, a text."""
    return Replay(headers=HEADERS, body=_STREAMS[surface](name, arguments, namespace))


def _messages(name: str, arguments: dict[str, Any] | str, namespace: str | None) -> bytes:
    named = name if namespace is None else f"{namespace}__{name}"
    taken = arguments if isinstance(arguments, dict) else {"input": arguments}
    block = {"type": "tool_use", "id": "toolu_1", "name": named, "input": {}}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [],
               "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}  # fmt: skip
    return _events(
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
          for piece in _pieces(json.dumps(taken))),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )  # fmt: skip


def _chat(name: str, arguments: dict[str, Any] | str, namespace: str | None) -> bytes:
    named = name if namespace is None else f"{namespace}__{name}"
    kind, member = ("function", "arguments") if isinstance(arguments, dict) else ("custom", "input")
    text = json.dumps(arguments) if isinstance(arguments, dict) else arguments
    first = {"index": 0, "id": "call_1", "type": kind, kind: {"name": named, member: ""}}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}, {"tool_calls": [first]}]
    deltas += [{"tool_calls": [{"index": 0, kind: {member: piece}}]} for piece in _pieces(text)]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return _events(*chunks, {**head, "choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def _responses(name: str, arguments: dict[str, Any] | str, namespace: str | None) -> bytes:
    kind, member = ("function_call", "arguments") if isinstance(arguments, dict) else ("custom_tool_call", "input")
    text = json.dumps(arguments) if isinstance(arguments, dict) else arguments
    item = {"id": "fc_1", "type": kind, "status": "completed", "call_id": "call_1", "name": name, member: text}
    item |= {} if namespace is None else {"namespace": namespace}
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5", "status": "in_progress",
                "output": [], "tools": [], "parallel_tool_calls": True, "tool_choice": "auto"}  # fmt: skip
    usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    event = "function_call_arguments" if isinstance(arguments, dict) else "custom_tool_call_input"
    where = {"item_id": "fc_1", "output_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {member: "", "status": "in_progress"}},
        *({"type": f"response.{event}.delta", **where, "delta": piece} for piece in _pieces(text)),
        {"type": f"response.{event}.done", **where, member: text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed",
         "response": {**response, "status": "completed", "output": [item], "usage": usage}},
    ]  # fmt: skip
    return _events(*({**event, "sequence_number": at} for at, event in enumerate(events)))


_STREAMS = {"messages": _messages, "chat/completions": _chat, "responses": _responses}


def _pieces(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]


def _events(*events: dict[str, Any]) -> bytes:
    named = [
        (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n" for event in events
    ]
    return "".join(named).encode()
