"""Notices that a stream is alive and brings nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.errors import UpstreamTimeoutError

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

_MIN_CONTENT = 512
"""Bytes; what is longer is no ping, or part of an event that is longer still."""
_PINGS = (b"event: ping", b"event: keepalive", b"event:ping", b"event:keepalive")


class Progress:
    """How long ago the last content came. Comments, pings and keepalive events are none.

    Silence ends a stream by another deadline, so it is enough to look whenever something has come.
    """

    __slots__ = ("_at", "_clock", "_limit")

    def __init__(self, limit: float, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._at = clock()

    def check(self, chunk: bytes) -> None:
        """Something has come. Raises `UpstreamTimeoutError` when there was no content in it for too long."""
        if len(chunk) > _MIN_CONTENT or _is_unnamed(chunk) or is_content(chunk):
            self._at = self._clock()
        elif self._clock() - self._at > self._limit:
            message = f"The provider is alive and sent no content for {self._limit:g} s (content_idle)."
            raise UpstreamTimeoutError(message, phase="idle")


def _is_unnamed(chunk: bytes) -> bool:
    """Whether it is nothing but data, as most of a stream is: a ping has a name."""
    return chunk.startswith(b"data:") and chunk.find(b"event:") < 0


def is_content(chunk: bytes) -> bool:
    """Whether a short piece of a stream holds more than pings and comments."""
    fields = chunk.count(b"data:")
    return fields > sum([chunk.count(ping) for ping in _PINGS])
