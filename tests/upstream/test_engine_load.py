"""The tests of the engine that take long: on the loop of production only."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from gateway_middleware.core.domain import Timeouts
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

PATIENT = Timeouts(connect=30.0, first_byte=30.0, answer=30.0, idle=30.0, total=60.0)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
RESPONSE = chunked(b"one", b"two", b"three")
call = partial(whole_call, limit=1000)
slowly = in_segments(RESPONSE)
STREAM = chunked(b"data: 1\n\n", b"data: [DONE]\n\n", end=b"")


async def test_many_slow_calls_at_once() -> None:
    all_are_there = asyncio.Barrier(256)

    async def script(peer: Peer) -> None:
        await peer.request()
        await all_are_there.wait()  # nobody is answered before all calls are under way
        await peer.send(plain())
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        bodies = await asyncio.gather(*(call(engine, request_to(server.origin), PATIENT) for _ in range(256)))
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
                answer = await engine.open(request_to(origin, body), TIMEOUTS, first_byte=0.25)
            except UpstreamError:
                continue
            try:
                assert await asyncio.wait_for(answer.read(100), 0.25) == body
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
        concluded = asyncio.get_running_loop().time()
        await eventually(lambda: engine.open_connections == 0)
        assert asyncio.get_running_loop().time() - concluded >= 0.9
        await asyncio.wait_for(server.peers[0].closed.wait(), 10)


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
        await asyncio.wait_for(server.peers[0].closed.wait(), 10)
