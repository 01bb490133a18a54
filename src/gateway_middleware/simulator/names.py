"""Reads a behaviour from a model name: `sim-` and options joined by `+` or `:`, such as `sim-slow-200+truncate-5`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from gateway_middleware.simulator.behaviour import FAULTS, PLAIN, Behaviour

PREFIX = "sim-"
Setting: TypeAlias = dict[str, Any]


def _milliseconds(field: str) -> Callable[[str], Setting]:
    return lambda text: {field: int(text) / 1000}


def _count(field: str) -> Callable[[str], Setting]:
    return lambda text: {field: int(text)}


def _status(text: str) -> Setting:
    status, _, wait = text.partition("-")
    if not 300 <= int(status) <= 599:
        raise ValueError(f"{status} is not the status of an error")
    return {"status": int(status), **({"retry_after": float(wait)} if wait else {})}


def _error(text: str) -> Setting:
    return {"error_after": -1 if text == "first" else int(text)}


KNOBS: dict[str, tuple[Callable[[str], Setting], str]] = {
    "status": (_status, "`sim-status-503`, `sim-status-503-2` with retry-after; the word may be left out: `sim-429-3`"),
    "slow": (_milliseconds("ttft"), "ms before the head"),
    "lag": (_milliseconds("content_delay"), "ms between lifecycle frames and first content"),
    "gap": (_milliseconds("gap"), "ms between chunks"),
    "length": (_count("length"), "content chunks"),
    "size": (_count("chunk_size"), "characters in each chunk"),
    "tools": (_count("tool_calls"), "tool calls, when the request has tools"),
    "pings": (_count("pings"), "pings before the first content"),
    "input": (_count("input_tokens"), "input tokens"),
    "output": (_count("output_tokens"), "output tokens"),
    "cached": (_count("cached_tokens"), "cached input tokens"),
    "cachewrite": (_count("cache_write_tokens"), "cache-write tokens"),
    "reasoning": (_count("reasoning_tokens"), "reasoning tokens"),
    "nousage": (lambda _: {"usage": False}, "no usage is reported"),
    "reset": (_count("reset_after"), "RST after n content chunks; without n before the head"),
    "stall": (_count("stall_after"), "silence after n content chunks; without n before the head"),
    "truncate": (_count("truncate_after"), "the body is cut after n content chunks"),
    "eof": (_count("eof_after"), "a clean end after n content chunks, without the terminator"),
    "error": (_error, "an error event after n content chunks; 0: after the lifecycle frames; `first`: first of all"),
    "fail": (lambda text: {"fail_rate": int(text) / 100}, "per cent of calls that the rest strikes"),
    "split": (lambda text: {"chunk_split": tuple(int(n) for n in text.split("-"))}, "writes of these sizes"),
    "delta": (_count("content_length_delta"), "bytes that the content-length promises too many"),
    "framing": (lambda text: {"framing": text}, "`chunked`, `length` or `close`"),
}
"""Each knob, and what it means. The name of a fault is a knob too."""


@lru_cache(1024)
def behaviour_of(model: str) -> Behaviour:
    """The behaviour that a model name asks for. Raises `ValueError` for a knob that is none."""
    if not model.startswith(PREFIX):
        return PLAIN
    chosen: Setting = {}
    for part in model.removeprefix(PREFIX).replace(":", "+").split("+"):
        for field, value in _setting(part).items():
            chosen[field] = f"{chosen['fault']}+{value}" if field == "fault" and "fault" in chosen else value
    return msgspec.convert(chosen, Behaviour)


def _setting(part: str) -> Setting:
    name, _, text = part.partition("-")
    if name in FAULTS and not text:
        return {"fault": name}
    if name.isdecimal():
        name, text = "status", part
    try:
        return KNOBS[name][0](text)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{part!r} is no knob of a simulated model") from error
