"""Turns an answer and a behaviour into steps for the connection: bytes, pauses, cuts. Opens no socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import cycle
from random import Random
from typing import TypeAlias

from gateway_middleware.simulator.answer import Answer
from gateway_middleware.simulator.behaviour import Behaviour, Framing


class End(Enum):
    """How a script ends when the connection is not to be kept."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"
    STALE = "stale"
    """Kept until the next request, and closed then."""


Step: TypeAlias = bytes | float | End
"""Bytes to write, seconds to wait (0: let the loop turn, so that the write is one of its own), or an end."""

BATCH = 1 << 16
_BEFORE_RESET = 0.01
"""Lets the peer read what came before; a reset may throw away what it has not read."""
_HTML = b"<!doctype html><html><head><title>502</title></head><body><h1>Bad gateway, says a proxy</h1></body></html>"
_GARBAGE = b"\x16\x03\x01\x00\xffSMTP/9.9 hello?\r\n\x00\r\n"
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </hint>; rel=preload\r\n\r\n"
_SURPLUS = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{"surplus": 1}'
_INSTEAD = {"reset": End.RESET, "close": End.CLOSE, "stall": End.STALL}


def disguised(answer: Answer, behaviour: Behaviour) -> Answer:
    """The answer after the faults that replace its content."""
    faults = behaviour.faults
    if "html" in faults:
        return Answer(content_type=b"text/html; charset=utf-8", body=_HTML)
    if "empty" in faults:
        return Answer(status=answer.status, content_type=answer.content_type)
    return answer


def script(head: bytes, answer: Answer, behaviour: Behaviour, random: Random) -> Iterator[Step]:
    """All steps. `head` has the status line and headers, without framing and the blank line."""
    steps = _all_steps(head, answer, behaviour, random)
    if "drip" in behaviour.faults:
        steps = _dripped(steps)
    return batched(steps)


def _all_steps(head: bytes, answer: Answer, behaviour: Behaviour, random: Random) -> Iterator[Step]:
    faults = behaviour.faults
    if behaviour.ttft:
        yield behaviour.ttft
    for name, end in _INSTEAD.items():
        if name in faults:
            yield end
            return
    if "garbage" in faults:
        yield from (_GARBAGE, End.CLOSE)
        return
    if "informational" in faults:
        yield _EARLY_HINTS
    yield from _message(head, answer, behaviour, random)
    yield from _afterwards(faults)


def _afterwards(faults: frozenset[str]) -> Iterator[Step]:
    if "surplus" in faults:
        yield _SURPLUS
    if "close_after" in faults:
        yield End.CLOSE
    if "stale" in faults:
        yield End.STALE


