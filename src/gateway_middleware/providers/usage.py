"""Reads token usage from provider answers into one convention.

OpenAI counts cached tokens inside `prompt_tokens` or `input_tokens`. Anthropic counts them beside `input_tokens`, and
counts compaction and advisor runs only in `usage.iterations` (read from recorded answers and the SDK's own types).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gateway_middleware.core.domain import Usage

_MAX_COUNT = 10**9
_NOTHING = Usage()
_decode = msgspec.json.Decoder().decode


_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_COUNT)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class _ChatUsage(msgspec.Struct, gc=False):
    """The usage of a chat completion, in the one form that nearly all have."""

    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: _Count | None = None
    """DeepSeek's word for cached tokens, where there are no details."""
    input_tokens: None = None
    output_tokens: None = None
    input_tokens_details: None = None
    output_tokens_details: None = None
    """Those of Responses: where they are given as well, both are looked at."""


_NO_DETAILS = _Details()
_NULL = b"null"
_decode_chat = msgspec.json.Decoder(_ChatUsage).decode


def count(value: object) -> int | None:
    """A number of tokens, or None for what cannot be one."""
    if type(value) is int:
        return value if 0 <= value <= _MAX_COUNT else None
    return count(int(value)) if type(value) is float and value.is_integer() else None


def json_object(raw: msgspec.Raw) -> dict[str, Any]:
    """The JSON object in these bytes; empty for anything else."""
    if not raw:
        return {}
    try:
        value = _decode(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def openai_usage(reported: dict[str, Any]) -> Usage | None:
    """Usage in any of OpenAI's wire formats: chat and embeddings say `prompt_tokens`, the others `input_tokens`."""
    get = reported.get
    input_details = get("prompt_tokens_details") or get("input_tokens_details")
    output_details = get("completion_tokens_details") or get("output_tokens_details")
    prompt_tokens, completion_tokens = count(get("prompt_tokens")), count(get("completion_tokens"))
    cached = _detail(input_details, "cached_tokens")
    return _reported(
        Usage(
            input_tokens=count(get("input_tokens")) if prompt_tokens is None else prompt_tokens,
            output_tokens=count(get("output_tokens")) if completion_tokens is None else completion_tokens,
            cached_input_tokens=count(get("prompt_cache_hit_tokens")) if cached is None else cached,
            cache_write_tokens=_detail(input_details, "cache_write_tokens"),
            reasoning_tokens=_detail(output_details, "reasoning_tokens"),
        )
    )


def openai_usage_of(raw: msgspec.Raw) -> Usage | None:
    """The usage in these bytes: read as OpenAI's servers write it, else member by member."""
    if not raw or bytes(raw) == _NULL:  # most events of a stream have none
        return None
    try:
        chat = _decode_chat(raw)
    except (ValueError, RecursionError):
        return openai_usage(json_object(raw))
    taken, given = chat.prompt_tokens_details or _NO_DETAILS, chat.completion_tokens_details or _NO_DETAILS
    return Usage(
        input_tokens=chat.prompt_tokens,
        output_tokens=chat.completion_tokens,
        cached_input_tokens=chat.prompt_cache_hit_tokens if taken.cached_tokens is None else taken.cached_tokens,
        cache_write_tokens=taken.cache_write_tokens,
        reasoning_tokens=given.reasoning_tokens,
    )


def anthropic_usage(reported: dict[str, Any]) -> Usage | None:
    """Usage of a message."""
    stated = _message_usage(reported)
    iterations = reported.get("iterations")
    if isinstance(iterations, list):
        runs = [_message_usage(run) for run in iterations if isinstance(run, dict)]
        stated = Usage(**{name: _larger(getattr(stated, name), _sum(runs, name)) for name in Usage.__struct_fields__})
    return _reported(stated)


def anthropic_usage_of(raw: msgspec.Raw) -> Usage | None:
    """The usage of a message, in these bytes."""
    return anthropic_usage(json_object(raw))


def _message_usage(reported: dict[str, Any]) -> Usage:
    fresh = count(reported.get("input_tokens"))
    read = count(reported.get("cache_read_input_tokens"))
    written = count(reported.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=count(reported.get("output_tokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_detail(reported.get("cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=_detail(reported.get("output_tokens_details"), "thinking_tokens"),
    )


def _sum(runs: list[Usage], name: str) -> int | None:
    counts = [n for n in (getattr(run, name) for run in runs) if n is not None]
    return sum(counts) if counts else None


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _detail(details: object, name: str) -> int | None:
    return count(details.get(name)) if isinstance(details, dict) else None


def _reported(usage: Usage) -> Usage | None:
    return None if usage == _NOTHING else usage
