"""Reads a request body of at most so many bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.errors import ClientDisconnectedError, InvalidRequestError, RequestTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.asgi import Message, Receive


async def read_body(
    declared: bytes | None, receive: Receive, *, limit: int, on_bytes: Callable[[int], None] | None = None
) -> bytes:
    """The whole body. A declared length (the content-length header) over the limit is refused unread.

    `on_bytes` is told of each piece that came, and may refuse it by an exception. Raises `RequestTooLargeError`,
    `InvalidRequestError` (a length that is none) and `ClientDisconnectedError`.
    """
    _check_declared(declared, limit)
    message = await receive()
    pieces = [_within(_piece(message), limit)]
    size = len(pieces[0])
    if on_bytes is not None:
        on_bytes(size)
    while message.get("more_body", False):
        message = await receive()
        pieces.append(_piece(message))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        if on_bytes is not None:
            on_bytes(len(pieces[-1]))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_declared(declared: bytes | None, limit: int) -> None:
    if declared is None:
        return
    if not declared.isdigit():
        raise InvalidRequestError("The content-length header is not a number.")
    if len(declared) > 18 or int(declared) > limit:
        raise _too_large(limit)


def _piece(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    body: bytes = message.get("body", b"")
    return body


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The request body is longer than {limit} bytes.")