def _message(head: bytes, answer: Answer, behaviour: Behaviour, random: Random) -> Iterator[Step]:
    length, pieces = _pieces(answer, behaviour, random)
    framing = _framing(answer, behaviour)
    head += _framing_header(framing, length + behaviour.content_length_delta)
    if "cut_head" in behaviour.faults:
        yield from (head[: len(head) // 2], End.CLOSE)
        return
    yield head
    if "stall_head" in behaviour.faults:
        yield End.STALL
        return
    if behaviour.chunk_split:
        pieces = _split(pieces, behaviour.chunk_split)
    yield from framed(pieces, framing)
    if behaviour.content_length_delta:
        yield End.CLOSE


def _framing(answer: Answer, behaviour: Behaviour) -> Framing:
    if behaviour.content_length_delta:
        return "length"
    if behaviour.framing != "auto":
        return behaviour.framing
    return "chunked" if answer.stream is not None else "length"


def _framing_header(framing: Framing, length: int) -> bytes:
    if framing == "chunked":
        return b"transfer-encoding: chunked\r\n\r\n"
    return b"connection: close\r\n\r\n" if framing == "close" else b"content-length: %d\r\n\r\n" % max(length, 0)


def _pieces(answer: Answer, behaviour: Behaviour, random: Random) -> tuple[int, Iterator[Step]]:
    """The length that is announced where it is, and the steps of the body without framing."""
    if answer.stream is None:
        body = _spoilt(answer.body, behaviour)
        return len(body), _body_steps(body, behaviour)
    steps = _stream_steps(answer, behaviour, random)
    if _framing(answer, behaviour) != "length":
        return 0, steps
    whole = list(steps)
    body = b"".join(step for step in whole if isinstance(step, bytes))
    ends = [step for step in whole if isinstance(step, End)]
    return len(body) + len(ends), iter([body, *ends])


def _spoilt(body: bytes, behaviour: Behaviour) -> bytes:
    """Half of the JSON, where only the content is to be wrong and HTTP is right."""
    is_half = "malformed" in behaviour.faults or behaviour.eof_after is not None
    return body[: len(body) // 2] if is_half else body


def _body_steps(body: bytes, behaviour: Behaviour) -> Iterator[Step]:
    cut = _cut(behaviour)
    if cut is None or cut[1] is None or isinstance(cut[1], bytes):
        yield body
        return
    yield body[: len(body) // 2]
    yield from _ending(cut[1])


Cut: TypeAlias = tuple[int, End | bytes | None]
"""After how many content chunks, and how: an end, an error event (`b""`), or nothing more."""


def _cut(behaviour: Behaviour) -> Cut | None:
    faults: list[tuple[int | None, End | bytes | None]] = [
        (behaviour.reset_after, End.RESET),
        (behaviour.truncate_after, End.CLOSE),
        (behaviour.stall_after, End.STALL),
        (behaviour.eof_after, None),
        (behaviour.error_after, b""),
    ]
    chosen = [(at, how) for at, how in faults if at is not None]
    return min(chosen, key=lambda each: each[0]) if chosen else None


def _ending(how: End) -> Iterator[Step]:
    if how is End.RESET:
        yield _BEFORE_RESET
    yield how


def _stream_steps(answer: Answer, behaviour: Behaviour, random: Random) -> Iterator[Step]:
    stream = answer.stream
    if stream is None:
        return
    cut = _cut(behaviour)
    if cut is not None and cut[0] < 0:
        yield stream.error()
        return
    yield stream.opening
    for _ in range(behaviour.pings):
        yield from (stream.ping, behaviour.gap)
    if behaviour.content_delay:
        yield behaviour.content_delay
    yield from _content_steps(answer, behaviour, random, None if cut is None else cut[0])
    if cut is None:
        yield from [behaviour.gap] if behaviour.gap else []
        yield from stream.closing
    elif isinstance(cut[1], End):
        yield from _ending(cut[1])
    elif cut[1] is not None:
        yield stream.error()


def _content_steps(answer: Answer, behaviour: Behaviour, random: Random, limit: int | None) -> Iterator[Step]:
    stream = answer.stream
    if stream is None or limit == 0:
        return
    yield b"".join(stream.lead)
    is_malformed = "malformed" in behaviour.faults
    for sent, piece in enumerate(stream.content, 1):
        if sent > 1 and behaviour.gap:
            yield behaviour.gap * (1 + behaviour.jitter * random.uniform(-1, 1))
        yield piece
        if sent == 1 and is_malformed:
            yield stream.broken
        if sent == limit:
            return


def framed(pieces: Iterable[Step], framing: Framing) -> Iterator[Step]:
    """The body on the wire. An end that comes from within leaves the framing incomplete."""
    for step in pieces:
        if isinstance(step, End):
            yield step
            return
        if framing == "chunked" and isinstance(step, bytes):
            if step:
                yield b"%x\r\n%b\r\n" % (len(step), step)
        else:
            yield step
    if framing == "chunked":
        yield b"0\r\n\r\n"
    elif framing == "close":
        yield End.CLOSE


def _split(pieces: Iterable[Step], sizes: tuple[int, ...]) -> Iterator[Step]:
    """The same bytes in writes of these sizes, over and over."""
    turns = cycle(sizes)
    for step in batched(pieces):
        if not isinstance(step, bytes):
            yield step
            continue
        at = 0
        while at < len(step):
            size = next(turns)
            yield step[at : at + size]
            yield 0.0
            at += size


def _dripped(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, bytes):
            for at in range(len(step)):
                yield step[at : at + 1]
                yield 0.0
        else:
            yield step


def batched(steps: Iterable[Step]) -> Iterator[Step]:
    """Neighbouring bytes in one write, of about 64 KiB at most."""
    waiting: list[bytes] = []
    size = 0
    for step in steps:
        if isinstance(step, bytes):
            waiting.append(step)
            size += len(step)
            if size < BATCH:
                continue
        if waiting:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
        if not isinstance(step, bytes):
            yield step
    if waiting:
        yield b"".join(waiting)
