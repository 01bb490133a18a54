"""The layer that tells clients of streams what their answer has cost, where they ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.scope import RECORD, REQUEST
from gateway_middleware.metering.stream_cost.costed_events import CostedEvents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway_middleware.core.price import Cost
    from gateway_middleware.core.record import CallRecord

_EVENTS = b"text/event-stream"


class StreamCostMiddleware:
    """Adds `cost` to the last usage object of the streams of requests that ask for it; everything else passes as it is.

    `price` says what an answer costs that has come to its end, None where that is not known.
    """

    def __init__(self, app: ASGIApp, *, price: Callable[[CallRecord], Cost | None]) -> None:
        self.app = app
        self._price = price

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope) if scope["type"] == "http" else None
        if request is None or not request.shows_cost:
            return self.app(scope, receive, send)
        return self._costed(scope, receive, send)

    async def _costed(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _CostedAnswer(send, RECORD.get(scope), self._price)
        try:
            await self.app(scope, receive, answer.send)
        except Exception:
            await answer.release()
            raise


class _CostedAnswer:
    """One answer on its way out."""

    def __init__(self, send: Send, record: CallRecord, price: Callable[[CallRecord], Cost | None]) -> None:
        self._send = send
        self._record = record
        self._price = price
        self._events: CostedEvents | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            self._events = CostedEvents() if kinds and kinds[0].startswith(_EVENTS) else None
            await self._send(message)
        elif self._events is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            await self._pass_on(self._events, message)

    async def _pass_on(self, events: CostedEvents, message: Message) -> None:
        chunk = message.get("body", b"")
        if not message.get("more_body", False):
            cost = self._price(self._record)
            ending = events.finish(chunk, None if cost is None else cost.text.encode())
            await self._send({**message, "body": ending})
        elif ready := events.feed(chunk):
            await self._send({**message, "body": ready})

    async def release(self) -> None:
        """The answer has broken off: what is held goes out as it came."""
        rest = b"" if self._events is None else self._events.release()
        if rest:
            await self._send({"type": "http.response.body", "body": rest, "more_body": True})
