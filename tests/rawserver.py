"""A scripted upstream on a raw socket: says which bytes go out and how a connection ends, and keeps what came in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias, cast

import pytest

from gateway_middleware.core.domain import HeaderList, Timeouts
from gateway_middleware.core.provider_api import Origin, UpstreamRequest, UpstreamTarget
from gateway_middleware.upstream.connection import Connection
from gateway_middleware.upstream.engine import Engine
from gateway_middleware.upstream.engine_transport import EngineTransport

Script: TypeAlias = "Callable[[Peer], Awaitable[None]]"

TIMEOUTS = Timeouts(connect=10.0, first_byte=10.0, answer=10.0, idle=10.0, total=20.0)


class Peer(asyncio.Protocol):
    """One accepted connection. `number` counts them from 0; times are those of the loop."""

    def __init__(self, server: RawServer) -> None:
        self.number = len(server.peers)
        self.received = b""
        self.requests: list[bytes] = []
        self.sent = 0
        self.fin_at: float | None = None
        self.reset_at: float | None = None
        self.closed = asyncio.Event()
        self._server = server
        self._buffer = b""
        self._arrived = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._server.peers.append(self)
        self._server.start(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> bool:
        self.fin_at = asyncio.get_running_loop().time()
        self._arrived.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.reset_at = asyncio.get_running_loop().time()
        self.transport = None
        self.closed.set()
        self._arrived.set()
        self._may_write.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def request(self) -> bytes:
        """The next request, head and body. Raises ConnectionError when the client leaves before it is whole."""
        while (end := _length(self._buffer)) is None:
            if self.transport is None or self.transport.is_closing():
                raise ConnectionError
            self._arrived.clear()
            await self._arrived.wait()
        request, self._buffer = self._buffer[:end], self._buffer[end:]
        self.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Send, and wait while the client does not read."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionError
        self.transport.write(data)
        self.sent += len(data)
        await asyncio.sleep(0)  # an endless script must let the loop tell it that the client has left
        await self._may_write.wait()

    def pause_reading(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def fin(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        if self.transport is not None:
            raw = self.transport.get_extra_info("socket")
            if raw is not None:  # none any more when TLS is being closed
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


def _length(buffer: bytes) -> int | None:
    head, mark, rest = buffer.partition(b"\r\n\r\n")
    if not mark:
        return None
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    return len(head) + 4 + length if len(rest) >= length else None


class RawServer:
    """Runs `script` once for each connection it accepts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.origin = Origin(host="127.0.0.1", port=0, is_tls=False)
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def requests(self) -> list[bytes]:
        """Of all connections, in the order of the connections."""
        return [request for peer in self.peers for request in peer.requests]

    @property
    def url(self) -> str:
        return f"{'https' if self.origin.is_tls else 'http'}://{self.origin.host}:{self.origin.port}"

    def start(self, peer: Peer) -> None:
        task = asyncio.ensure_future(self._run(peer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, peer: Peer) -> None:
        with contextlib.suppress(ConnectionError):
            await self.script(peer)

    async def stop(self) -> None:
        for peer in self.peers:
            peer.reset()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self.peers:
            await peer.closed.wait()
        failures = [o for o in outcomes if isinstance(o, Exception)]
        assert not failures, failures


@contextlib.asynccontextmanager
async def raw_server(
    script: Script, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[RawServer]:
    """Serve `script` on a free loopback port; `host` is only the name that goes into the origin."""
    server = RawServer(script)
    listener = await asyncio.get_running_loop().create_server(
        lambda: Peer(server), "127.0.0.1", 0, ssl=context, backlog=1024
    )
    port = listener.sockets[0].getsockname()[1]
    server.origin = Origin(host=host, port=port, is_tls=context is not None)
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


@contextlib.asynccontextmanager
async def running_engine(
    *, ssl_context: ssl.SSLContext | None = None, keep_alive: float = 15.0, stale_after: float = 1.0
) -> AsyncIterator[EngineTransport]:
    """An engine, an httpx transport too, that is closed in the end, and then has no connection."""
    engine = EngineTransport(ssl_context=ssl_context, keep_alive=keep_alive, stale_after=stale_after)
    try:
        yield engine
    finally:
        await engine.aclose()
        assert engine.open_connections == 0


def request_to(
    origin: Origin, body: bytes = b"{}", *, method: str = "POST", path: str = "/v1/x", headers: HeaderList | None = None
) -> UpstreamRequest:
    return UpstreamRequest(target=UpstreamTarget.build(origin, path, tuple(headers or ()), method=method), body=body)


def respond(*parts: bytes, then: str = "keep") -> Script:
    """The same answer to every request. `then` is how the connection goes on: keep, fin, reset or stall."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for number, part in enumerate(parts):
                if number:
                    await asyncio.sleep(0.002)
                await peer.send(part)
            if then == "fin":
                peer.fin()
            elif then == "reset":
                await asyncio.sleep(0.002)  # a reset overtakes what the receiver has not read
                peer.reset()
            if then != "keep":
                await peer.closed.wait()

    return script


def plain(body: bytes = b"hello", status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, extra, len(body), body)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", extra: bytes = b"") -> bytes:
    frames = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\n%stransfer-encoding: chunked\r\n\r\n%s%s" % (extra, frames, end)


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what other tasks bring about; fails when they do not."""
    until = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < until, "it did not come about"
        await asyncio.sleep(0.001)


async def stopped(peer: Peer, limit: int) -> None:
    """Wait until `peer` has sent nothing for a while; fails when it sends more than `limit` bytes before."""
    sent = -1
    while sent != peer.sent:
        assert peer.sent <= limit, "nothing holds it back"
        sent = peer.sent
        await asyncio.sleep(0.1)


def deliver(connection: Connection, data: bytes) -> None:
    """Give the bytes to a connection as an event loop does that has read them."""
    while data:
        buffer = connection.get_buffer(-1)
        taken = min(len(buffer), len(data))
        buffer[:taken] = data[:taken]
        connection.buffer_updated(taken)
        data = data[taken:]


def idle_connection(engine: Engine, origin: Origin) -> Connection:
    """The one connection that waits for a request: its socket and its age have no other way out."""
    (connection,) = engine._pools[origin].idle  # noqa: SLF001  # which one is idle is nobody's business outside of tests
    return connection


def socket_of(connection: Connection) -> socket.socket:
    """The socket as the kernel has it."""
    transport = connection._transport  # noqa: SLF001  # socket options can be read nowhere else
    assert transport is not None
    raw: socket.socket = transport.get_extra_info("socket")
    return raw


BOTH_LOOPS = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)


async def call(
    engine: Engine, request: UpstreamRequest, timeouts: Timeouts = TIMEOUTS, *, limit: int = 10_000_000
) -> bytes:
    """One whole exchange: the body, at most `limit` bytes of it."""
    answer = await engine.open(request, timeouts, first_byte=timeouts.first_byte)
    try:
        return await answer.read(limit)
    finally:
        answer.close()


def in_segments(response: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A script: answers each request in five segments, a millisecond apart."""

    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            for at in range(0, len(response), len(response) // 5):
                await peer.send(response[at : at + len(response) // 5])
                await asyncio.sleep(0.001)

    return play
