"""One HTTP/1.1 connection of a client: the class that uvicorn makes for each."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from gateway_middleware.core.domain import Clock
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.serving.http.answer import whole_answer
from gateway_middleware.serving.http.door import Door
from gateway_middleware.serving.http.exchange import Exchange
from gateway_middleware.serving.http.head import RequestHead, check_beginning, read_head, too_long
from gateway_middleware.serving.http.last_head import LastHead
from gateway_middleware.serving.http.limits import DoorLimits, HalfClose
from gateway_middleware.serving.http.refusal import (
    Refusal,
    Refuse,
    RefusedRequestError,
    plain_refusal,
    refusal_of,
)
from gateway_middleware.serving.http.scope import connection_scope, request_scope
from gateway_middleware.serving.http.waiters import Waiters

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

_NEVER = float("inf")
_END_OF_HEAD = b"\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LEAST_LINGER = 64 * 1024
_MAX_OUTGOING = 16 * 1024
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class HTTPProtocol(asyncio.BufferedProtocol):
    """Answers the requests of one connection, one after the other.

    What uvicorn hands over is used as by its own protocols, but for `timeout_keep_alive`, `limit_concurrency`,
    `access_log` and `ws`: bounds are those of the door, and nothing is logged or upgraded here.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        if not config.loaded:
            config.load()
        self.door = door
        self.loop = _loop or asyncio.get_running_loop()
        self.clock = door.clock_of(self.loop)
        self.deadline = _NEVER
        self.is_read_paused = self.is_write_paused = False
        self.writable = Waiters(self.loop)
        self.changed = Waiters(self.loop)
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._exchange: Exchange | None = None
        self._last_head = LastHead()
        self._unparsed = b""
        self._searched = 0  # bytes of it in which the end of a head was looked for
        self._counted = 0  # bytes of it that the door counts
        self._is_in_head = True
        self._has_eof = False
        self._linger_left: int | None = None
        self._unflushed = 0
        self._outgoing = b""  # what is sent at the end of this turn
        self._has_mail = False

    # The connection's life.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=self.door.limits.max_unsent_bytes)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in _INTERNET:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = self._config
        self._scope = connection_scope(
            transport, root_path=config.root_path, asgi_version=config.asgi_version, outbox=self.door.outbox
        )
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.deadline = self.clock() + self.door.limits.head_seconds
        excess = self.door.enter(self, self.loop)
        if excess > 0:
            self._turn_away(excess)

    def _turn_away(self, excess: int) -> None:
        """Too many connections. Those that are far too many do not even linger."""
        self.refuse(RefusedRequestError(503, "Too many connections.", retry_after=1.0))
        if excess > self.door.limits.max_connections // 8:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        self._state.connections.discard(self)
        self.deadline = _NEVER
        self._drop()
        self._hold(b"")
        self._outgoing = b""

    def eof_received(self) -> bool:
        exchange = self._exchange
        is_waiting = exchange is not None and exchange.framing.is_whole
        if is_waiting and self.door.limits.half_close is HalfClose.ALLOW and self._scope["scheme"] == "http":
            self._has_eof = True
            return True
        if exchange is not None and exchange.answer.ends_with_connection:
            self.cut(exchange)
        self._drop()
        self.write_out()
        self._watch_flush()
        return False

    def shutdown(self) -> None:
        """Asked by uvicorn: end when what is under way has been answered."""
        if self._exchange is None:
            self._close()
        else:
            self._exchange.answer.keep_alive = False

    def pause_writing(self) -> None:
        self.is_write_paused = True

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self.writable.wake()

    # Bytes.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.door.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self.door.buffer[:nbytes])
        if self._linger_left is not None:
            self._linger_left -= len(data)
        elif not self._transport.is_closing():
            self._parse(self._unparsed + data if self._unparsed else data)
        self.regulate()

    def _parse(self, data: bytes) -> None:
        """Take everything that was received and not used yet."""
        self._unparsed = b""
        try:
            while data:
                exchange = self._exchange
                if exchange is None:
                    data = self._begin(data)
                elif exchange.framing.is_whole:
                    self._queue(data, exchange)
                    return
                else:
                    data = exchange.feed(data)
        except RefusedRequestError as error:
            self._refuse(error, data)

    def _begin(self, data: bytes) -> bytes:
        """Start the request whose head is in `data`; what follows the head is given back."""
        limits = self.door.limits
        data = data.lstrip(b"\r\n")
        end = data.find(_END_OF_HEAD, max(0, self._searched - len(_END_OF_HEAD))) + len(_END_OF_HEAD)
        is_whole = end >= len(_END_OF_HEAD)
        if (end if is_whole else len(data)) > limits.max_head_bytes:
            raise too_long(data, limits.max_head_bytes)
        if not is_whole:
            self._wait_for_head(data)
            return b""
        if self._counted:
            self._hold(b"")
        self._searched = 0
        head, scope = self._read_head(data[:end])
        rest = data[end:]
        if rest and len(rest) == head.content_length and self.door.take(len(rest)):
            self._start(Exchange(self, head, scope, rest))
            return b""
        self._check_room(head)
        self._start(Exchange(self, head, scope))
        return rest

    def _read_head(self, raw: bytes) -> tuple[RequestHead, dict[str, Any]]:
        """What a whole head says, and the scope of its request."""
        repeated = self._last_head.repeat(raw, self._app_state)
        if repeated is not None:
            return repeated
        head = read_head(raw, self.door.limits.max_headers)
        scope = request_scope(self._scope, head, self._app_state)
        self._last_head.remember(raw, head, scope)
        return head, scope

    def _wait_for_head(self, data: bytes) -> None:
        check_beginning(data)
        if not self._is_in_head:
            self._is_in_head = True
            self.deadline = self.clock() + self.door.limits.head_seconds
        self._hold(data)
        self._searched = len(data)

    def _hold(self, data: bytes) -> None:
        """Keep what cannot be used yet, and nothing else. Raises `RefusedRequestError` when the door has no room."""
        self.door.give_back(self._counted)
        self._counted = self._searched = 0
        if data and not self.door.take(len(data)):
            raise RefusedRequestError(503, "Too many requests are under way.", retry_after=1.0)
        self._unparsed, self._counted = data, len(data)

    def _queue(self, data: bytes, exchange: Exchange) -> None:
        """Keep what follows a request until that one is answered; where there is no room the connection then ends."""
        try:
            self._hold(data)
        except RefusedRequestError:
            exchange.answer.keep_alive = False

    def _check_room(self, head: RequestHead) -> None:
        size = head.content_length
        if not size:
            return
        if size > self.door.limits.max_bodies_bytes:
            raise RefusedRequestError(413, "The request body is too large.")
        if not self.door.has_room(size):
            raise RefusedRequestError(503, "Too many request bodies are under way.", retry_after=1.0)

    def _start(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._is_in_head = False
        self.deadline = _NEVER
        context = contextvars.Context() if self._config.reset_contextvars else None
        task = self.loop.create_task(exchange.run(self._config.loaded_app), context=context)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def regulate(self) -> None:
        """Pause reading while too much is unread, and go on when it is not."""
        if self._linger_left is not None:
            is_full = self._linger_left <= 0
        elif self._exchange is not None:
            unread = max(len(self._exchange.unread), len(self._unparsed))
            is_full = unread > self.door.limits.max_unread_bytes
        else:
            is_full = False  # a head is bounded by itself
        if is_full is self.is_read_paused or self._transport.is_closing():
            return
        self.is_read_paused = is_full
        if is_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Answers.

    def write(self, data: bytes) -> None:
        """Send at the end of this turn of the loop; now if it is much, or nobody else sends. Nothing once it closes."""
        if self._outgoing:
            data = self._outgoing + data
        self._outgoing = data
        outbox = self.door.outbox
        if not self._has_mail and outbox.may_pass():
            self._write_now()
            return
        if not self._has_mail:
            self.write_soon()
        if len(data) > _MAX_OUTGOING or outbox.is_quiet:
            self._write_now()

    def write_soon(self) -> None:
        """Have `write_out` called at the end of this turn of the loop."""
        self._has_mail = True
        self.door.outbox.add(self, self.loop)

    def write_out(self) -> None:
        """Send what is kept until the end of the turn."""
        self._has_mail = False
        self._write_now()

    def _write_now(self) -> None:
        data, self._outgoing = self._outgoing, b""
        exchange = self._exchange
        if exchange is not None and exchange.unwritten_head:
            data += exchange.unwritten_head
            exchange.unwritten_head = b""
        if data and not self._transport.is_closing():
            if self.door.outbox.has_records:
                self.door.outbox.commit()
            self._transport.write(data)

    def default_lines(self) -> bytes:
        """The lines of uvicorn's default headers."""
        return self.door.default_lines(self._state.default_headers)

    def finish(self, exchange: Exchange) -> None:
        """An answer is complete: go on to the next request, or end."""
        self._state.total_requests += 1
        if exchange is not self._exchange:
            return
        self._exchange = None
        if not exchange.framing.is_whole:
            self._linger(exchange.received_bytes)
        elif not exchange.answer.keep_alive:
            self._close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self.deadline = self.clock() + self.door.limits.idle_seconds
        if self._unparsed:
            self._parse(self._unparsed)
        if self._has_eof and self._exchange is None and self._linger_left is None:
            self._close()
        if self.is_read_paused or self._exchange is not None:
            self.regulate()

    def refuse(self, error: RefusedRequestError) -> None:
        """Answer the current request, if any, in the application's place, and end the connection."""
        self._refuse(error, b"")

    def _refuse(self, error: RefusedRequestError, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            refusal = refusal_of(error, data[: self.door.limits.max_head_bytes])
        elif exchange.has_begun_to_answer:
            self.cut(exchange)
            return
        else:
            refusal = _refusal_of_head(error, exchange.head)
        self._drop()
        headers, body = self.door.refuse(refusal)
        is_head = refusal.method == b"HEAD"
        self.write(whole_answer(error.status, headers, body, defaults=self.default_lines(), is_head=is_head))
        self._linger(0 if exchange is None else exchange.received_bytes)

    def cut(self, exchange: Exchange) -> None:
        """End in the middle of an answer, in a way that the client cannot take for its end."""
        self._drop()
        raw = self._transport.get_extra_info("socket")
        if exchange.answer.ends_with_connection and raw is not None and not self._transport.is_closing():
            self.write_out()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
        else:
            self._close()

    def _drop(self) -> None:
        """Nobody waits for the current answer any more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.leave()

    # Ends and deadlines.

    def expire(self, now: float) -> None:
        """The deadline has passed: of a head, a body, an idle or a closing connection."""
        if self._transport.is_closing():
            self._check_flush(now)
        elif self._exchange is not None:
            if self._exchange.is_too_slow(now):
                self.refuse(RefusedRequestError(408, "The request body did not come in time."))
        elif self._unparsed and self._linger_left is None:
            self._refuse(RefusedRequestError(408, "The head of the request did not come in time."), self._unparsed)
        else:
            self._close()

    def _linger(self, received: int) -> None:
        """End after an answer whose request was not read: closing at once would make the client lose the answer."""
        limits = self.door.limits
        self._hold(b"")
        self._linger_left = max(_LEAST_LINGER, limits.linger_bytes - received)
        self.deadline = self.clock() + limits.linger_seconds
        self.write_out()
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self.regulate()

    def _close(self) -> None:
        if not self._transport.is_closing():
            self.write_out()
            self._transport.close()
            self._watch_flush()

    def _watch_flush(self) -> None:
        """A closing connection goes when its last bytes are sent. They must move."""
        self._unflushed = self._transport.get_write_buffer_size()
        self.deadline = self.clock() + self.door.limits.body_seconds

    def _check_flush(self, now: float) -> None:
        size = self._transport.get_write_buffer_size()
        if size >= self._unflushed:
            self._transport.abort()
        self._unflushed = size
        self.deadline = now + self.door.limits.body_seconds


def _refusal_of_head(error: RefusedRequestError, head: RequestHead) -> Refusal:
    return Refusal(
        status=error.status,
        message=error.message,
        retry_after=error.retry_after,
        method=head.method.encode(),
        target=head.target,
        headers=tuple(head.headers),
    )


def http_protocol(
    limits: DoorLimits,
    *,
    refuse: Refuse = plain_refusal,
    clock: Clock | None = None,
    period: float = 0.25,
    outbox: Outbox | None = None,
) -> Callable[..., HTTPProtocol]:
    """What to give to uvicorn's `http=`: makes the protocol of each connection, all within the same `limits`.

    One for each server. `refuse` renders what is refused without asking the application. `clock` and `period` are those
    of `Door`, `outbox` is that of the gateway that is served, in the same process. It can be pickled if `refuse` and
    `clock` can, as worker processes ask.
    """
    return functools.partial(HTTPProtocol, door=Door(limits, refuse=refuse, clock=clock, period=period, outbox=outbox))
