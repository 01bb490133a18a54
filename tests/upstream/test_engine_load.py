"""The tests of the engine that take long: on the loop of production only."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from gateway_middleware.core.errors import UpstreamError
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.engine import Engine
from rawserver import (
    TIMEOUTS,
    Peer,
    chunked,
    eventually,
    in_segments,
    plain,
    raw_server,
    request_to,
    respond,
    running_engine,
    stopped,
)
from rawserver import (
    call as whole_call,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])]

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
RESPONSE = chunked(b"one", b"two", b"three")
call = partial(whole_call, limit=1000)
slowly = in_segments(RESPONSE)
STREAM = chunked(b"data: 1\n\n", b"data: [DONE]\n\n", end=b"")


async def test_many_slow_calls_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.3)
        await peer.send(plain())
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        loop = asyncio.get_running_loop()
        started = loop.time()
        bodies = await asyncio.gather(*(call(engine, request_to(server.origin)) for _ in range(256)))
        assert loop.time() - started < 1.0
        assert bodies == [b"hello"] * 256
        assert engine.idle_connections == engine.open_connections == 256


async def test_random_answers_never_mix() -> None:
    dice = random.Random(7)

    async def script(peer: Peer) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            response = plain(body) if dice.random() < 0.5 else chunked(body[:1], body[1:])
            await asyncio.sleep(dice.random() * 0.002)
            await peer.send(response[: dice.randrange(len(response))] if dice.random() < 0.1 else response)
            if dice.random() < 0.1:
                peer.fin()

    async def caller(name: int, engine: Engine, origin: Origin) -> int:
        good = 0
        for number in range(40):
            body = b"%d-%d" % (name, number)
            try:
                answer = await engine.open(request_to(origin, body), TIMEOUTS, first_byte=0.05)
            except UpstreamError:
                continue
            try:
                assert await asyncio.wait_for(answer.read(100), 0.05) == body
                good += 1
            except (UpstreamError, TimeoutError):
                pass
            finally:
                answer.close()
        return good

    async with raw_server(script) as server, running_engine() as engine:
        counts = await asyncio.gather(*(caller(name, engine, server.origin) for name in range(10)))
        assert sum(counts) > 200
        await eventually(lambda: engine.open_connections == engine.idle_connections)


async def test_a_good_call_after_many_cancelled_ones() -> None:
    dice = random.Random(3)

    async def one(engine: Engine, origin: Origin) -> None:
        task = asyncio.ensure_future(call(engine, request_to(origin)))
        await asyncio.sleep(dice.random() * 0.012)
        if not task.done():
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError) or outcome == b"onetwothree"

    async with raw_server(slowly) as server, running_engine() as engine:
        for _ in range(40):
            await asyncio.gather(*(one(engine, server.origin) for _ in range(50)))
        await eventually(lambda: engine.open_connections == engine.idle_connections)
        bodies = await asyncio.gather(*(call(engine, request_to(server.origin)) for _ in range(100)))
        assert bodies == [b"onetwothree"] * 100
        assert engine.open_connections == engine.idle_connections


async def test_conclude_waits_a_second_at_most() -> None:
    async with raw_server(respond(STREAM, then="stall")) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
        await answer.chunk()
        answer.conclude()
        await asyncio.sleep(0.8)
        assert engine.open_connections == 1
        await eventually(lambda: engine.open_connections == 0, 0.5)
        await asyncio.wait_for(server.peers[0].closed.wait(), 1)


async def test_a_reader_that_stops_stops_the_upstream() -> None:
    piece = b"%x\r\n%s\r\n" % (65536, b"z" * 65536)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(piece)

    async with raw_server(script) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
        await stopped(server.peers[0], limit=8_000_000)
        size = 0
        while size < 20_000_000:
            chunk = await answer.chunk()
            assert len(chunk) < 1_000_000
            size += len(chunk)
        answer.close()
        await asyncio.wait_for(server.peers[0].closed.wait(), 1)
