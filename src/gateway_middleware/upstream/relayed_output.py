"""What was relayed of an answer, kept until it is known whether anybody has to count it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway_middleware.core.domain import Surface

_MAX_UNCOUNTED_BYTES = 32 * 1024


class OutputCounter(Protocol):
    """Estimates output tokens from whole events."""

    @property
    def tokens(self) -> int:
        """So far."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take whole events."""
        ...


OutputCounterFactory = Callable[[Surface, str], OutputCounter]


class OutputTally:
    """Counts lazily: most answers end with the provider's own numbers, and then nothing was counted."""

    __slots__ = ("_counter", "_make", "_model", "_size", "_surface", "_waiting")

    def __init__(self, make: OutputCounterFactory | None, surface: Surface, model: str) -> None:
        self._make = make
        self._surface = surface
        self._model = model
        self._counter: OutputCounter | None = None
        self._waiting: list[bytes] = []
        self._size = 0

    def add(self, events: bytes) -> None:
        """Whole events that go to the client."""
        self._waiting.append(events)
        self._size += len(events)
        if self._size > _MAX_UNCOUNTED_BYTES:
            self._count()

    def add_whole(self, body: bytes) -> None:
        """A whole answer in JSON."""
        self.add(b"data: " + body.replace(b"\n", b" ") + b"\n\n")

    def tokens(self) -> int | None:
        """The estimate for everything; None where nothing was relayed, or nobody estimates."""
        if not self._waiting and self._counter is None:
            return None
        self._count()
        return None if self._counter is None else self._counter.tokens

    def _count(self) -> None:
        if self._make is not None:
            if self._counter is None:
                self._counter = self._make(self._surface, self._model)
            self._counter.feed(b"".join(self._waiting))
        self._waiting, self._size = [], 0
