"""Chat completions and (legacy) completions, as OpenAI and Azure answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway_middleware.simulator.answer import (
    EVENTS,
    MARK,
    Answer,
    Stream,
    Task,
    around_mark,
    data_frame,
    encode,
    fragments,
)
from gateway_middleware.simulator.refusals import stream_error
from gateway_middleware.simulator.words import Spent, sample_arguments

_DONE = b"data: [DONE]\n\n"
_MAX_CHOICES = 128
_SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
PROMPT_FILTER = [
    {"prompt_index": 0, "content_filter_results": {**_SAFE, "jailbreak": {"filtered": False, "detected": False}}}
]


def usage_document(spent: Spent) -> dict[str, Any]:
    """Usage of chat, completions and embeddings."""
    return {
        "prompt_tokens": spent.input,
        "completion_tokens": spent.output,
        "total_tokens": spent.input + spent.output,
        "prompt_tokens_details": {"cached_tokens": spent.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": spent.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def choices_of(task: Task) -> int:
    """How many choices are asked for."""
    return min(max(task.parameters.n or 1, 1), _MAX_CHOICES)


def chat(task: Task) -> Answer:
    """`chat/completions`."""
    if task.parameters.stream:
        return Answer(content_type=EVENTS, stream=_chat_stream(task))
    return Answer(body=encode(_chat_document(task)))


def completions(task: Task) -> Answer:
    """`completions`."""
    if task.parameters.stream:
        return Answer(content_type=EVENTS, stream=_completions_stream(task))
    choices = [_text_choice(at, task.reply.text, _finish(task)) for at in range(choices_of(task))]
    return Answer(body=encode(_envelope(task, "text_completion", choices) | _usage(task)))


def _envelope(task: Task, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    if task.is_azure:
        for choice in choices:
            choice["content_filter_results"] = _SAFE if choice.get("delta") != {} else {}
    name = "cmpl" if kind == "text_completion" else "chatcmpl"
    return {
        "id": f"{name}-{task.number}",
        "object": kind,
        "created": task.created,
        "model": task.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
        "choices": choices,
    }


def _usage(task: Task) -> dict[str, Any]:
    return {} if task.usage is None else {"usage": usage_document(task.usage)}


def _finish(task: Task) -> str:
    if task.kind == "chat/completions" and task.tools:
        return "tool_calls"
    return "length" if task.reply.is_cut else "stop"


def _text_choice(at: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": at, "text": text, "logprobs": None, "finish_reason": finish}


def _chat_document(task: Task) -> dict[str, Any]:
    calls = _calls(task)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else task.reply.text, "refusal": None}
    message |= {"tool_calls": calls} if calls else {"annotations": []}
    choices: list[dict[str, Any]] = [
        {"index": at, "message": message, "logprobs": None, "finish_reason": _finish(task)}
        for at in range(choices_of(task))
    ]
    document = _envelope(task, "chat.completion", choices) | _usage(task)
    if task.is_azure:
        document["prompt_filter_results"] = PROMPT_FILTER
    return document


def _calls(task: Task) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{task.number}_{at}", "type": "function", "function": _function(tool)}
        for at, tool in enumerate(task.tools)
    ]


def _function(tool: dict[str, Any]) -> dict[str, str]:
    function = tool.get("function")
    described: dict[str, Any] = function if isinstance(function, dict) else tool
    arguments = encode(sample_arguments(described.get("parameters"))).decode()
    return {"name": str(described.get("name", "tool")), "arguments": arguments}


def _chunk(task: Task, at: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": at, "delta": delta, "logprobs": None, "finish_reason": finish}
    return data_frame(_envelope(task, "chat.completion.chunk", [choice]) | _null_usage(task))


def _null_usage(task: Task) -> dict[str, Any]:
    """Where usage was asked for, every chunk but the last has it as null."""
    return {"usage": None} if task.parameters.wants_usage and task.usage is not None else {}


def _chat_stream(task: Task) -> Stream:
    choices = range(choices_of(task))
    role = {"role": "assistant", "content": None if task.tools else "", "refusal": None}
    finish = _finish(task)
    return Stream(
        opening=_filter_frame(task) + b"".join(_chunk(task, at, role) for at in choices),
        content=_call_chunks(task)
        if task.tools
        else _text_chunks(task, [_chunk(task, at, {"content": MARK}) for at in choices]),
        closing=(*(_chunk(task, at, {}, finish) for at in choices), *_closing(task, "chat.completion.chunk")),
        error=_error(task),
    )


def _filter_frame(task: Task) -> bytes:
    if not task.is_azure:
        return b""
    empty = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    return data_frame({**empty, "prompt_filter_results": PROMPT_FILTER})


def _text_chunks(task: Task, templates: list[bytes]) -> Iterator[bytes]:
    halves = [around_mark(template) for template in templates]
    for piece in task.reply:
        text = encode(piece)
        for before, after in halves:
            yield before + text + after


def _call_chunks(task: Task) -> Iterator[bytes]:
    for at, call in enumerate(_calls(task)):
        arguments: str = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        yield _chunk(task, 0, {"tool_calls": [{"index": at, **call}]})
        for piece in fragments(arguments):
            yield _chunk(task, 0, {"tool_calls": [{"index": at, "function": {"arguments": piece}}]})


def _closing(task: Task, kind: str) -> tuple[bytes, ...]:
    if task.usage is None or not task.parameters.wants_usage:
        return (_DONE,)
    return data_frame(_envelope(task, kind, []) | _usage(task)), _DONE


def _error(task: Task) -> Callable[[], bytes]:
    return lambda: stream_error(task.behaviour, provider=task.provider, kind=task.kind, number=task.number)


def _completions_stream(task: Task) -> Stream:
    def chunk(at: int, text: str, finish: str | None = None) -> bytes:
        choice = _text_choice(at, text, finish)
        return data_frame(_envelope(task, "text_completion", [choice]) | _null_usage(task))

    choices, finish = range(choices_of(task)), _finish(task)
    return Stream(
        opening=_filter_frame(task),
        content=_text_chunks(task, [chunk(at, MARK) for at in choices]),
        closing=(*(chunk(at, "", finish) for at in choices), *_closing(task, "text_completion")),
        error=_error(task),
    )
