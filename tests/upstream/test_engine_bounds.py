"""A bounded number of connections, and requests that the provider does not take at once."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway_middleware.core.asgi import Watchtower
from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import (
    StaleConnectionError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from gateway_middleware.core.outbox import Entry, Outbox
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.connection import Connection
from gateway_middleware.upstream.engine import Engine
from rawserver import BOTH_LOOPS, TIMEOUTS, Peer, call, deliver, eventually, plain, raw_server, request_to, respond

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]


async def hello(peer: Peer) -> None:
    """Answers after two milliseconds."""
    while True:
        await peer.request()
        await asyncio.sleep(0.002)
        await peer.send(plain())


async def test_no_more_connections_than_allowed() -> None:
    async with raw_server(hello) as server:
        engine = Engine(max_connections=3)
        bodies = await asyncio.gather(*(call(engine, request_to(server.origin)) for _ in range(60)))
        assert bodies == [b"hello"] * 60
        assert len(server.peers) == engine.opened == 3
        await engine.aclose()


async def test_calls_that_wait_in_vain_or_are_cancelled_take_no_slot() -> None:
    async with raw_server(hello) as server:
        engine = Engine(max_connections=2)
        held = [await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2) for _ in range(2)]
        with pytest.raises(UpstreamTimeoutError, match="in use") as caught:
            await call(engine, request_to(server.origin), Timeouts(connect=0.03))
        assert caught.value.phase == "pool"
        waiting = [asyncio.ensure_future(call(engine, request_to(server.origin))) for _ in range(6)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        for answer in held:
            answer.close()
            answer.close()  # gives nothing back twice
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, bytes)] == [b"hello"] * 3
        assert len([peer for peer in server.peers if not peer.closed.is_set()]) <= 2
        assert engine.open_connections <= 2
        await engine.aclose()


async def test_every_slot_comes_back_after_cancellations_at_any_step() -> None:
    async with raw_server(hello) as server:
        engine = Engine(max_connections=1)
        for steps in range(30):
            tasks = [asyncio.ensure_future(call(engine, request_to(server.origin))) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks[: 1 + steps % 3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await call(engine, request_to(server.origin)) == b"hello", steps
        await engine.aclose()
        assert engine.open_connections == 0


async def test_failures_give_their_slot_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = Origin(host="127.0.0.1", port=listener.getsockname()[1], is_tls=False)
    async with raw_server(respond(then="fin")) as server:
        engine = Engine(max_connections=1)
        for _ in range(3):
            with pytest.raises(UpstreamConnectError):
                await call(engine, request_to(nowhere))
            with pytest.raises(UpstreamProtocolError):
                await call(engine, request_to(server.origin))
        await engine.aclose()


async def test_a_stale_connection_gives_its_place_back() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(plain())
        await peer.request()
        peer.fin()

    async with raw_server(script) as server:
        engine = Engine(max_connections=1, stale_after=0.0)
        for _ in range(4):
            assert await call(engine, request_to(server.origin)) == b"hello"
            with pytest.raises(StaleConnectionError):
                await call(engine, request_to(server.origin))
        assert len(server.peers) == 4
        await engine.aclose()


async def test_closing_ends_the_wait_for_a_slot() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed.wait()

    async with raw_server(script) as server:
        engine = Engine(max_connections=1)
        calls = [asyncio.ensure_future(call(engine, request_to(server.origin))) for _ in range(4)]
        await eventually(lambda: len(server.requests) == 1)
        await engine.aclose()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert all(isinstance(outcome, UpstreamError) for outcome in outcomes)
        assert len(server.requests) == 1


class Wire(asyncio.Transport):
    """Keeps what is written; says stop after each write when `is_slow`."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.protocol: Connection | None = None
        self.is_slow = False
        self.is_paused = False
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        if self.is_slow and self.protocol is not None:
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


def connection_of(wire: Wire, outbox: Outbox | None = None) -> Connection:
    loop = asyncio.get_running_loop()
    connection = Connection(on_idle=lambda _: None, on_lost=lambda _: None, outbox=outbox or Outbox(), loop=loop)
    wire.protocol = connection
    connection.connection_made(wire)
    return connection


def answer_on(connection: Connection) -> EngineAnswer:
    loop = asyncio.get_running_loop()
    return EngineAnswer(connection, loop, first_byte=5, idle=5, until=loop.time() + 60, tower=Watchtower())


BODY = bytes(range(256)) * 8192  # 2 MiB


class Neighbour:
    """Another connection that sends in the same turn."""

    def write_out(self) -> None:
        """Nothing."""


def busy_outbox() -> Outbox:
    outbox = Outbox()
    outbox.add(Neighbour(), asyncio.get_running_loop())
    return outbox


async def test_bytes_that_come_before_the_request_was_written_are_no_answer() -> None:
    wire = Wire()
    connection = connection_of(wire, busy_outbox())
    answer = answer_on(connection)
    connection.send(b"HEAD", b"BODY", answer)
    assert wire.written == []
    deliver(connection, plain())
    await asyncio.sleep(0)
    assert (wire.written, wire.is_closing(), answer.has_bytes) == ([], True, False)
    connection.connection_lost(None)
    with pytest.raises(UpstreamProtocolError, match="without an answer"):
        await answer.news()
    answer.close()


