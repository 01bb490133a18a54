"""Which request bodies have failed lately, and where: one prompt that kills a server does not prove the server ill."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

_SECONDS = 60.0
_MAX_BODIES = 8192
_MAX_READ = 1024 * 1024
"""Of a longer body its length, so many bytes of its beginning and as many of its end are read."""


class FailedBodies:
    """Bodies that failed in the last 60 s, by deployment.

    When there are more than `max_bodies`, the oldest are forgotten: by then the failures are of many different bodies.
    """

    __slots__ = ("_clock", "_max_bodies", "_until")

    def __init__(self, clock: Clock, *, max_bodies: int = _MAX_BODIES) -> None:
        self._clock = clock
        self._max_bodies = max_bodies
        self._until: dict[tuple[str, bytes], float] = {}
        """In the order in which they end."""

    def note(self, deployment: str, digest: bytes) -> bool:
        """Note a failure; returns whether it is the first of this body there in 60 s."""
        now = self._clock()
        self._forget(now)
        key = (deployment, digest)
        if key in self._until:
            return False
        if len(self._until) >= self._max_bodies:
            del self._until[next(iter(self._until))]
        self._until[key] = now + _SECONDS
        return True

    def __len__(self) -> int:
        return len(self._until)

    def _forget(self, now: float) -> None:
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                return
            del self._until[oldest]


def digest_of(body: bytes) -> bytes:
    """The same for the same request. The boundary of a form is left out, which clients draw anew each time."""
    seed = b"%d" % len(body)
    if body.startswith(b"--"):
        boundary = body[: body.find(b"\r\n")]
        body = body.replace(boundary, b"--")
        seed = b"form"
    if len(body) > 2 * _MAX_READ:
        seed += b"%d" % len(body)
        body = body[:_MAX_READ] + body[-_MAX_READ:]
    return blake2b(body, digest_size=16, key=seed).digest()
