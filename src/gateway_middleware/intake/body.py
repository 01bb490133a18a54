"""Reads a request body of at most so many bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import ClientDisconnectedError, InvalidRequestError, RequestTooLargeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import Message, Receive

SMALL_BODY = 64 * 1024
"""Up to so many bytes a body waits for no other one."""


async def read_body(
    declared: bytes | None,
    receive: Receive,
    *,
    limit: int,
    on_bytes: Callable[[int], None] | None = None,
    take_turn: Callable[[int], Awaitable[None]] | None = None,
) -> bytes:
    """The whole body. A declared length (the content-length header) over the limit is refused unread.

    `on_bytes` is told of each piece that came, and may refuse it by an exception. `take_turn` is called once, before
    more than 64 KiB are read, with the length of the body, or `limit` where none was declared. Raises
    `RequestTooLargeError`, `InvalidRequestError` (a length that is none) and `ClientDisconnectedError`.
    """
    length = _check_declared(declared, limit)
    if take_turn is not None and length > SMALL_BODY:
        await take_turn(length)
        take_turn = None
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    first: bytes = message.get("body", b"")
    size = len(first) if len(first) <= limit else _within(len(first), limit)
    if on_bytes is not None:
        on_bytes(size)
    if not message.get("more_body", False):
        return first
    whole = io.BytesIO(bytes(length) if length > SMALL_BODY else b"")  # it becomes the body without a copy
    whole.write(first)
    await _read_on(whole, size, receive, limit=limit, on_bytes=on_bytes, take_turn=take_turn)
    whole.truncate()
    return whole.getvalue()


async def _read_on(
    whole: io.BytesIO,
    size: int,
    receive: Receive,
    *,
    limit: int,
    on_bytes: Callable[[int], None] | None,
    take_turn: Callable[[int], Awaitable[None]] | None,
) -> None:
    """The pieces after the first `size` bytes."""
    has_more = True
    while has_more:
        if take_turn is not None and size > SMALL_BODY:
            await take_turn(limit)
            take_turn = None
        message = await receive()
        piece = _piece(message)
        size = _within(size + len(piece), limit)
        if on_bytes is not None:
            on_bytes(len(piece))
        whole.write(piece)
        has_more = message.get("more_body", False)


def _check_declared(declared: bytes | None, limit: int) -> int:
    if declared is None:
        return 0
    if not declared.isdigit():
        raise InvalidRequestError("The content-length header is not a number.")
    if len(declared) > 18 or int(declared) > limit:
        raise _too_large(limit)
    return int(declared)


def _piece(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    body: bytes = message.get("body", b"")
    return body


def _within(size: int, limit: int) -> int:
    if size > limit:
        raise _too_large(limit)
    return size


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The request body is longer than {limit} bytes.")
