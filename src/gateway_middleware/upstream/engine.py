"""The HTTP/1.1 engine: an httpx transport with a narrow, faster door for dispatch."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from typing import TYPE_CHECKING

import certifi
import httpx

from gateway_middleware.domain import Origin, Timeouts, UpstreamRequest
from gateway_middleware.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.connection import Connection
from gateway_middleware.upstream.httpx_mapping import as_httpx_error, response_of, upstream_request_of

if TYPE_CHECKING:
    from collections.abc import Callable

KEEP_ALIVE_SECONDS = 15.0
_CLOSING_STEPS = 10  # of the event loop; a TLS connection needs more than one to be gone


class _Pool:
    """The idle connections of one origin, most recently used last, and how many there are in all."""

    __slots__ = ("idle", "open")

    def __init__(self) -> None:
        self.idle: deque[Connection] = deque()
        self.open: set[Connection] = set()


class Engine(httpx.AsyncBaseTransport):
    """Connections to providers: kept alive, reused last in first out, closed after 15 s of idleness.

    No proxies, no redirects, nothing from the environment. `ssl_context` replaces the default one, which trusts the
    bundle of certifi. `opened` and `reused` count connections since the start.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, keep_alive: float = KEEP_ALIVE_SECONDS) -> None:
        self._ssl = ssl_context
        self._ssl_lock = asyncio.Lock()
        self._keep_alive = keep_alive
        self._pools: dict[Origin, _Pool] = {}
        self._pruning: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.opened = 0
        self.reused = 0

    @property
    def open_connections(self) -> int:
        """All connections there are now."""
        return sum(len(pool.open) for pool in self._pools.values())

    @property
    def idle_connections(self) -> int:
        """Those that wait for their next request."""
        return sum(len(pool.idle) for pool in self._pools.values())

    # The narrow door.

    async def open(self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float) -> EngineAnswer:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeouts.total
        connection = self._take(request.target.origin, loop.time())
        if connection is not None:
            answer = _send(connection, request, timeouts, loop, first_byte=first_byte, until=until)
            try:
                await answer.head()
            except BaseException as error:
                answer.close()
                # A server may close an idle connection just as a request goes out. Only then, and only once, the
                # request is repeated: it was never read.
                if answer.has_bytes or not isinstance(error, UpstreamError) or isinstance(error, UpstreamTimeoutError):
                    raise
            else:
                self.reused += 1
                return answer
        connection = await self._connect(request.target.origin, min(timeouts.connect, until - loop.time()))
        answer = _send(connection, request, timeouts, loop, first_byte=first_byte, until=until)
        try:
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    async def aclose(self) -> None:
        """Close every connection, those in use as well. The engine opens none from now on."""
        self._is_closed = True
        if self._pruning is not None:
            self._pruning.cancel()
            self._pruning = None
        for pool in self._pools.values():
            for connection in list(pool.open):
                connection.abort()
            pool.idle.clear()
        for _ in range(_CLOSING_STEPS):
            if self.open_connections:
                await asyncio.sleep(0)

    # The wide one.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx asks of a transport. The body of the request is read whole before it is sent."""
        upstream, timeouts, first_byte = await upstream_request_of(request)
        try:
            answer = await self.open(upstream, timeouts, first_byte=first_byte)
        except UpstreamError as error:
            raise as_httpx_error(error, request) from error
        return response_of(answer, request)

    # Connections.

    def _take(self, origin: Origin, now: float) -> Connection | None:
        pool = self._pools.get(origin)
        while pool is not None and pool.idle:
            connection = pool.idle.pop()
            if not connection.is_closing and now - connection.idle_since < self._keep_alive:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin, seconds: float) -> Connection:
        pool = self._pools.setdefault(origin, _Pool())
        if self._is_closed:
            raise UpstreamConnectError(f"No connection to {origin.host}: the engine is closed.")
        try:
            async with asyncio.timeout(seconds):
                connection = await self._open_connection(origin, self._factory(pool))
        except TimeoutError as error:
            raise UpstreamTimeoutError(f"No connection to {origin.host} in time.", phase="connect") from error
        except (OSError, ssl.SSLError, UnicodeError) as error:
            raise UpstreamConnectError(f"No connection to {origin.host}: {_reason(error)}.") from error
        self.opened += 1
        self._admit(connection, pool)
        return connection

    def _admit(self, connection: Connection, pool: _Pool) -> None:
        if self._is_closed:
            connection.abort()
        if not connection.is_closing:  # a connection that is lost already would never leave the pool
            pool.open.add(connection)

    async def _open_connection(self, origin: Origin, factory: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        context = await self._context() if origin.is_tls else None
        name = origin.host if origin.is_tls else None
        _, connection = await loop.create_connection(
            factory, origin.host, origin.port, ssl=context, server_hostname=name
        )
        return connection

    async def _context(self) -> ssl.SSLContext:
        async with self._ssl_lock:
            if self._ssl is None:
                self._ssl = await asyncio.to_thread(default_context)
            return self._ssl

    def _factory(self, pool: _Pool) -> Callable[[], Connection]:
        def on_idle(connection: Connection) -> None:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            pool.idle.append(connection)
            if self._pruning is None:
                self._pruning = loop.call_later(self._keep_alive, self._prune)

        def on_lost(connection: Connection) -> None:
            pool.open.discard(connection)
            with contextlib.suppress(ValueError):
                pool.idle.remove(connection)

        return lambda: Connection(on_idle=on_idle, on_lost=on_lost)

    def _prune(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_alive
        for pool in self._pools.values():
            while pool.idle and pool.idle[0].idle_since <= oldest:
                pool.idle.popleft().abort()
        has_idle = any(pool.idle for pool in self._pools.values())
        self._pruning = loop.call_later(self._keep_alive / 2, self._prune) if has_idle else None


def default_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, hostnames verified, the CA bundle of certifi whatever the environment says."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _send(
    connection: Connection,
    request: UpstreamRequest,
    timeouts: Timeouts,
    loop: asyncio.AbstractEventLoop,
    *,
    first_byte: float,
    until: float,
) -> EngineAnswer:
    answer = EngineAnswer(connection, loop, first_byte=first_byte, idle=timeouts.idle, until=until)
    connection.send(_head_of(request), request.body, answer, has_no_body=request.target.method == "HEAD")
    return answer


def _head_of(request: UpstreamRequest) -> bytes:
    head = request.target.head
    for name, value in request.headers:
        head += name + b": " + value + b"\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(request.body)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return getattr(error, "strerror", None) or type(error).__name__
