"""One connection to Redis for all calls at once: writes are batched, replies come in order.

A call that is cancelled, or not answered within the deadline, keeps its place in the line: its reply is taken from the
wire when it comes and handed to `late`, so no reply can reach another call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import msgspec

from gateway_middleware.limiting.limit import StoreError, StoreTimeoutError
from gateway_middleware.redis.resp import ErrorReply, Reply, ReplyParser, RespProtocolError, encode

Late: TypeAlias = "Callable[[Reply], None]"

DEADLINE = 0.05
_CONNECT_SECONDS = 2.0
_STALE_SECONDS = 1.0
_BACKOFF_SECONDS = 0.2
_GRACE_SECONDS = 0.002
"""After a stall of the event loop its timers may run before it has read what is there already."""
_MOST_PENDING = 20_000


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis listens: `host` and `port`, or `path` of a Unix socket; and what it wants to hear first."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: ssl.SSLContext | None = None

    @property
    def greeting(self) -> list[tuple[bytes, ...]]:
        """The commands that open a connection."""
        found: list[tuple[bytes, ...]] = []
        if self.password is not None:
            user = (self.username.encode(),) if self.username else ()
            found.append((b"AUTH", *user, self.password.encode()))
        if self.database:
            found.append((b"SELECT", b"%d" % self.database))
        return found


class _Slot:
    """A place in the line."""

    __slots__ = ("deadline", "future", "late")

    def __init__(self, future: asyncio.Future[Reply], deadline: float, late: Late | None) -> None:
        self.future = future
        self.deadline = deadline
        self.late = late

    def resolve(self, reply: Reply) -> None:
        if not self.future.done():
            self.future.set_result(reply)
        elif self.late is not None:
            self.late(reply)

    def fail(self, error: StoreError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Connection(asyncio.Protocol):
    """Bytes of one socket; the oldest slot takes the next reply."""

    def __init__(self, on_lost: Callable[[_Connection], None]) -> None:
        self._on_lost = on_lost
        self._parser = ReplyParser()
        self.slots: deque[_Slot] = deque()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport: asked for as such

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._parser.feed(data):
                if not self.slots:
                    raise RespProtocolError("a reply that nobody asked for")
                self.slots.popleft().resolve(reply)
                if isinstance(reply, ErrorReply) and "READONLY" in str(reply):
                    self.abort()  # a master that became a replica: its address may lead to the new master by now
        except RespProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost(self)
        slots, self.slots = self.slots, deque()
        for slot in slots:
            slot.fail(StoreError("the connection to Redis was lost"))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class RespClient:
    """Calls Redis. Connects with the first call, and again when the connection was lost. One event loop.

    A connection on which an answer is `stale` seconds overdue is cut.
    """

    def __init__(self, address: Address, *, deadline: float = DEADLINE, stale: float = _STALE_SECONDS) -> None:
        self._address = address
        self._deadline = deadline
        self._stale = stale
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[_Slot, bytes]] = deque()
        self._outgoing: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._is_closed = False

    def call(self, parts: Sequence[bytes], late: Late | None = None) -> asyncio.Future[Reply]:
        """Send a command; it is on its way when this returns, unless there is no connection yet.

        The future gives the reply (an `ErrorReply` is returned, not raised), or raises `StoreError`. `late` takes a
        reply that comes after the future was cancelled or has timed out.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        slot = _Slot(loop.create_future(), now + self._deadline, late)
        connection = self._connection
        if connection is not None and len(connection.slots) < _MOST_PENDING:
            self._write(connection, slot, encode(parts), loop)
        elif connection is not None or self._is_closed or now < self._retry_at or len(self._waiting) >= _MOST_PENDING:
            slot.fail(StoreError("Redis cannot be reached"))
            return slot.future
        else:
            self._waiting.append((slot, encode(parts)))
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
        if self._timer is None or self._timer.when() > slot.deadline:
            self._arm(slot.deadline, loop)
        return slot.future

    def _write(self, connection: _Connection, slot: _Slot, command: bytes, loop: asyncio.AbstractEventLoop) -> None:
        connection.slots.append(slot)
        self._outgoing.append(command)
        if len(self._outgoing) == 1:
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.write(b"".join(outgoing))

    def _arm(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(when, self._wait_a_moment)

    def _wait_a_moment(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._expire)

    def _expire(self) -> None:
        """Fail what is overdue; cut a connection that has been silent for long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        while self._waiting and self._waiting[0][0].deadline <= now:
            self._waiting.popleft()[0].fail(StoreTimeoutError("no connection to Redis within the deadline"))
        upcoming = self._waiting[0][0].deadline if self._waiting else None
        for slot in self._connection.slots if self._connection is not None else ():
            if slot.deadline > now:
                upcoming = slot.deadline if upcoming is None else min(upcoming, slot.deadline)
                break
            slot.fail(StoreTimeoutError("no answer from Redis within the deadline"))
        if self._connection is not None and self._connection.slots:
            stale = self._connection.slots[0].deadline + self._stale
            if stale <= now:
                self._connection.abort()
            else:
                upcoming = stale if upcoming is None else min(upcoming, stale)
        if upcoming is not None:
            self._arm(upcoming, loop)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._open(loop)
                await self._greet(connection)
        except (OSError, TimeoutError, StoreError) as error:
            self._retry_at = loop.time() + _BACKOFF_SECONDS
            self._fail_waiting(StoreError(f"Redis cannot be reached ({type(error).__name__})"))
            return
        finally:
            self._connecting = None
        self._connection = connection
        waiting, self._waiting = self._waiting, deque()
        for slot, command in waiting:
            if not slot.future.done():
                self._write(connection, slot, command, loop)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        address = self._address
        made: Coroutine[Any, Any, tuple[asyncio.Transport, _Connection]]
        if address.path is not None:
            made = loop.create_unix_connection(self._new, address.path)
        else:
            made = loop.create_connection(self._new, address.host, address.port, ssl=address.tls)
        return (await made)[1]

    def _new(self) -> _Connection:
        return _Connection(self._on_lost)

    async def _greet(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            for command in self._address.greeting:
                slot = _Slot(loop.create_future(), loop.time() + _CONNECT_SECONDS, None)
                if connection.transport is None:
                    raise StoreError("the connection to Redis was lost")
                connection.slots.append(slot)
                connection.transport.write(encode(command))
                reply = await slot.future
                if isinstance(reply, ErrorReply):
                    raise StoreError(f"Redis refuses {command[0].decode()}")
            if connection.transport is None:
                raise StoreError("the connection to Redis was lost")
        except BaseException:
            connection.abort()
            raise

    def _on_lost(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._outgoing.clear()

    def _fail_waiting(self, error: StoreError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for slot, _ in waiting:
            slot.fail(error)

    async def aclose(self) -> None:
        """Close the connection when what was sent is answered, or the deadline is over. Calls fail from now on."""
        self._is_closed = True
        if self._connection is not None and self._connection.slots:
            await asyncio.wait([slot.future for slot in self._connection.slots], timeout=self._deadline)
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._fail_waiting(StoreError("the store is closed"))
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.close()
        await asyncio.sleep(0)
