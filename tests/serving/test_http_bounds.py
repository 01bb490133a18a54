"""What a slow, greedy or silent client may hold, and for how long. Time is moved, not waited for."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from door_rig import (
    GET,
    Listener,
    MovedClock,
    Recorder,
    answer,
    answers,
    listening,
    read_all,
    read_answer,
    send,
    until,
    whole_body,
)
from gateway_middleware.serving.http.limits import DoorLimits
from rawserver import BOTH_LOOPS

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
CLOSING_POST = POST[:-2] + b"connection: close\r\n\r\n"
LAST = GET[:-2] + b"connection: close\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nhost: x\r\na: "
TURN = 0.02
"""Real seconds in which the door looks at its deadlines several times."""


async def is_open(reader: asyncio.StreamReader) -> bool:
    await asyncio.sleep(TURN)
    return not reader.at_eof()


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n\r\n", HALF], ids=["silent", "blank lines", "half a head"])
async def test_a_head_has_so_many_seconds_from_the_connection_on(sent: bytes) -> None:
    clock = MovedClock()
    async with listening(Recorder(), clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(sent)
        await asyncio.sleep(TURN)
        clock.now += 9.9
        assert await is_open(reader)
        writer.write(sent[-1:])
        await asyncio.sleep(TURN)
        clock.now += 0.2
        got = answers(await read_all(reader))
        writer.close()
    assert [a.status for a in got] == ([408] if sent == HALF else [])


async def test_a_trickled_head_has_no_more() -> None:
    clock = MovedClock()
    async with listening(Recorder(), clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(HALF)
        for _ in range(5):
            clock.now += 1.9
            writer.write(b"b")
            assert await is_open(reader)
        clock.now += 0.6
        assert [a.status for a in answers(await read_all(reader))] == [408]
        writer.close()


async def test_the_next_head_has_so_many_seconds_from_its_first_byte_on() -> None:
    clock = MovedClock()
    async with listening(Recorder(), clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(GET)
        await read_answer(reader)
        clock.now += 74.0
        assert await is_open(reader)
        writer.write(HALF)
        await asyncio.sleep(TURN)
        clock.now += 9.9
        assert await is_open(reader)
        clock.now += 0.2
        assert [a.status for a in answers(await read_all(reader))] == [408]
        writer.close()


async def test_the_beginning_of_a_head_that_follows_a_request_has_no_more() -> None:
    clock = MovedClock()
    async with listening(Recorder(), clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(GET + HALF)
        await read_answer(reader)
        clock.now += 10.1
        assert [a.status for a in answers(await read_all(reader))] == [408]
        writer.close()


async def test_an_idle_connection_is_closed_in_silence() -> None:
    clock = MovedClock()
    async with listening(Recorder(), clock=clock) as listener:
        reader, writer = await listener.connect()
        for _ in range(3):
            writer.write(GET)
            await read_answer(reader)
            clock.now += 74.9
            assert await is_open(reader)
        clock.now += 0.2
        assert await read_all(reader) == b""
        writer.close()


async def test_an_answer_may_take_any_time() -> None:
    clock = MovedClock()
    may_go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await may_go_on.wait()
        await answer(send, headers=[(b"content-length", b"2")])

    async with listening(app, clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(POST % 3 + b"abc")
        await asyncio.sleep(TURN)
        clock.now += 100_000
        assert await is_open(reader)
        may_go_on.set()
        assert (await read_answer(reader)).body == b"ok"
        writer.close()


@pytest.mark.parametrize("piece", [b"", b"a"], ids=["silent", "trickled"])
async def test_a_body_that_does_not_move_is_answered_408(piece: bytes) -> None:
    clock, app = MovedClock(), Recorder()
    async with listening(app, clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(POST % 100_000)
        await until(lambda: len(app.scopes) == 1)
        for _ in range(14):
            await asyncio.sleep(TURN / 4)
            clock.now += 2.0
            writer.write(piece)
        assert await is_open(reader)
        clock.now += 2.1
        got = answers(await read_all(reader))
        writer.close()
        await until(lambda: app.disconnects == 1)
    assert [(a.status, a.header(b"connection")) for a in got] == [(408, b"close")]


async def test_a_body_that_stops_after_a_burst_is_answered_408() -> None:
    clock, app = MovedClock(), Recorder()
    async with listening(app, clock=clock) as listener:
        reader, writer = await hold(listener, 10_000_000, 5_000_000)
        await asyncio.sleep(TURN)
        clock.now += 30.1
        assert [a.status for a in answers(await read_all(reader))] == [408]
        writer.close()
        await until(lambda: listener.door.body_bytes == 0)


async def test_a_body_that_moves_may_take_any_time() -> None:
    clock, app = MovedClock(), Recorder()
    async with listening(app, clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(POST % (20 * 31 * 1024))
        await until(lambda: len(app.scopes) == 1)
        for _ in range(20):
            clock.now += 29.0
            await asyncio.sleep(TURN / 2)
            writer.write(b"a" * 31 * 1024)
            await asyncio.sleep(TURN / 2)
        assert (await read_answer(reader)).status == 200
        writer.close()
    assert len(app.bodies[0]) == 20 * 31 * 1024


async def test_an_application_that_does_not_read_is_not_the_clients_fault() -> None:
    clock = MovedClock()
    may_go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await may_go_on.wait()
        body = await whole_body(receive)
        await answer(send, b"%d" % len(body or b""), headers=[(b"content-length", b"7")])

    async with listening(app, clock=clock) as listener:
        reader, writer = await listener.connect()
        body = b"a" * 3_000_000
        writer.write(POST % len(body) + body)
        await asyncio.sleep(TURN)
        assert listener.door.body_bytes <= 64 * 1024 + 256 * 1024  # reading is paused
        clock.now += 1000.0
        assert await is_open(reader)
        may_go_on.set()
        assert (await read_answer(reader)).body == b"3000000"
        writer.close()


def refusing(status: int = 401) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", status, [(b"content-length", b"2")])

    return app


@pytest.mark.parametrize("framing", [b"content-length: 1073741824", b"transfer-encoding: chunked"])
async def test_a_refused_body_is_not_read_on(framing: bytes) -> None:
    async with listening(refusing(), limits=DoorLimits(max_bodies_bytes=1 << 31, linger_seconds=0.3)) as listener:
        reader, writer = await listener.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n")
        reading = asyncio.ensure_future(read_all(reader))
        pushed = 0
        mega = b"a" * 1_000_000
        chunk = mega if b"length" in framing else b"f4240\r\n" + mega + b"\r\n"
        try:
            while pushed < 400_000_000:
                writer.write(chunk)
                pushed += len(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        got = answers(await reading)
        writer.close()
    assert [(a.status, a.header(b"connection"), a.body) for a in got] == [(401, b"close", b"no")]
    assert pushed < 20_000_000  # what the buffers of both kernels take


async def test_a_client_that_sends_a_little_more_sees_the_refusal_and_then_the_end() -> None:
    async with listening(refusing()) as listener:
        for size in (1, 1000, 60_000):
            got = answers(await send(listener.port, POST % 100_000, b"a" * size))
            assert [a.status for a in got] == [401]


async def test_lingering_ends() -> None:
    clock = MovedClock()
    async with listening(refusing(), clock=clock) as listener:
        reader, writer = await listener.connect()
        writer.write(POST % 100_000)
        assert (await read_answer(reader)).status == 401
        assert await reader.read() == b""  # our half is closed at once
        writer.write(b"a" * 1000)
        await asyncio.sleep(TURN)
        assert listener.state.connections
        clock.now += 1.1
        await listener.settled()
        writer.close()


async def test_an_answer_to_a_request_that_was_read_keeps_the_connection() -> None:
    async with listening(refusing()) as listener:
        reader, writer = await listener.connect()
        for _ in range(2):
            writer.write(POST % 3 + b"abc")
            got = await read_answer(reader)
            assert (got.status, got.header(b"connection")) == (401, None)
        writer.close()


async def test_connections_over_the_cap_are_answered_503() -> None:
    app = Recorder()
    async with listening(app, limits=DoorLimits(max_connections=8)) as listener:
        inside = [await listener.connect() for _ in range(8)]
        await until(lambda: listener.door.connections == 8)
        for _ in range(5):  # far over the cap some of these are not even lingered for
            got = answers(await send(listener.port, GET))
            assert [(a.status, a.header(b"connection"), a.header(b"retry-after")) for a in got] == [
                (503, b"close", b"1")
            ]
        for reader, writer in inside:
            writer.write(GET)
            assert (await read_answer(reader)).status == 200
        inside[0][1].close()
        await until(lambda: listener.door.connections < 8)
        got = answers(await send(listener.port, LAST))
        assert [a.status for a in got] == [200]
        for _, writer in inside:
            writer.close()
    assert len(app.bodies) == 9


async def hold(listener: Listener, size: int, sent: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    before = listener.door.body_bytes
    reader, writer = await listener.connect()
    writer.write(POST % size + b"a" * sent)
    await until(lambda: listener.door.body_bytes == before + sent)
    return reader, writer


async def test_bodies_under_way_are_counted_over_all_connections() -> None:
    app = Recorder()
    async with listening(app, limits=DoorLimits(max_bodies_bytes=100_000, linger_seconds=60.0)) as listener:
        held = [await hold(listener, 40_000, 39_999) for _ in range(2)]
        assert listener.door.body_bytes == 79_998
        refused = answers(await send(listener.port, POST % 30_000))
        too_large = answers(await send(listener.port, POST % 100_001))
        chunks = (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"a" * 4096 + b"\r\n"
        )
        midway = answers(await send(listener.port, chunks, *[b"1000\r\n" + b"a" * 4096 + b"\r\n"] * 5))
        small = answers(await send(listener.port, POST % 3 + b"abc" + LAST))
        for reader, writer in held:
            writer.write(b"a")
            assert (await read_answer(reader)).status == 200
        await until(lambda: listener.door.body_bytes == 0)
        after = answers(await send(listener.port, CLOSING_POST % 99_999 + b"a" * 99_999))
        for _, writer in held:
            writer.close()
    assert [[a.status for a in got] for got in (refused, too_large, midway, small, after)] == [
        [503],
        [413],
        [503],
        [200, 200],
        [200],
    ]
    assert refused[0].header(b"retry-after") == b"1"
    assert too_large[0].header(b"retry-after") is None


async def test_what_the_application_got_counts_until_it_returns() -> None:
    may_end = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await answer(send, headers=[(b"content-length", b"2")])
        await may_end.wait()

    async with listening(app, limits=DoorLimits(max_bodies_bytes=1000)) as listener:
        reader, writer = await listener.connect()
        writer.write(POST % 900 + b"a" * 900)
        await read_answer(reader)
        assert [a.status for a in answers(await send(listener.port, POST % 200))] == [503]
        writer.close()
        await until(lambda: listener.door.connections == 0)
        assert listener.door.body_bytes == 900
        may_end.set()
        await until(lambda: listener.door.body_bytes == 0)


async def test_beginnings_of_heads_count_as_well() -> None:
    async with listening(Recorder(), limits=DoorLimits(max_bodies_bytes=100_000)) as listener:
        reader, writer = await listener.connect()
        writer.write(HALF + b"a" * 60_000)
        await until(lambda: listener.door.body_bytes > 60_000)
        got = answers(await send(listener.port, HALF + b"a" * 60_000))
        assert [a.status for a in got] == [503]
        writer.write(b"\r\n\r\n")
        assert (await read_answer(reader)).status == 200
        assert listener.door.body_bytes == 0
        writer.close()


async def test_what_is_pipelined_counts_and_where_there_is_no_room_the_connection_ends_with_its_answer() -> None:
    may_go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await may_go_on.wait()
        await answer(send, headers=[(b"content-length", b"2")])

    async with listening(app, limits=DoorLimits(max_bodies_bytes=100_000)) as listener:
        first, second = await listener.connect(), await listener.connect()
        first[1].write(GET + POST % 60_000 + b"a" * 60_000)
        await until(lambda: listener.door.body_bytes > 60_000)
        second[1].write(GET + POST % 60_000 + b"a" * 60_000)
        await asyncio.sleep(TURN)
        assert listener.door.body_bytes < 100_000
        may_go_on.set()
        assert [(await read_answer(first[0])).status for _ in range(2)] == [200, 200]
        ended = answers(await read_all(second[0]))
        assert [(a.status, a.header(b"connection")) for a in ended] == [(200, b"close")]
        for _, writer in (first, second):
            writer.close()


def stalled_reader(port: int, request: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    client.setblocking(False)
    return client


@pytest.mark.parametrize("size", [1000, 10_000_000], ids=["stream", "one message"])
async def test_a_reader_that_stalls_holds_the_application_back(size: int) -> None:
    sent = 0
    biggest = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(10_000_000 // size):
            await send({"type": "http.response.body", "body": b"a" * size, "more_body": True})
            sent += size
        await send({"type": "http.response.body", "body": b""})

    async with listening(app) as listener:
        client = stalled_reader(listener.port, GET)
        before = -1
        while before != sent or not listener.state.tasks:
            before = sent
            await asyncio.sleep(0.1)
            (connection,) = listener.state.connections
            transport = connection._transport  # type: ignore[union-attr]  # noqa: SLF001 - where the bytes would pile up
            biggest = max(biggest, transport.get_write_buffer_size())
        assert sent < 6_000_000  # the kernel's buffers
        assert biggest <= 256 * 1024
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        reader, writer = await asyncio.open_connection(sock=client)
        data = await read_until_end(reader)
        writer.close()
    assert data.count(b"a") >= 10_000_000


async def read_until_end(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        data += await reader.read(1 << 20)
    return data


async def test_a_closed_connection_whose_client_does_not_read_goes_after_a_while() -> None:
    clock = MovedClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"a" * 60_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with listening(app, clock=clock) as listener:
        client = stalled_reader(listener.port, GET)
        await until(lambda: bool(listener.state.tasks))
        await asyncio.sleep(0.1)
        client.shutdown(socket.SHUT_WR)
        await until(lambda: not listener.state.tasks)
        await asyncio.sleep(TURN)
        assert listener.state.connections
        clock.now += 30.1
        await listener.settled()
        client.close()


async def test_silent_and_trickling_clients_do_not_hurt_good_ones() -> None:
    clock = MovedClock()
    app = Recorder()
    async with listening(app, clock=clock) as listener:
        slow = [await listener.connect() for _ in range(300)]
        for number, (_, writer) in enumerate(slow):
            writer.write([b"", HALF, POST % 1000][number % 3])
        for second in range(31):
            clock.now += 1.0
            for number, (_, writer) in enumerate(slow):
                if number % 3 and number % 2 and not writer.is_closing():
                    writer.write(b"a")
            got = answers(await send(listener.port, LAST))
            assert [a.status for a in got] == [200], second
        await until(lambda: listener.state.tasks == set())
        clock.now += 2.0
        await until(lambda: listener.door.connections == 0)
        for _, writer in slow:
            writer.close()
