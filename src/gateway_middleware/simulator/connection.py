"""One TCP connection: parses requests and plays scripts."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Protocol, cast

import httptools

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.simulator.record import Received, Request, RequestLog
from gateway_middleware.simulator.script import End, Step

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Responder(Protocol):
    """What a connection needs of the simulator."""

    log: RequestLog

    def respond(self, request: Request) -> tuple[Received | None, bytes | Iterator[Step]]:
        """The entry in the log (None: not to be logged) and what to send."""
        ...


class Connections(set["Connection"]):
    """The open connections of one server."""

    def __init__(self) -> None:
        super().__init__()
        self._are_gone = asyncio.Event()

    def remove(self, connection: Connection) -> None:
        """A connection has ended."""
        super().remove(connection)
        if not self:
            self._are_gone.set()

    async def abort(self) -> None:
        """End all of them now."""
        self._are_gone.clear()
        for connection in list(self):
            connection.abort()
        if self:
            await self._are_gone.wait()


class Connection(asyncio.Protocol):
    """Answers its requests one after the other."""

    def __init__(self, responder: Responder, connections: Connections, keep_alive: float | None) -> None:
        self._responder = responder
        self._connections = connections
        self._keep_alive = keep_alive
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._entry: Received | None = None
        self._script: Iterator[Step] | None = None
        self._keeps_alive = True
        self._timer: asyncio.Handle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_paused = self._is_stale = self._is_closing = False
        self._target = b""
        self._headers: HeaderList = []
        self._body: list[bytes] = []

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._number = self._responder.log.connect()
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._cancel_timers()
        if self._entry is not None:
            self._responder.log.abandon(self._entry)
        self._entry = self._script = None
        self._waiting.clear()
        self._responder.log.disconnect()
        self._connections.remove(self)

    def data_received(self, data: bytes) -> None:
        if self._is_stale or self._is_closing:
            self._close()
            return
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self._transport.write(_BAD_REQUEST)
            self._close()
            return
        self._answer_waiting()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._timer is None:
            self._resume()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._headers = []
        self._body = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if (b"expect", b"100-continue") in self._headers:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._waiting.append(
            Request(
                connection=self._number,
                method=self._parser.get_method().decode(),
                target=self._target,
                headers=self._headers,
                body=b"".join(self._body),
                keeps_alive=self._parser.should_keep_alive(),
            )
        )

    # Answering.

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _answer_waiting(self) -> None:
        while self._waiting and self._script is None and not self._is_closing:
            if self._is_stale:
                self._close()
                return
            request = self._waiting.popleft()
            self._keeps_alive = request.keeps_alive
            self._entry, answer = self._responder.respond(request)
            if isinstance(answer, bytes):
                self._transport.write(answer)
                self._finish()
            else:
                self._script = answer
                self._play()

    def _resume(self) -> None:
        self._timer = None
        if self._script is not None and not self._is_closing:
            self._play()
            self._answer_waiting()

    def _play(self) -> None:
        while self._script is not None and not self._is_paused:
            step = next(self._script, None)
            if isinstance(step, bytes):
                self._transport.write(step)
            elif isinstance(step, float):
                self._timer = self._loop.call_later(step, self._resume) if step else self._loop.call_soon(self._resume)
                return
            elif step is None:
                self._finish()
            else:
                self._end(step)
                return

    def _end(self, how: End) -> None:
        if how is End.STALL:
            return
        self._finish()
        if how is End.STALE:
            self._is_stale = True
        elif how is End.RESET:
            self._reset()
        else:
            self._close()

    def _finish(self) -> None:
        if self._entry is not None:
            self._responder.log.finish(self._entry)
        self._entry = self._script = None
        if not self._keeps_alive:
            self._close()
        elif self._keep_alive is not None:
            self._idle_timer = self._loop.call_later(self._keep_alive, self._close)

    def _close(self) -> None:
        self._is_closing = True
        self._transport.close()

    def _reset(self) -> None:
        self._is_closing = True
        handle: socket.socket = self._transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
