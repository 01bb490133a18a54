"""One request and its answer: what the application receives and sends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from gateway_middleware.core.asgi import ASGIApp
from gateway_middleware.core.domain import Clock
from gateway_middleware.core.pace import Pace
from gateway_middleware.serving.http.answer import Answer
from gateway_middleware.serving.http.door import Door
from gateway_middleware.serving.http.framing import NO_MORE, body_framing
from gateway_middleware.serving.http.head import RequestHead
from gateway_middleware.serving.http.refusal import RefusedRequestError
from gateway_middleware.serving.http.waiters import Waiters

_log = logging.getLogger("uvicorn.error")  # where those who run uvicorn look
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SLICE = 32 * 1024  # of a large body, written while the socket takes it
_NEVER = float("inf")
_FAILED = RefusedRequestError(500, "Internal Server Error")


class Link(Protocol):
    """What an exchange needs of its connection."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    door: Door
    deadline: float
    is_read_paused: bool
    is_write_paused: bool
    writable: Waiters
    changed: Waiters
    """Woken when more of a request has come, when its client leaves and when it is answered."""

    def write(self, data: bytes) -> None: ...

    def write_soon(self) -> None:
        """Have the head of the answer written at the end of this turn of the loop, if it was not before."""
        ...

    def regulate(self) -> None:
        """Read on, or no further: what is unread has changed."""
        ...

    def default_lines(self) -> bytes:
        """The lines of headers that every answer has."""
        ...

    def finish(self, exchange: Exchange) -> None:
        """The answer is complete and written."""
        ...

    def refuse(self, error: RefusedRequestError) -> None:
        """Answer the current request in the application's place, and end the connection."""
        ...

    def cut(self, exchange: Exchange) -> None:
        """End the connection in the middle of the answer."""
        ...


