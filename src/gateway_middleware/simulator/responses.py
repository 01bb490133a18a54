"""The Responses API, as OpenAI and Azure answer it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway_middleware.simulator.answer import EVENTS, Answer, Stream, Task, encode, event_frame, fragments
from gateway_middleware.simulator.refusals import stream_error
from gateway_middleware.simulator.words import sample_arguments

Document = dict[str, Any]
_DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%d,'
    b'"item_id":"%b","output_index":0,"content_index":0,"delta":%b,"logprobs":[]}\n\n'
)


def responses(task: Task) -> Answer:
    """`responses`."""
    if task.parameters.stream:
        return Answer(content_type=EVENTS, stream=events_of(task))
    return Answer(body=encode(document_of(task, "queued" if task.parameters.background else None)))


def events_of(task: Task) -> Stream:
    """All events of the response."""
    return _Events(task).stream()


def document_of(task: Task, status: str | None = None) -> Document:
    """The response: as it ends, or in a state before its end."""
    return _document(task, status or _status(task), [] if status else _output(task))


def compacted(task: Task) -> Answer:
    """`responses/compact`: what users said, and one item for all the rest."""
    said = [item for item in input_items(task) if item.get("role") == "user"]
    rest = {"id": f"cmp_{task.number}", "type": "compaction", "encrypted_content": f"simulated-{task.number}"}
    document = {
        "id": f"resp_{task.number}",
        "object": "response.compaction",
        "created_at": task.created,
        "output": [*said, rest],
        "usage": _usage(task),
    }
    return Answer(body=encode(document))


def input_items(task: Task) -> list[Document]:
    """The input as items, the oldest first, each with an id."""
    given = task.parameters.input
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    return [_input_item(task, at, item) for at, item in enumerate(items)]


def _input_item(task: Task, at: int, item: Document) -> Document:
    common = {"id": f"msg_{task.number}_{at}", "type": "message", "status": "completed"}
    if isinstance(item.get("content"), str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        item = item | {"content": [{"type": kind, "text": item["content"]}]}
    return common | item


def input_tokens(task: Task) -> Answer:
    """`responses/input_tokens`."""
    return Answer(body=encode({"object": "response.input_tokens", "input_tokens": task.spent.input}))


def _status(task: Task) -> str:
    return "incomplete" if task.reply.is_cut and not task.tools else "completed"


def _document(task: Task, status: str, output: list[Document]) -> Document:
    is_over = status in {"completed", "incomplete"}
    return {
        "id": f"resp_{task.number}",
        "object": "response",
        "created_at": task.created,
        "status": status,
        "background": bool(task.parameters.background),
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": task.parameters.instructions,
        "max_output_tokens": task.parameters.max_output_tokens,
        "model": task.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": task.parameters.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": task.parameters.store is not False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": task.parameters.tools or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(task) if is_over else None,
        "user": None,
        "metadata": {},
        **({"content_filters": None} if task.is_azure else {}),
    }


def _usage(task: Task) -> Document | None:
    spent = task.usage
    if spent is None:
        return None
    return {
        "input_tokens": spent.input,
        "input_tokens_details": {"cached_tokens": spent.cached, "cache_write_tokens": spent.cache_write},
        "output_tokens": spent.output,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.input + spent.output,
    }


def _output(task: Task) -> list[Document]:
    if task.tools:
        return [_call(task, at, tool) for at, tool in enumerate(task.tools)]
    return [_message(task, _status(task), [_text_part(task.reply.text)])]


def _text_part(text: str) -> Document:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _message(task: Task, status: str, content: list[Document]) -> Document:
    return {
        "id": f"msg_{task.number}",
        "type": "message",
        "status": status,
        "content": content,
        "role": "assistant",
    }


def _call(task: Task, at: int, tool: Document) -> Document:
    return {
        "id": f"fc_{task.number}_{at}",
        "type": "function_call",
        "status": "completed",
        "arguments": encode(sample_arguments(tool.get("parameters"))).decode(),
        "call_id": f"call_{task.number}_{at}",
        "name": str(tool.get("name", "tool")),
    }


class _Events:
    """The events of one stream, numbered in the order in which they are made."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._sequence = 0
        self._item = f"msg_{task.number}"

    def _event(self, kind: str, **fields: Any) -> bytes:
        frame = event_frame({"type": f"response.{kind}", "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return frame

    def stream(self) -> Stream:
        task = self._task
        started = _document(task, "in_progress", [])
        opening = self._event("created", response=started) + self._event("in_progress", response=started)
        lead, content = ((), self._calls()) if task.tools else (self._lead(), self._deltas())
        return Stream(opening=opening, lead=lead, content=content, closing=self._closing(), error=self._error)

    def _lead(self) -> Iterator[bytes]:
        item = _message(self._task, "in_progress", [])
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        yield self._event("output_item.added", output_index=0, item=item)
        yield self._event("content_part.added", **where, part=_text_part(""))

    def _deltas(self) -> Iterator[bytes]:
        item = self._item.encode()
        for piece in self._task.reply:
            yield _DELTA % (self._sequence, item, encode(piece))
            self._sequence += 1

    def _calls(self) -> Iterator[bytes]:
        for at, call in enumerate(_output(self._task)):
            where = {"item_id": call["id"], "output_index": at}
            yield self._event(
                "output_item.added", output_index=at, item=call | {"arguments": "", "status": "in_progress"}
            )
            for piece in fragments(call["arguments"]):
                yield self._event("function_call_arguments.delta", **where, delta=piece)
            done = self._event("function_call_arguments.done", **where, arguments=call["arguments"], name=call["name"])
            yield done + self._event("output_item.done", output_index=at, item=call)

    def _closing(self) -> Iterator[bytes]:
        task, status = self._task, _status(self._task)
        output = _output(task)
        if not task.tools:
            yield from self._text_done(output[0])
        yield self._event(status, response=_document(task, status, output))

    def _text_done(self, item: Document) -> Iterator[bytes]:
        part = item["content"][0]
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        yield self._event("output_text.done", **where, text=part["text"], logprobs=[])
        yield self._event("content_part.done", **where, part=part)
        yield self._event("output_item.done", output_index=0, item=item)

    def _error(self) -> bytes:
        task = self._task
        return stream_error(
            task.behaviour, provider=task.provider, kind=task.kind, number=task.number, sequence=self._sequence
        )
