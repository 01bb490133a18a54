"""The way of an answer back to its client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.core.asgi import ends_response
from gateway_middleware.core.stepping import in_time
from gateway_middleware.edge.answer_headers import answer_headers
from gateway_middleware.edge.receive import ReceiveUntilEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import Message, Receive, Send
    from gateway_middleware.core.domain import Clock, HeaderList
    from gateway_middleware.core.price import Cost
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.edge.answer_headers import DeploymentHeaders

_CLIENT_ERROR = 400
_REQUEST_TIMEOUT = 408
_SEQUENCE_NUMBERS = re.compile(rb'(?<!\\)"sequence_number":\s*(\d{1,9})')
"""Quotes inside of JSON texts have a backslash before them."""
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Reply:
    """The way back to the client: notes what passes, adds the headers that every answer carries, holds back its end.

    The last message goes out when all layers inside have returned, so that a client that has seen the end of its
    answer can rely on everything it took having been given back.
    """

    __slots__ = (
        "_can_close",
        "_clock",
        "_closes",
        "_deployments",
        "_has_trailers",
        "_last",
        "_newest",
        "_number",
        "_price",
        "_receive",
        "_record",
        "_send",
        "is_ended",
        "is_event_stream",
        "is_under_way",
        "status",
    )

    def __init__(
        self,
        record: CallRecord,
        send: Send,
        clock: Clock,
        *,
        can_close: bool,
        is_leaving: bool,
        price: Callable[[CallRecord], Cost | None],
        deployments: DeploymentHeaders,
    ) -> None:
        self._record = record
        self._send = send
        self._clock = clock
        self._can_close = can_close
        self._closes = can_close and is_leaving
        self._price = price
        self._deployments = deployments
        self._newest = b""
        self._number = 0
        self._last: Message | None = None
        self._has_trailers = False
        self._receive: ReceiveUntilEnd | None = None
        self.status = 0
        self.is_event_stream = False
        self.is_ended = self.is_under_way = False

    def receive_until_end(self, receive: Receive) -> Receive:
        """What a foreign application receives: it may wait for the end of the answer that is held back here."""
        self._receive = ReceiveUntilEnd(receive)
        return self._receive

    @property
    def has_lost_client(self) -> bool:
        """Whether a foreign application was told that its client is gone."""
        return self._receive is not None and self._receive.has_left

    @property
    def is_started(self) -> bool:
        return self.status != 0

    @property
    def is_between_events(self) -> bool:
        return not self._newest or self._newest.endswith(_BLANK_LINES)

    @property
    def next_number(self) -> int:
        """What follows the last `sequence_number` that was sent."""
        numbers = _SEQUENCE_NUMBERS.findall(self._newest)
        return int(numbers[-1]) + 1 if numbers else self._number

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on, unless it is the last. No coroutine of its own: a stream has many messages.

        Raises `RuntimeError`, as servers do, for a message after the last.
        """
        if self.is_ended:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}' sent, after response already completed.")
        if message["type"] == "http.response.start":
            return self._send(self._start(message))
        body = message.get("body")
        if body:
            self._record.bytes_out += len(body)
            if not body.startswith(b":"):  # a comment of ours stands between events
                if self.is_event_stream and not self.is_between_events:
                    self._number = self.next_number  # of a large event that comes in pieces
                self._newest = body
        if not message.get("more_body", False) and self._is_last(message):
            self.is_ended = True
            self._last = message
            if self._receive is not None:
                self._receive.end()
            return _nothing()
        self.is_under_way = True
        return self._send(message)

    def _is_last(self, message: Message) -> bool:
        if self._has_trailers:
            return message["type"] == "http.response.trailers" and not message.get("more_trailers", False)
        return ends_response(message)

    def _start(self, message: Message) -> Message:
        record, now = self._record, self._clock()
        self.status = record.status = message["status"]
        self._has_trailers = message.get("trailers", False)
        record.first_byte = now
        headers: HeaderList = list(message.get("headers", ()))
        self.is_event_stream = dict(headers).get(b"content-type", b"").startswith(b"text/event-stream")
        headers += record.limit_headers
        cost = self._price(record) if self.status < _CLIENT_ERROR else None
        headers += answer_headers(record, now, cost, deployments=self._deployments)
        if self._closes or (self.status == _REQUEST_TIMEOUT and self._can_close):
            headers.append((b"connection", b"close"))
        return {**message, "headers": headers}

    def forget_last(self) -> None:
        """Nobody is there to take the end of the answer."""
        if self._last is not None:
            self._record.bytes_out -= len(self._last.get("body", b""))
            self._last = None
            self.is_ended = self.is_under_way = False

    async def send_last(self, stall: float) -> None:
        """Send the message that ends the answer. A client that does not take that of a stream is cut off."""
        message, self._last = self._last, None
        if message is not None:
            await (in_time(self._send(message), stall) if self.is_under_way else self._send(message))


async def _nothing() -> None:
    """The last message is held back."""
