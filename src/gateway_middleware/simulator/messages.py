"""Anthropic's Messages API and its token counter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway_middleware.simulator.answer import (
    EVENTS,
    MARK,
    Answer,
    Stream,
    Task,
    around_mark,
    encode,
    event_frame,
    fragments,
)
from gateway_middleware.simulator.refusals import stream_error
from gateway_middleware.simulator.words import sample_arguments

Document = dict[str, Any]
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_BROKEN = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type\n\n'


def messages(task: Task) -> Answer:
    """`messages`."""
    if task.parameters.stream:
        return Answer(content_type=EVENTS, stream=_stream(task))
    return Answer(body=encode(_document(task, _content(task), _stop_reason(task), _usage(task, task.spent.output))))


def count_tokens(task: Task) -> Answer:
    """`messages/count_tokens`."""
    return Answer(body=encode({"input_tokens": task.spent.input}))


def _document(task: Task, content: list[Document], stop: str | None, usage: Document) -> Document:
    return {
        "id": f"msg_{task.number}",
        "type": "message",
        "role": "assistant",
        "model": task.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        **usage,
    }


def _stop_reason(task: Task) -> str:
    if task.tools:
        return "tool_use"
    return "max_tokens" if task.reply.is_cut else "end_turn"


def _usage(task: Task, output: int) -> Document:
    """Anthropic's `input_tokens` leaves out what was read from or written to the cache."""
    spent = task.usage
    if spent is None:
        return {}
    usage = {
        "input_tokens": max(spent.input - spent.cached - spent.cache_write, 0),
        "cache_creation_input_tokens": spent.cache_write,
        "cache_read_input_tokens": spent.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": spent.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }
    return {"usage": usage}


def _content(task: Task) -> list[Document]:
    if task.tools:
        return [_tool_use(task, at, tool) for at, tool in enumerate(task.tools)]
    return [{"type": "text", "text": task.reply.text}]


def _tool_use(task: Task, at: int, tool: Document) -> Document:
    return {
        "type": "tool_use",
        "id": f"toolu_{task.number}_{at}",
        "name": str(tool.get("name", "tool")),
        "input": sample_arguments(tool.get("input_schema")),
    }


def _stream(task: Task) -> Stream:
    start = _document(task, [], None, _usage(task, 1))
    text_block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return Stream(
        opening=event_frame({"type": "message_start", "message": start}),
        lead=() if task.tools else (event_frame(text_block), _PING),
        content=_tool_blocks(task) if task.tools else _deltas(task),
        closing=_closing(task),
        error=lambda: stream_error(task.behaviour, provider=task.provider, kind=task.kind, number=task.number),
        ping=_PING,
        broken=_BROKEN,
    )


def _delta(at: int, delta: Document) -> bytes:
    return event_frame({"type": "content_block_delta", "index": at, "delta": delta})


def _deltas(task: Task) -> Iterator[bytes]:
    before, after = around_mark(_delta(0, {"type": "text_delta", "text": MARK}))
    for piece in task.reply:
        yield before + encode(piece) + after


def _tool_blocks(task: Task) -> Iterator[bytes]:
    for at, block in enumerate(_content(task)):
        start = {"type": "content_block_start", "index": at, "content_block": block | {"input": {}}}
        yield event_frame(start) + _delta(at, {"type": "input_json_delta", "partial_json": ""})
        for piece in fragments(encode(block["input"]).decode()):
            yield _delta(at, {"type": "input_json_delta", "partial_json": piece})
        yield event_frame({"type": "content_block_stop", "index": at})


def _closing(task: Task) -> Iterator[bytes]:
    if not task.tools:
        yield event_frame({"type": "content_block_stop", "index": 0})
    usage = _usage(task, task.spent.output).get("usage", {})
    tokens = {name: value for name, value in usage.items() if name.endswith("_tokens")}
    ended = {"stop_reason": _stop_reason(task), "stop_sequence": None}
    yield event_frame({"type": "message_delta", "delta": ended, **({"usage": tokens} if tokens else {})})
    yield event_frame({"type": "message_stop"})
