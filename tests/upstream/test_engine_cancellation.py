"""A call may be cancelled at every await, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest

from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.connecting import default_context
from gateway_middleware.upstream.engine import Engine
from rawserver import (
    BOTH_LOOPS,
    Peer,
    chunked,
    eventually,
    in_segments,
    raw_server,
    request_to,
    running_engine,
)
from rawserver import (
    call as whole_call,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

RESPONSE = chunked(b"one", b"two", b"three")
call = partial(whole_call, limit=1000)
slowly = in_segments(RESPONSE)


async def cancel(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def nothing_is_left(engine: Engine, tasks: set[asyncio.Task[object]]) -> None:
    await eventually(lambda: engine.open_connections == engine.idle_connections)
    await eventually(lambda: asyncio.all_tasks() <= tasks)


async def test_cancelled_after_any_number_of_steps() -> None:
    async with raw_server(slowly) as server, running_engine() as engine:
        tasks = asyncio.all_tasks()
        steps, finished = 0, 0
        while finished < 3:
            task = asyncio.ensure_future(call(engine, request_to(server.origin)))
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.done():
                finished += 1
                assert task.result() == b"onetwothree"
            else:
                await cancel(task)
            steps = steps + 1 if steps < 40 else steps * 2
        await eventually(lambda: asyncio.all_tasks() - tasks <= server.tasks)
        await eventually(lambda: engine.open_connections == engine.idle_connections)
        open_peers = [peer for peer in server.peers if not peer.closed.is_set()]
        await eventually(lambda: len([p for p in open_peers if not p.closed.is_set()]) == engine.open_connections)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 20", RESPONSE[:50], RESPONSE[:-3]])
@pytest.mark.parametrize("is_reused", [False, True], ids=["fresh", "reused"])
async def test_cancelled_while_it_waits(*, sent: bytes, is_reused: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if is_reused:
            await peer.send(RESPONSE)
            await peer.request()
        await peer.send(sent)
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        if is_reused:
            await call(engine, request_to(server.origin))
        task = asyncio.ensure_future(call(engine, request_to(server.origin)))
        await eventually(lambda: server.peers != [] and server.peers[0].sent >= len(sent) + is_reused * len(RESPONSE))
        await asyncio.sleep(0.005)
        await cancel(task)
        await eventually(lambda: engine.open_connections == 0)
        await asyncio.wait_for(server.peers[0].closed.wait(), 10)
        assert len(server.peers) == 1


async def test_cancelled_while_it_connects() -> None:
    with socket.socket() as listener, socket.socket() as one, socket.socket() as two:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (one, two):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        async with running_engine() as engine:
            tasks = asyncio.all_tasks()
            origin = Origin(host="127.0.0.1", port=listener.getsockname()[1], is_tls=False)
            calls = [asyncio.ensure_future(call(engine, request_to(origin))) for _ in range(20)]
            await asyncio.sleep(0.02)
            for task in calls:
                await cancel(task)
            await nothing_is_left(engine, tasks)


async def test_cancelled_in_a_handshake() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine(ssl_context=default_context()) as engine:
        origin = Origin(host="127.0.0.1", port=server.origin.port, is_tls=True)
        tasks = asyncio.all_tasks()
        calls = [asyncio.ensure_future(call(engine, request_to(origin))) for _ in range(20)]
        await eventually(lambda: len(server.peers) == 20 and all(peer.received for peer in server.peers))
        for task in calls:
            await cancel(task)
        await nothing_is_left(engine, tasks)
        await eventually(lambda: all(peer.closed.is_set() for peer in server.peers))
