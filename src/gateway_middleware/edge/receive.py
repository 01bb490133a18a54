"""What an application receives whose answer is held back until it returns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway_middleware.core.asgi import Message, Receive

_DISCONNECT = "http.disconnect"


class ReceiveUntilEnd:
    """ASGI `receive` that says `http.disconnect` once the answer has ended, as a server does.

    The server itself says so only when it has got the last message, which waits for the application to return.
    `has_left`: the client was gone before that.
    """

    __slots__ = ("_ended", "_receive", "has_left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_left = False

    def end(self) -> None:
        """The application has sent its last message."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def __call__(self) -> Message:
        inner = asyncio.ensure_future(self._receive())
        either: tuple[asyncio.Future[Any], ...] = (inner, self._ended)
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                return {"type": _DISCONNECT}
            message = inner.result()
        finally:
            inner.cancel()
        self.has_left = message["type"] == _DISCONNECT
        return message
