"""One connection to Redis for all calls at once: commands are carried out and replies come in order.

A command leaves at once where no other is under way; else what a turn of the event loop asks for is one write.
A call that is cancelled, or not answered within the deadline, keeps its place in the line: its reply is taken from the
wire when it comes and handed to `late`, so no reply can reach another call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ClassVar

from gateway_middleware.redis.caller import (
    DEADLINE,
    Late,
    PendingReply,
    RedisError,
    RedisReplyError,
    RedisTimeoutError,
    Script,
)
from gateway_middleware.redis.resp import ErrorReply, Reply, ReplyParser, RespProtocolError, encode
from gateway_middleware.redis.uri import RedisUri

_CONNECT_SECONDS = 2.0
_STALE_SECONDS = 1.0
_BACKOFF_SECONDS = 0.2
_MAX_PENDING = 20_000
_STEPS_A_DEADLINE = 8
_MAX_STEP = 0.01


class _ListeningTime:
    """Seconds during which the event loop was there to listen: a turn that takes long counts as two steps at most.

    So a deadline in this time is Redis's own: what the process itself holds up does not use it up.
    """

    __slots__ = ("_at", "_seconds", "step")

    def __init__(self, deadline: float) -> None:
        self.step = min(deadline / _STEPS_A_DEADLINE, _MAX_STEP)
        self._seconds = 0.0
        self._at = 0.0

    def resume(self, now: float) -> None:
        """Begin to count; what was before did not count."""
        self._at = now

    def at(self, now: float) -> float:
        """The listening time at a time of the loop."""
        return self._seconds + min(now - self._at, 2 * self.step)

    def advance(self, now: float) -> float:
        """One turn of the loop has passed."""
        self._seconds = self.at(now)
        self._at = now
        return self._seconds


class _Connection(asyncio.Protocol):
    """Bytes of one socket; the oldest pending call takes the next reply."""

    def __init__(
        self, on_lost: Callable[[_Connection], None], on_unknown_script: Callable[[PendingReply], None]
    ) -> None:
        self._on_lost = on_lost
        self._on_unknown_script = on_unknown_script
        self._parser = ReplyParser()
        self.pending: deque[PendingReply] = deque()
        self.known_scripts: set[bytes] = set()
        """By SHA-1: what was sent by source here, so Redis knows it."""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport: asked for as such

    def chosen(self, pending: PendingReply) -> Sequence[bytes]:
        """The command to send: a script that was not sent here before goes by its source.

        To learn from a reply that Redis does not know it would let later commands overtake it.
        """
        script = pending.script
        if script is None or script.sha in self.known_scripts:
            return pending.command
        self.known_scripts.add(script.sha)
        pending.script = None
        return script.by_source(pending.command)

    def data_received(self, data: bytes) -> None:
        pending = self.pending
        try:
            for reply in self._parser.feed(data):
                if not pending:
                    raise RespProtocolError("a reply that nobody asked for")
                first = pending.popleft()
                if isinstance(reply, ErrorReply):
                    self._take_error(first, reply)
                else:
                    first.resolve(reply)
        except RespProtocolError:
            self.abort()

    def _take_error(self, pending: PendingReply, reply: ErrorReply) -> None:
        code = str(reply).partition(" ")[0]
        if code == "NOSCRIPT" and pending.script is not None:
            self.known_scripts.clear()
            if pending.is_wanted:
                self._on_unknown_script(pending)
                return
        pending.resolve(reply)
        if code == "READONLY":
            self.abort()  # a master that became a replica: its address may lead to the new master by now

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost(self)
        lost, self.pending = self.pending, deque()
        for pending in lost:
            pending.fail(RedisError("the connection to Redis was lost"))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class RespClient:
    """A `RedisCaller` for a single Redis. Connects with the first call, and again when the connection was lost.

    A connection on which an answer is `stale` seconds overdue is cut. Stalls of the event loop do not count.
    """

    keeps_order: ClassVar[bool] = True

    def __init__(
        self,
        target: RedisUri,
        *,
        deadline: float = DEADLINE,
        tls: ssl.SSLContext | None = None,
        stale: float = _STALE_SECONDS,
    ) -> None:
        self._target = target
        self._tls = tls
        self._deadline = deadline
        self._stale = stale
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[PendingReply] = deque()
        self._due: deque[PendingReply] = deque()
        self._outgoing: list[bytes] = []
        self._listening = _ListeningTime(deadline)
        self._timer: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._is_closed = False

    def call(self, command: Sequence[bytes], late: Late | None = None) -> asyncio.Future[Reply]:
        """Send a command."""
        return self._submit(command, None, late)

    def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes] = (), late: Late | None = None
    ) -> asyncio.Future[Reply]:
        """Run a script by its SHA-1, or by its source."""
        return self._submit(script.by_name(keys, arguments), script, late)

    def _submit(self, command: Sequence[bytes], script: Script | None, late: Late | None) -> asyncio.Future[Reply]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        pending = PendingReply(loop.create_future(), late, command, script)
        connection = self._connection
        line = self._waiting if connection is None else connection.pending
        if self._is_closed or len(line) >= _MAX_PENDING or (connection is None and now < self._retry_at):
            pending.fail(RedisError("Redis cannot be reached"))
            return pending.future
        if self._timer is None:
            self._listening.resume(now)
            self._timer = loop.call_later(self._listening.step, self._tick)
        pending.deadline = self._listening.at(now) + self._deadline
        self._due.append(pending)
        if connection is not None:
            self._write(connection, pending, loop)
        else:
            self._wait(pending, loop)
        return pending.future

    def _wait(self, pending: PendingReply, loop: asyncio.AbstractEventLoop) -> None:
        """Send it when there is a connection."""
        self._waiting.append(pending)
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())

    def _write(self, connection: _Connection, pending: PendingReply, loop: asyncio.AbstractEventLoop) -> None:
        line, outgoing = connection.pending, self._outgoing
        outgoing.append(encode(connection.chosen(pending)))
        line.append(pending)
        if len(line) == 1:
            self._flush()
        elif len(outgoing) == 1:
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._connection is not None and self._connection.transport is not None:
            self._connection.transport.write(b"".join(outgoing))

    def _run_by_source(self, pending: PendingReply) -> None:
        """Redis has forgotten the script."""
        script, pending.script = pending.script, None
        if self._connection is None or script is None:
            pending.fail(RedisError("the connection to Redis was lost"))
            return
        pending.command = script.by_source(pending.command)
        self._write(self._connection, pending, asyncio.get_running_loop())

    def _tick(self) -> None:
        """Fail what is overdue; cut a connection that has been silent for long."""
        loop = asyncio.get_running_loop()
        now = self._listening.advance(loop.time())
        due, connection = self._due, self._connection
        while due and (due[0].deadline <= now or due[0].future.done()):
            due.popleft().fail(RedisTimeoutError("no answer from Redis within the deadline"))
        if connection is not None and connection.pending and connection.pending[0].deadline + self._stale <= now:
            connection.abort()
        is_awaited = connection is not None and bool(connection.pending)
        self._timer = loop.call_later(self._listening.step, self._tick) if due or is_awaited else None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._open(loop)
                await self._greet(connection)
        except (OSError, TimeoutError, RedisError) as error:
            self._retry_at = loop.time() + _BACKOFF_SECONDS
            self._fail_waiting(RedisError(f"Redis cannot be reached ({type(error).__name__})"))
            return
        finally:
            self._connecting = None
        self._connection = connection
        waiting, self._waiting = self._waiting, deque()
        for pending in waiting:
            if pending.is_wanted:
                self._write(connection, pending, loop)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        target = self._target
        made: Coroutine[Any, Any, tuple[asyncio.Transport, _Connection]]
        if target.path is not None:
            made = loop.create_unix_connection(self._new, target.path)
        else:
            host, port = target.hosts[0]
            made = loop.create_connection(self._new, host, port, ssl=self._tls)
        return (await made)[1]

    def _new(self) -> _Connection:
        return _Connection(self._on_lost, self._run_by_source)

    async def _greet(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            for command in _greeting(self._target):
                pending = PendingReply(loop.create_future(), None)
                if connection.transport is None:
                    raise RedisError("the connection to Redis was lost")
                connection.pending.append(pending)
                connection.transport.write(encode(command))
                try:
                    await pending.future
                except RedisReplyError:
                    raise RedisError(f"Redis refuses {command[0].decode()}") from None
            if connection.transport is None:
                raise RedisError("the connection to Redis was lost")
        except BaseException:
            connection.abort()
            raise

    def _on_lost(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._outgoing.clear()

    def _fail_waiting(self, error: RedisError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for pending in waiting:
            pending.fail(error)

    async def aclose(self) -> None:
        """Close the connection when what was sent is answered, or `stale` seconds are over. Then calls fail."""
        if self._connection is not None and not self._is_closed:
            await self._drain(self._connection)
        self._is_closed = True
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting is not None:
            self._connecting.cancel()
        self._fail_waiting(RedisError("the connection to Redis is closed"))
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.close()
        await asyncio.sleep(0)

    async def _drain(self, connection: _Connection) -> None:
        """Wait for what was sent, late answers included; what they gave back is on its way then."""
        loop = asyncio.get_running_loop()
        last = PendingReply(loop.create_future(), None, (b"PING",))
        self._write(connection, last, loop)
        await asyncio.wait([last.future], timeout=self._stale)


def _greeting(target: RedisUri) -> Iterator[tuple[bytes, ...]]:
    """The commands that open a connection."""
    if target.password is not None:
        user = (target.username.encode(),) if target.username else ()
        yield (b"AUTH", *user, target.password.encode())
    if target.database:
        yield (b"SELECT", b"%d" % target.database)