async def test_a_request_that_nobody_waits_for_any_more_is_not_written() -> None:
    wire = Wire()
    connection = connection_of(wire, busy_outbox())
    answer = answer_on(connection)
    connection.send(b"HEAD", b"BODY", answer)
    answer.close()
    await asyncio.sleep(0)
    assert (wire.written, wire.is_closing()) == ([], True)


async def test_a_request_that_is_alone_in_its_turn_is_written_at_once() -> None:
    wire = Wire()
    connection = connection_of(wire)
    answer = answer_on(connection)
    connection.send(b"HEAD", b"BODY", answer)
    assert wire.written == [b"HEADBODY"]
    await asyncio.sleep(0)
    assert wire.written == [b"HEADBODY"]
    deliver(connection, plain())
    answer.close()
    assert not wire.is_closing()


class Refusing:
    """A ledger whose disk is full."""

    def __init__(self, *entries: Entry) -> None:
        self._entries = entries

    def commit(self) -> None:
        for entry in self._entries:
            entry.fault = UnavailableError("full")


@pytest.mark.parametrize("body", [b"BODY", BODY], ids=["small", "large"])
@pytest.mark.parametrize("is_busy", [False, True], ids=["quiet", "busy"])
async def test_a_request_whose_entry_cannot_be_written_does_not_leave(body: bytes, is_busy: bool) -> None:
    wire, entry = Wire(), Entry()
    outbox = busy_outbox() if is_busy else Outbox()
    outbox.write_first(Refusing(entry))
    outbox.commit_soon()
    connection = connection_of(wire, outbox)
    answer = answer_on(connection)
    connection.send(b"HEAD", body, answer, entry=entry)
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="full"):
        await answer.news()
    answer.close()
    assert (wire.written, wire.is_closing()) == ([], False)
    answer = answer_on(connection)  # it serves the next one, whose entry is written
    connection.send(b"HEAD", b"NEXT", answer, entry=Entry())
    await asyncio.sleep(0)
    assert wire.written == [b"HEADNEXT"]
    answer.close()


async def test_a_large_body_waits_for_the_socket() -> None:
    wire = Wire()
    wire.is_slow = True
    connection = connection_of(wire)
    answer = answer_on(connection)
    connection.send(b"HEAD", BODY, answer)
    assert b"".join(wire.written) == b"HEAD"
    for _ in range(8):
        before = sum(map(len, wire.written))
        connection.resume_writing()
        assert 0 < sum(map(len, wire.written)) - before <= 256 * 1024
    assert b"".join(wire.written) == b"HEAD" + BODY
    connection.resume_writing()
    assert b"".join(wire.written) == b"HEAD" + BODY
    deliver(connection, plain())
    answer.close()
    assert not wire.is_closing()


async def test_a_body_cut_short_by_its_answer_costs_the_connection() -> None:
    wire = Wire()
    wire.is_slow = True
    connection = connection_of(wire)
    answer = answer_on(connection)
    connection.send(b"HEAD", BODY, answer)
    deliver(connection, plain(status=b"413 X"))
    assert answer.has_head
    assert (answer.status, await answer.read(10)) == (413, b"hello")
    answer.close()
    assert wire.is_closing()
    sent = len(wire.written)
    connection.resume_writing()
    assert len(wire.written) == sent


async def test_a_socket_that_is_never_full_takes_all_at_once() -> None:
    wire = Wire()
    connection = connection_of(wire)
    answer = answer_on(connection)
    connection.send(b"HEAD", BODY, answer)
    assert b"".join(wire.written) == b"HEAD" + BODY
    answer.close()


async def test_data_that_came_in_time_is_no_timeout() -> None:
    loop = asyncio.get_running_loop()
    answer = EngineAnswer(
        connection_of(Wire()), loop, first_byte=5, idle=0.0, until=loop.time() + 60, tower=Watchtower()
    )
    answer.put_head(200, [])
    waiting = asyncio.ensure_future(answer.chunk())
    await asyncio.sleep(0)
    answer.put_body(b"in time")
    answer._check_deadlines()  # noqa: SLF001  # the timer cannot be aimed: in the same turn of the loop, before the reader runs
    assert await waiting == b"in time"
    answer.put_end()
    assert await answer.chunk() == b""
    answer.close()


@pytest.mark.parametrize("size", [1, 100, 5000, 10_000_000])
async def test_what_is_read_ahead_of_a_slow_reader_is_bounded(size: int) -> None:
    wire = Wire()
    connection = connection_of(wire)
    answer = answer_on(connection)
    connection.send(b"HEAD", b"x" * 100_000, answer)
    wire_bytes = b"%x\r\n" % size + b"x" * size + b"\r\n"
    stream = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + wire_bytes * (2_000_000 // len(wire_bytes) + 1)
    at = 0
    for _ in range(3):
        before = at
        while not wire.is_paused:
            buffer = connection.get_buffer(-1)
            taken = min(len(buffer), len(stream) - at)
            buffer[:taken] = stream[at : at + taken]
            connection.buffer_updated(taken)
            at += taken
        # One byte in a chunk of its own takes six on the wire.
        assert len(await answer.chunk()) <= 48 * 1024
        assert at - before <= (48 if size > 1 else 6 * 48) * 1024
    answer.close()
