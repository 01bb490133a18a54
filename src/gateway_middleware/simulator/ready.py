"""A cache of plain answers for one second, so that the simulator is no bottleneck of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.simulator.answer import Task
from gateway_middleware.simulator.record import Received, Request
from gateway_middleware.simulator.script import Step

_MAX_ANSWERS = 512
_MAX_BODY_BYTES = 1 << 14
_Key: TypeAlias = tuple[bytes, tuple[tuple[bytes, bytes], ...], bytes]


class Ready(msgspec.Struct, frozen=True):
    """A whole answer on the wire, split around its number, and what the log says of it."""

    pieces: list[bytes]
    provider: str
    surface: str
    model: str
    task: Task | None
    """Of a response that is stored."""

    def numbered(self, number: str) -> bytes:
        """The answer with a number of its own."""
        return number.encode().join(self.pieces)


class ReadyAnswers:
    """Good answers by request. Numbers all have one length, so that one can stand for another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = 0
        self._answers: dict[_Key, Ready] = {}

    def find(self, request: Request) -> Ready | None:
        """The answer that the same request had in this second."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._answers.clear()
        return self._answers.get(_key(request)) if request.method == "POST" else None

    def keep(self, request: Request, answer: bytes, entry: Received, *, number: str, task: Task | None) -> None:
        """Remember an answer, unless there are many or the request is large."""
        if len(self._answers) < _MAX_ANSWERS and request.method == "POST" and len(request.body) <= _MAX_BODY_BYTES:
            pieces = answer.split(number.encode())
            self._answers[_key(request)] = Ready(pieces, entry.provider, entry.surface, entry.model, task)


def _key(request: Request) -> _Key:
    return request.target, tuple(request.headers), request.body


def whole(steps: bytes | Iterator[Step]) -> bytes:
    """All of a plain answer in one piece: it has no waits and no ends."""
    return steps if isinstance(steps, bytes) else b"".join(step for step in steps if isinstance(step, bytes))
