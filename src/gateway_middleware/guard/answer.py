"""What stands between the answer of a call and its client: shows it to guards, in the way of its kind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import GatewayError, UpstreamProtocolError
from gateway_middleware.guard.port import Part, Stage
from gateway_middleware.guard.stream import GuardedStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import Message, Receive, Send
    from gateway_middleware.guard.rules import Guarding

    Check = Callable[[Stage, Part, str], Awaitable[str | None]]

_OK = range(200, 300)
_LENGTH = b"content-length"


class GuardedAnswer:
    """`send` and `receive` of the app inside. Answers that are no success, or neither JSON nor events, pass.

    A whole answer is held until guards have seen it (`max_bytes` at most), a stream by windows. What refuses is kept:
    from then on nothing goes to the client, and the app inside is told that the client has left, so that the provider
    is left at once; `raise_refusal` raises it when that has returned.
    """

    def __init__(self, send: Send, receive: Receive, *, check: Check, rules: Guarding, max_bytes: int) -> None:
        self._send = send
        self._receive = receive
        self._check = check
        self._rules = rules
        self._max_bytes = max_bytes
        self._start: Message | None = None
        self._held = bytearray()
        self._stream: GuardedStream | None = None
        self._refusal: GatewayError | None = None
        self._refused = asyncio.Event()

    @property
    def has_refused(self) -> bool:
        """Whether a guard has refused the answer."""
        return self._refusal is not None

    def raise_refusal(self) -> None:
        """Raises what a guard has refused the answer with."""
        if self._refusal is not None:
            raise self._refusal

    async def receive(self) -> Message:
        """The client's next message, or that it has left when a guard has refused its answer."""
        if self._refusal is not None:
            return {"type": "http.disconnect"}
        asked, refused = asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait((asked, refused), return_when=asyncio.FIRST_COMPLETED)
            return await asked if asked.done() else {"type": "http.disconnect"}
        finally:
            asked.cancel()
            refused.cancel()

    async def send(self, message: Message) -> None:
        """Take a message of the answer."""
        if self._refusal is not None:
            return
        try:
            await self._take(message)
        except GatewayError as refusal:
            self._refusal = refusal
            self._refused.set()

    async def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._stream is not None:
            await self._take_events(self._stream, message)
        elif self._start is not None:
            await self._take_whole(self._start, message)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        content_type = dict(message.get("headers", ())).get(b"content-type", b"").lower()
        if message["status"] in _OK and content_type.startswith(b"text/event-stream"):
            rules = [rule for rule in self._rules.of(Stage.STREAM) if not rule.is_shadow] or self._rules.of(
                Stage.STREAM
            )
            if rules:
                window, overlap = min(rule.window for rule in rules), max(rule.overlap for rule in rules)
                check = self._check
                self._stream = GuardedStream(
                    lambda part, text: check(Stage.STREAM, part, text), window=window, overlap=overlap
                )
            await self._send(message)
        elif message["status"] in _OK and b"json" in content_type and self._rules.of(Stage.ANSWER):
            self._start = message
        else:
            await self._send(message)

    async def _take_events(self, stream: GuardedStream, message: Message) -> None:
        is_last = not message.get("more_body", False)
        body = await stream.feed(message.get("body", b""))
        if is_last:
            body += await stream.finish()
        if body or is_last:
            await self._send({**message, "body": body})

    async def _take_whole(self, start: Message, message: Message) -> None:
        self._held += message.get("body", b"")
        if len(self._held) > self._max_bytes:
            raise UpstreamProtocolError("The answer is larger than guards are shown.")
        if message.get("more_body", False):
            return
        body = bytes(self._held)
        replacement = await self._check(Stage.ANSWER, Part.BODY, body.decode("utf-8", "replace"))
        if replacement is not None:
            body = replacement.encode()
            start = {**start, "headers": [*_without_length(start), (_LENGTH, b"%d" % len(body))]}
        await self._send(start)
        await self._send({**message, "body": body})


def _without_length(start: Message) -> list[tuple[bytes, bytes]]:
    return [pair for pair in start.get("headers", ()) if pair[0] != _LENGTH]
