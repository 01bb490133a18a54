"""The HTTP/1.1 engine, as dispatch uses it; `engine_transport` makes an httpx transport of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.asgi import Watchtower
from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import (
    StaleConnectionError,
    UpstreamConnectError,
    UpstreamTimeoutError,
)
from gateway_middleware.core.outbox import Entry, Outbox
from gateway_middleware.core.provider_api import Origin, UpstreamRequest
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.connecting import Connector
from gateway_middleware.upstream.connection import READ_BYTES, STALE_AFTER, STALE_NOTICE, Connection
from gateway_middleware.upstream.pool import Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from gateway_middleware.upstream.connecting import Resolver

KEEP_ALIVE_SECONDS = 15.0
_CLOSING_STEPS = 10  # of the event loop; a TLS connection needs more than one to be gone


class Engine:
    """Connections to providers: kept alive, reused last in first out, closed after 15 s of idleness.

    No redirects, nothing from the environment, a proxy only where the origin names one. `ssl_context` replaces the
    default ones, which trust the bundle of certifi and the origin's `ca_file`; `resolve` gives the addresses of a name,
    and is asked for each connection. `max_connections` bounds those of one
    origin; a call waits for one as long as it may connect. `opened` and `reused` count connections since the start.
    Requests leave with the `outbox` of the loop's turn. A kept connection may turn out to be closed just as a request
    goes out: one that was not written goes out on the next connection; one that was written, on a connection that had
    been idle for `stale_after` seconds and was lost within `stale_notice` seconds, raises `StaleConnectionError` from
    `open`, for the caller to repeat it as an attempt of its own.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        keep_alive: float = KEEP_ALIVE_SECONDS,
        max_connections: int | None = None,
        outbox: Outbox | None = None,
        stale_after: float = STALE_AFTER,
        stale_notice: float = STALE_NOTICE,
        resolve: Resolver | None = None,
    ) -> None:
        self._connector = Connector(ssl_context, resolve=resolve)
        self._outbox = outbox or Outbox()
        self._buffer = bytearray(READ_BYTES)
        self._tower = Watchtower()
        self._keep_alive = keep_alive
        self._max_connections = max_connections
        self._stale_after = stale_after
        self._stale_notice = stale_notice
        self._pools: dict[Origin, Pool] = {}
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

    def open(
        self, request: UpstreamRequest, timeouts: Timeouts, *, first_byte: float, entry: Entry | None = None
    ) -> Coroutine[Any, Any, EngineAnswer]:
        """As `RecordedExchange.open`. Raises ValueError for a header of the call that would end its own line."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeouts.total
        call = _Call(request, _head_of(request), timeouts, first_byte, until, loop, self._tower, entry)
        pool = self._pools.get(request.target.origin)
        if pool is None:
            pool = self._pools[request.target.origin] = Pool(self._max_connections)
        return self._open(call, pool) if pool.slots is None else self._open_in_turn(call, pool, pool.slots)

    async def _open_in_turn(self, call: _Call, pool: Pool, slots: asyncio.Semaphore) -> EngineAnswer:
        await _acquire(slots, call)
        try:
            answer = await self._open(call, pool)
        except BaseException:
            slots.release()
            raise
        answer.on_close = slots.release
        return answer

    async def _open(self, call: _Call, pool: Pool) -> EngineAnswer:
        while (connection := pool.take(call.loop.time() - self._keep_alive)) is not None:
            answer = call.send(connection)
            try:
                while not answer.has_head:
                    await answer.news()
            except BaseException as error:
                answer.close()
                if not isinstance(error, StaleConnectionError):
                    raise
                if connection.idle_since is not None:  # those that have been idle for longer are no better
                    pool.expire(connection.idle_since)
                if error.was_sent:
                    raise
            else:
                self.reused += 1
                return answer
        connection = await self._connect(call.request.target.origin, pool, call.connect_seconds())
        return await call.head_of_answer(connection)

    async def aclose(self) -> None:
        """Close every connection, those in use as well. The engine opens none from now on."""
        self._is_closed = True
        if self._pruning is not None:
            self._pruning.cancel()
            self._pruning = None
        for pool in self._pools.values():
            pool.abort()
        for _ in range(_CLOSING_STEPS):
            if self.open_connections:
                await asyncio.sleep(0)

    # Connections.

    async def _connect(self, origin: Origin, pool: Pool, seconds: float) -> Connection:
        if self._is_closed:
            raise UpstreamConnectError(f"No connection to {origin.host}: the engine is closed.")
        try:
            async with asyncio.timeout(seconds):
                factory = self._factory(pool, asyncio.get_running_loop())
                connection = await self._connector.connect(origin, factory)
        except TimeoutError as error:
            raise UpstreamTimeoutError(f"No connection to {origin.host} in time.", phase="connect") from error
        self.opened += 1
        self._admit(connection, pool)
        return connection

    def _admit(self, connection: Connection, pool: Pool) -> None:
        if self._is_closed:
            connection.abort()
        if not connection.is_closing:  # a connection that is lost already would never leave the pool
            pool.open.add(connection)

    def _factory(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> Callable[[], Connection]:
        def on_idle(connection: Connection) -> None:
            connection.idle_since = loop.time()
            pool.idle[connection] = None
            if self._pruning is None:
                self._pruning = loop.call_later(self._keep_alive, self._prune)

        return lambda: Connection(
            on_idle=on_idle,
            on_lost=pool.forget,
            outbox=self._outbox,
            loop=loop,
            buffer=self._buffer,
            stale_after=self._stale_after,
            stale_notice=self._stale_notice,
        )

    def _prune(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_alive
        for pool in self._pools.values():
            pool.expire(oldest)
        has_idle = any(pool.idle for pool in self._pools.values())
        self._pruning = loop.call_later(self._keep_alive / 2, self._prune) if has_idle else None


class _Call(msgspec.Struct, frozen=True):
    """One request on its way: what all of its tries have in common."""

    request: UpstreamRequest
    head: bytes
    timeouts: Timeouts
    first_byte: float
    until: float
    loop: asyncio.AbstractEventLoop
    tower: Watchtower
    entry: Entry | None

    def connect_seconds(self) -> float:
        return min(self.timeouts.connect, self.until - self.loop.time())

    async def head_of_answer(self, connection: Connection) -> EngineAnswer:
        """Send the request on this connection and wait for the head of the answer."""
        answer = self.send(connection)
        try:
            while not answer.has_head:
                await answer.news()
        except BaseException:
            answer.close()
            raise
        return answer

    def send(self, connection: Connection) -> EngineAnswer:
        """Send the request on this connection; what is returned waits for the answer."""
        answer = EngineAnswer(
            connection,
            self.loop,
            first_byte=self.first_byte,
            idle=self.timeouts.idle,
            until=self.until,
            tower=self.tower,
        )
        request = self.request
        connection.send(self.head, request.body, answer, has_no_body=request.target.method == "HEAD", entry=self.entry)
        return answer


async def _acquire(slots: asyncio.Semaphore, call: _Call) -> None:
    try:
        async with asyncio.timeout(call.connect_seconds()):
            await slots.acquire()
    except TimeoutError as error:
        host = call.request.target.origin.host
        raise UpstreamTimeoutError(f"Every connection to {host} is in use.", phase="pool") from error


def _head_of(request: UpstreamRequest) -> bytes:
    head = request.target.head
    if request.headers:
        lines = b"".join([name + b": " + value + b"\r\n" for name, value in request.headers])
        count = len(request.headers)
        if lines.count(b"\r") != count or lines.count(b"\n") != count or lines.count(b"\0"):
            raise ValueError("control character in an upstream request header")
        head += lines
    return b"%bcontent-length: %d\r\n\r\n" % (head, len(request.body))
