"""Answers that the protocol makes itself, without asking the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from gateway_middleware.core.domain import HeaderList

Refuse: TypeAlias = "Callable[[Refusal], tuple[HeaderList, bytes]]"
"""Makes the headers and the body of a refusal. `content-length` and `connection` are added by the protocol."""

_MAX_LINES = 100


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refused request: `method`, `target` and `headers` are what could be read of it, possibly nothing.

    `retry_after` is in seconds; None where the same request would be refused again.
    """

    status: int
    message: str
    retry_after: float | None = None
    method: bytes = b""
    target: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class RefusedRequestError(Exception):
    """The request cannot be served: its status and the reason, in words for the client."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def refusal_of(error: RefusedRequestError, head: bytes) -> Refusal:
    """The refusal of a request of which `head` has been received: perhaps broken, perhaps not whole."""
    lines = head.split(b"\r\n", _MAX_LINES)[:_MAX_LINES]
    words = lines[0].split(b" ")
    pairs = (line.partition(b":") for line in lines[1:])
    return Refusal(
        status=error.status,
        message=error.message,
        retry_after=error.retry_after,
        method=words[0],
        target=words[1] if len(words) > 1 else b"",
        headers=tuple((name.lower(), value.strip()) for name, colon, value in pairs if colon),
    )


def plain_refusal(refusal: Refusal) -> tuple[HeaderList, bytes]:
    """The reason as plain text."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(refusal.retry_after))))
    return headers, refusal.message.encode()
