"""Recorded answers, played back with chosen cuts."""

from __future__ import annotations

from collections.abc import Iterator

from gateway_middleware.simulator.behaviour import Behaviour, Framing, Replay
from gateway_middleware.simulator.heads import status_line
from gateway_middleware.simulator.script import End, Step, batched, framed

_ENDS = {"cut": End.CLOSE, "reset": End.RESET, "stall": End.STALL}
_OWN = frozenset({"content-length", "transfer-encoding", "connection"})
"""Headers that the framing decides."""


def replay_script(behaviour: Behaviour, replay: Replay) -> Iterator[Step]:
    """All steps. `ttft` and `gap` of the behaviour hold; a cut, reset or stalled body never ends its framing."""
    return batched(_steps(behaviour, replay))


def _steps(behaviour: Behaviour, replay: Replay) -> Iterator[Step]:
    if behaviour.ttft:
        yield behaviour.ttft
    framing = _framing(replay)
    yield _head(replay, framing)
    yield from framed(_pieces(behaviour, replay), framing)


def _framing(replay: Replay) -> Framing:
    if replay.framing != "auto":
        return replay.framing
    is_events = any(n.lower() == "content-type" and "event-stream" in value for n, value in replay.headers)
    return "chunked" if is_events else "length"


def _head(replay: Replay, framing: Framing) -> bytes:
    lines = [f"{n}: {value}\r\n".encode() for n, value in replay.headers if n.lower() not in _OWN]
    ends = {"chunked": b"transfer-encoding: chunked", "close": b"connection: close"}
    promised = len(replay.body) + (replay.end != "clean")
    lines.append(ends.get(framing, b"content-length: %d" % promised) + b"\r\n\r\n")
    return status_line(replay.status) + b"".join(lines)


def _pieces(behaviour: Behaviour, replay: Replay) -> Iterator[Step]:
    offsets = _offsets(replay)
    for at, (start, end) in enumerate(zip([0, *offsets], [*offsets, len(replay.body)], strict=True)):
        if at:
            yield behaviour.gap
        yield replay.body[start:end]
    if replay.end != "clean":
        yield 0.01
        yield _ENDS[replay.end]


def _offsets(replay: Replay) -> list[int]:
    if replay.cut == "whole":
        return []
    if replay.cut == "bytes":
        return list(range(1, len(replay.body)))
    return sorted({min(at, len(replay.body)) for at in replay.cut})