class Exchange:
    """Lives from the end of a head to the return of the application.

    `body` is the whole body, which the door has counted already; None: it is still to come, or there is none.
    `has_left`: nobody waits for the answer any more. `is_finished`: the answer is complete. `unwritten_head`: that of
    the answer, until it is written.
    """

    __slots__ = (
        "_counted",
        "_expects_continue",
        "_has_given_end",
        "_link",
        "_pace",
        "answer",
        "framing",
        "has_left",
        "head",
        "is_finished",
        "scope",
        "unread",
        "unwritten_head",
    )

    def __init__(self, link: Link, head: RequestHead, scope: dict[str, Any], body: bytes | None = None) -> None:
        door = link.door
        self._link = link
        self.head = head
        self.scope = scope
        if body is None:
            self.framing = body_framing(head.content_length, door.limits.max_head_bytes)
        else:
            self.framing = NO_MORE
        self.answer = Answer(method=head.method, version=head.version, keep_alive=head.keep_alive, forms=door.forms)
        self._pace: Pace | None = None
        self.unread: bytes | bytearray = body or b""  # what the application has not received yet
        self._counted = len(self.unread)
        self._expects_continue = head.expects_continue and not self.framing.is_whole
        self.unwritten_head = b""
        self._has_given_end = self.has_left = self.is_finished = False

    # What the connection tells.

    @property
    def received_bytes(self) -> int:
        """What has come of the body."""
        return self._counted

    @property
    def has_begun_to_answer(self) -> bool:
        """Whether anything of the answer was written."""
        return self.answer.is_started and not self.unwritten_head

    def feed(self, data: bytes) -> bytes:
        """Take what came after the head; what follows the body is given back. Raises `RefusedRequestError`."""
        body, rest = self.framing.feed(data)
        if body:
            self._store(body)
        if body or self.framing.is_whole:
            self._link.changed.wake()
        return rest

    def _store(self, body: bytes) -> None:
        self._expects_continue = False
        if not self._link.door.take(len(body)):
            raise RefusedRequestError(503, "Too many request bodies are under way.", retry_after=1.0)
        self._counted += len(body)
        if self._pace is not None:
            self._pace.count(len(body), self._link.clock())
        if not self.unread:
            self.unread = body
            return
        if isinstance(self.unread, bytes):
            self.unread = bytearray(self.unread)
        self.unread += body

    def leave(self) -> None:
        """The client is gone, or was answered without the application."""
        self.has_left = True
        self.unwritten_head = b""
        self._link.changed.wake()
        self._link.writable.wake()

    def is_too_slow(self, now: float) -> bool:
        """Whether the body has not moved while the application waited for it; else a new deadline is set."""
        if self._pace is None or self._pace.is_too_slow(now):
            return True
        self._link.deadline = self._pace.start(now)
        return False

    # The application.

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and answer for it when it does not."""
        try:
            result: object = await app(self.scope, self.receive, self.send)  # type: ignore[func-returns-value]
        except Exception as error:  # noqa: BLE001 - whatever an application raises
            _log.error("Exception in ASGI application\n", exc_info=error)
            self._fail()
        except BaseException:
            self._fail(RefusedRequestError(503, "The server is shutting down.", retry_after=1.0))
            raise
        else:
            if result is not None or not (self.is_finished or self.has_left):
                self._check_end(result)
        finally:
            self._link.door.give_back(self._counted)

    def _check_end(self, result: object) -> None:
        if result is not None:
            _log.error("ASGI callable should return None, but returned '%s'.", result)
        if not self.is_finished and not self.has_left:
            what = "completing" if self.answer.is_started else "starting"
            _log.error("ASGI callable returned without %s response.", what)
            self._fail()

    def _fail(self, error: RefusedRequestError = _FAILED) -> None:
        if self.is_finished or self.has_left:
            return
        if self.has_begun_to_answer:
            self._link.cut(self)
        else:
            self._link.refuse(error)

    async def receive(self) -> dict[str, Any]:
        """ASGI `receive`. After the body has been given out it waits until the client leaves or is answered."""
        if self._expects_continue and not self.has_left:
            self._expects_continue = False
            self._link.write(_CONTINUE)
        while not (self.has_left or self.is_finished):
            if self.unread or (self.framing.is_whole and not self._has_given_end):
                return self._take()
            if self.framing.is_whole:
                await self._link.changed.wait()
            else:
                await self._wait_for_body()
        return {"type": "http.disconnect"}

    def _take(self) -> dict[str, Any]:
        body, self.unread = self.unread, b""
        self._has_given_end = is_whole = self.framing.is_whole
        if self._link.is_read_paused:
            self._link.regulate()
        return {"type": "http.request", "body": bytes(body), "more_body": not is_whole}

    async def _wait_for_body(self) -> None:
        link, pace = self._link, self._pace
        if pace is None:
            limits = link.door.limits
            pace = self._pace = Pace(limits.body_seconds, limits.min_body_rate)
        link.deadline = pace.start(link.clock())
        try:
            await self._link.changed.wait()
        finally:
            pace.stop(link.clock())
            if not (self.has_left or self.is_finished):
                link.deadline = _NEVER

    async def send(self, message: Any) -> None:
        """ASGI `send`. Waits while the client does not read; after it has left, nothing is sent."""
        link = self._link
        if link.is_write_paused and not self.has_left:
            await link.writable.wait()
        if self.has_left:
            return
        if not self.answer.is_started:
            self._start(message)
            return
        before, body, after = self.answer.body(message)
        head, self.unwritten_head = self.unwritten_head, b""
        if len(body) <= _SLICE:
            if data := b"".join((head, before, body, after)):
                link.write(data)
        else:
            await self._write_slices(head + before, memoryview(body), after)
        if self.answer.is_complete and not self.has_left:
            self._finish()

    def _start(self, message: Any) -> None:
        """Make the head. It goes out with the body, or at the end of this turn of the loop if there is none by then."""
        answer = self.answer
        if not self.framing.is_whole:
            answer.keep_alive = False
        self.unwritten_head = answer.start(message, self._link.default_lines())
        self._expects_continue = False
        self._link.write_soon()

    async def _write_slices(self, before: bytes, body: memoryview, after: bytes) -> None:
        link = self._link
        link.write(before + body[:_SLICE])
        for at in range(_SLICE, len(body), _SLICE):
            if link.is_write_paused:
                await link.writable.wait()
            if self.has_left:
                return
            link.write(bytes(body[at : at + _SLICE]))  # a view would hold all of the body while the client stalls
        if after:
            link.write(after)

    def _finish(self) -> None:
        self.is_finished = True
        self._link.changed.wake()
        self._link.finish(self)
