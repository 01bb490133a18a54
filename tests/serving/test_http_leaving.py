"""Clients that leave, half-close or are shut down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

import pytest
import uvicorn

from door_rig import GET, Recorder, answer, answers, listening, read_all, read_answer, send, until, whole_body
from gateway_middleware.serving.http.limits import DoorLimits, HalfClose
from gateway_middleware.serving.http.protocol import http_protocol
from rawserver import BOTH_LOOPS
from running import QuietServer

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"


class Waiting:
    """An application that answers when told, and notes when its client leaves before."""

    def __init__(self) -> None:
        self.started = 0
        self.left = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.started += 1
        await whole_body(receive)
        gone = asyncio.ensure_future(receive())
        told = asyncio.ensure_future(self.may_answer.wait())
        await asyncio.wait({gone, told}, return_when="FIRST_COMPLETED")
        if gone.done():
            self.left += 1
            assert gone.result() == {"type": "http.disconnect"}
        told.cancel()
        await answer(send, headers=[(b"content-length", b"2")])  # silently dropped when nobody is there
        await gone


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_is_told_to_the_application(how: str) -> None:
    app = Waiting()
    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(POST)
        await until(lambda: app.started == 1)
        if how == "half-close":
            writer.write_eof()
            assert await read_all(reader) == b""
        elif how == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()
        await listener.settled()
    assert app.left == 1


async def test_a_client_that_leaves_in_the_middle_of_an_answer() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        seen.append((await receive())["type"])
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"a" * 100_000, "more_body": True})

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(GET)
        await reader.readuntil(b"\r\na\r\n")
        writer.close()
        await listener.settled()
    assert seen == ["http.disconnect"]


async def test_an_answer_that_only_its_connection_ends_is_reset_when_the_client_leaves_half() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await receive()

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\na")
        writer.write_eof()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_sender_that_waits_for_a_stalled_client_is_released_when_it_leaves() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"a" * 100_000, "more_body": True})
        ended.set()

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 10)


ALLOW = DoorLimits(half_close=HalfClose.ALLOW)


async def test_half_closed_clients_can_be_answered() -> None:
    app = Waiting()
    async with listening(app, limits=ALLOW) as listener:
        reader, writer = await listener.connect()
        writer.write(POST)
        writer.write_eof()
        await until(lambda: app.started == 1)
        await asyncio.sleep(0.02)
        assert not reader.at_eof()
        app.may_answer.set()
        assert [a.body for a in answers(await read_all(reader))] == [b"ok"]
        writer.close()
    assert app.left == 0


async def test_half_closed_clients_can_be_answered_all_they_asked() -> None:
    app = Recorder()
    async with listening(app, limits=ALLOW) as listener:
        assert len(answers(await send(listener.port, GET * 5 + b"GET / HT", eof=True))) == 5
        assert len(answers(await send(listener.port, GET * 5, eof=True))) == 5
        await listener.settled()
    assert len(app.bodies) == 10


async def test_half_of_a_request_is_not_answered_either_way() -> None:
    app = Recorder()
    async with listening(app, limits=ALLOW) as listener:
        assert await send(listener.port, POST[:-1], eof=True) == b""
        await listener.settled()
    assert (app.bodies, app.disconnects) == ([], 1)


async def test_waiting_twice_for_the_client_to_leave() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        first, second = asyncio.ensure_future(receive()), asyncio.ensure_future(receive())
        await asyncio.sleep(0.01)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        seen.append((await second)["type"])

    async with listening(app) as listener:
        _, writer = await listener.connect()
        writer.write(GET)
        await asyncio.sleep(0.05)
        writer.close()
        await listener.settled()
    assert seen == ["http.disconnect"]


@contextlib.asynccontextmanager
async def uvicorn_serving(app: Any, grace: int = 2) -> Any:
    protocol: Any = http_protocol(DoorLimits())
    config = uvicorn.Config(
        app, port=0, http=protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=grace, ws="none"
    )
    server = QuietServer(config)
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1], task
    finally:
        server.should_exit = True
        await task


async def test_a_shutdown_of_uvicorn_lets_calls_end_and_closes_the_idle() -> None:
    app = Waiting()
    async with uvicorn_serving(app) as (server, port, task):
        readers = []
        for data in (b"", GET[:10], POST + GET, POST):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            readers.append((reader, writer))
        await until(lambda: app.started == 2)
        server.should_exit = True
        assert await read_all(readers[0][0]) == b""
        assert await read_all(readers[1][0]) == b""
        app.may_answer.set()
        for reader, _ in readers[2:]:
            got = answers(await read_all(reader))
            assert [(a.status, a.header(b"connection")) for a in got] == [(200, b"close")]
        await asyncio.wait_for(task, 10)
        assert server.server_state.total_requests == 2
        for _, writer in readers:
            writer.close()


async def test_calls_that_outlive_the_grace_of_uvicorn_are_answered_503() -> None:
    app = Waiting()
    async with uvicorn_serving(app, grace=0) as (server, port, task):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST)
        await until(lambda: app.started == 1)
        server.should_exit = True
        assert [a.status for a in answers(await read_all(reader))] == [503]
        await asyncio.wait_for(task, 10)
        writer.close()


async def test_keep_alive_serves_many() -> None:
    app = Recorder()
    async with listening(app) as listener:
        reader, writer = await listener.connect()
        for _ in range(200):
            writer.write(POST)
            assert (await read_answer(reader)).status == 200
        assert listener.state.total_requests == 200
        writer.close()
