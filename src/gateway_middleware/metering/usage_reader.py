"""Reads model and usage from an OpenAI- or Anthropic-shaped answer, whole or streamed, while it passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gateway_middleware.core.domain import Usage

_MAX_KEPT = 4 * 1024 * 1024
"""Bytes of an answer that are kept until its end; of a longer one the end alone."""
_MAX_STREAM_KEPT = 1024 * 1024
_STREAM_TAIL = 65_536
_MAX_COUNT = 10**9
_decode = msgspec.json.Decoder().decode


class Reading(NamedTuple):
    """What an answer tells. `raw_usage` is the usage object as JSON; of a stream, all of its usage objects in one."""

    model: str | None = None
    usage: Usage | None = None
    raw_usage: bytes | None = None


class AnswerReader:
    """Takes the body of one answer in pieces, however it is cut; `finish` says what it told of model and usage."""

    def __init__(self, *, is_stream: bool) -> None:
        self.is_stream = is_stream
        self._kept = bytearray()

    def feed(self, body: bytes) -> None:
        """Keep what may tell of usage."""
        self._kept += body
        if self.is_stream and len(self._kept) > _MAX_STREAM_KEPT:
            events = _events_with_usage(bytes(self._kept[:-_STREAM_TAIL]))
            self._kept = bytearray(b"\n\n".join([*events, bytes(self._kept[-_STREAM_TAIL:])]))
        if len(self._kept) > _MAX_KEPT:
            del self._kept[: -_MAX_KEPT // 2]

    def finish(self) -> Reading:
        """Model and usage, as far as the answer tells; of a stream, what comes later replaces what came before."""
        fields = self._of_stream() if self.is_stream else _object(bytes(self._kept))
        model, reported = fields.get("model"), fields.get("usage")
        name = model if isinstance(model, str) else None
        if not isinstance(reported, dict):
            return Reading(name)
        return Reading(name, _usage(reported), msgspec.json.encode(reported))

    def _of_stream(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for event in _events_with_usage(bytes(self._kept)):
            outer = _object(b"".join(line[5:] for line in event.splitlines() if line.startswith(b"data:")))
            for part in (outer, outer.get("message"), outer.get("response")):
                if isinstance(part, dict):
                    _merge(fields, part)
        return fields


def _events_with_usage(stream: bytes) -> list[bytes]:
    return [event for event in stream.replace(b"\r\n", b"\n").split(b"\n\n") if b'"usage"' in event]


def _merge(fields: dict[str, Any], part: dict[str, Any]) -> None:
    if isinstance(part.get("model"), str):
        fields["model"] = part["model"]
    if isinstance(part.get("usage"), dict):
        counts = {name: value for name, value in part["usage"].items() if value is not None}
        fields["usage"] = {**fields.get("usage", {}), **counts}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = _decode(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _usage(reported: dict[str, Any]) -> Usage:
    """Usage in OpenAI's or Anthropic's words, the latter with its cached tokens beside the input."""
    read, written = _count(reported, "cache_read_input_tokens"), _count(reported, "cache_creation_input_tokens")
    of_input = reported.get("prompt_tokens_details") or reported.get("input_tokens_details")
    of_output = reported.get("completion_tokens_details") or reported.get("output_tokens_details")
    taken = _first(_count(reported, "prompt_tokens"), _count(reported, "input_tokens"))
    return Usage(
        input_tokens=None if taken is None else taken + (read or 0) + (written or 0),
        output_tokens=_first(_count(reported, "completion_tokens"), _count(reported, "output_tokens")),
        cached_input_tokens=_first(read, _count(of_input, "cached_tokens")),
        cache_write_tokens=written,
        cache_write_1h_tokens=_count(reported.get("cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=_count(of_output, "reasoning_tokens"),
    )


def _count(reported: object, name: str) -> int | None:
    value = reported.get(name) if isinstance(reported, dict) else None
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
