"""Deadlines and their phases, readers that stop, and answers whose framing comes late."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import UpstreamProtocolError, UpstreamTimeoutError
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.connecting import default_context
from rawserver import (
    BOTH_LOOPS,
    TIMEOUTS,
    Peer,
    chunked,
    eventually,
    plain,
    raw_server,
    request_to,
    respond,
    running_engine,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ALL_OTHERS = 5.0
"""Seconds of the deadlines that are not the ones under test."""
LONG = Timeouts(connect=ALL_OTHERS, idle=ALL_OTHERS, total=ALL_OTHERS)


@contextlib.asynccontextmanager
async def times_out(phase: str, after: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(UpstreamTimeoutError) as caught:
        yield
    took = loop.time() - started
    assert caught.value.phase == phase
    assert after - 0.005 <= took < ALL_OTHERS


@contextlib.contextmanager
def full_backlog() -> Iterator[Origin]:
    """An address where connections are never made: the queue of its listener is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield Origin(host="127.0.0.1", port=listener.getsockname()[1], is_tls=False)


async def stall(peer: Peer) -> None:
    await peer.closed.wait()


@pytest.mark.parametrize(("timeouts", "after"), [(Timeouts(connect=0.1), 0.1), (Timeouts(connect=5, total=0.1), 0.1)])
async def test_connect(timeouts: Timeouts, after: float) -> None:
    async with running_engine() as engine:
        with full_backlog() as origin:
            async with times_out("connect", after):
                await engine.open(request_to(origin), timeouts, first_byte=5)


async def test_a_handshake_that_never_ends() -> None:
    # Reading the CA bundle takes time of its own: not within the deadline.
    async with raw_server(stall) as server, running_engine(ssl_context=default_context()) as engine:
        origin = Origin(host="127.0.0.1", port=server.origin.port, is_tls=True)
        async with times_out("connect", 0.1):
            await engine.open(request_to(origin), Timeouts(connect=0.1), first_byte=5)
        assert engine.open_connections == 0
        await asyncio.wait_for(server.peers[0].closed.wait(), ALL_OTHERS)


@pytest.mark.parametrize(
    ("timeouts", "first_byte", "phase"), [(LONG, 0.05, "first_byte"), (Timeouts(total=0.05, idle=5), 5, "total")]
)
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("is_reused", [False, True], ids=["fresh", "reused"])
async def test_first_byte(*, timeouts: Timeouts, first_byte: float, phase: str, sent: bytes, is_reused: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if is_reused:
            await peer.send(plain())
            await peer.request()
        await peer.send(sent)
        await stall(peer)

    async with raw_server(script) as server, running_engine() as engine:
        if is_reused:
            answer = await engine.open(request_to(server.origin), LONG, first_byte=5)
            await answer.read(100)
            answer.close()
        async with times_out(phase, 0.05):
            await engine.open(request_to(server.origin), timeouts, first_byte=first_byte)
        await eventually(lambda: engine.open_connections == 0)
        assert len(server.peers) == 1
        await asyncio.wait_for(server.peers[0].closed.wait(), ALL_OTHERS)


@pytest.mark.parametrize("first_byte", [0.04, 1.0])
@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n", b"ff\r\nhalf"])
async def test_idle(first_byte: float, sent: bytes) -> None:
    async with raw_server(respond(HEAD + sent, then="stall")) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), Timeouts(idle=0.05, total=900), first_byte=first_byte)
        if sent:
            await answer.chunk()
        async with times_out("idle", 0.05):
            await answer.chunk()
        with pytest.raises(UpstreamTimeoutError):
            await answer.chunk()
        answer.close()


async def test_each_chunk_moves_the_idle_deadline_but_not_the_total() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            await asyncio.sleep(0.03)
            await peer.send(b"1\r\na\r\n")

    async with raw_server(script) as server, running_engine() as engine:
        count = 0
        async with times_out("total", 0.25):
            answer = await engine.open(request_to(server.origin), Timeouts(idle=0.1, total=0.25), first_byte=0.1)
            while await answer.chunk():
                count += 1
        answer.close()
        assert count >= 4


async def test_a_slow_reader_is_no_silence() -> None:
    async with raw_server(respond(HEAD + b"1\r\na\r\n", b"1\r\nb\r\n")) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), Timeouts(idle=0.05, total=5), first_byte=0.05)
        await asyncio.sleep(0.08)
        taken = await answer.chunk()
        assert (taken if taken == b"ab" else taken + await answer.chunk()) == b"ab"
        await asyncio.sleep(0.08)
        async with times_out("idle", 0.05):
            await answer.chunk()
        answer.close()


async def test_total_ends_the_answer_of_a_reader_that_never_waits() -> None:
    async with raw_server(respond(HEAD + b"1\r\na\r\n", then="stall")) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), Timeouts(idle=0.03, total=0.1), first_byte=0.05)
        await asyncio.sleep(0.15)
        assert await answer.chunk() == b"a"
        with pytest.raises(UpstreamTimeoutError) as caught:
            await answer.chunk()
        assert caught.value.phase == "total"
        answer.close()


async def test_a_connection_that_was_paused_serves_again() -> None:
    body = b"w" * 3_000_000
    async with raw_server(respond(plain(body))) as server, running_engine() as engine:
        for _ in range(3):
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
            await asyncio.sleep(0.01)
            assert len(await answer.read(4_000_000)) == len(body)
            answer.close()
        assert len(server.peers) == 1


async def test_the_cut_of_a_paused_answer() -> None:
    response = plain(b"w" * 300_000)[:-1]
    async with raw_server(respond(response, then="fin")) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
        await asyncio.sleep(0.02)
        size = 0
        while size < 299_999:
            size += len(await answer.chunk())
        with pytest.raises(UpstreamProtocolError):
            await answer.chunk()
        answer.close()


async def test_read_has_a_limit() -> None:
    async with raw_server(respond(plain(b"w" * 1000))) as server, running_engine() as engine:
        for limit, is_good in ((1000, True), (999, False)):
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
            if is_good:
                assert len(await answer.read(limit)) == 1000
            else:
                with pytest.raises(UpstreamProtocolError, match="longer"):
                    await answer.read(limit)
            answer.close()
        assert engine.idle_connections == 1


STREAM = chunked(b"data: 1\n\n", b"data: [DONE]\n\n", end=b"")


@pytest.mark.parametrize("late", [b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"])
async def test_conclude_waits_for_the_end(late: bytes) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM)
            await asyncio.sleep(0.05)
            await peer.send(late)

    async with raw_server(script) as server, running_engine() as engine:
        for _ in range(2):
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
            assert (await answer.chunk()).endswith(b"[DONE]\n\n")
            answer.conclude()
            assert (engine.idle_connections, engine.open_connections) == (0, 1)
            await eventually(lambda: engine.idle_connections == 1)
            answer.close()
            answer.conclude()
            answer.close()
        assert len(server.peers) == 1


@pytest.mark.parametrize("late", [b"\r\nnonsense", b"0\r\n\r\nnonsense", b"0\r\n\r\nHTTP/1.1 2", None])
async def test_conclude_when_the_framing_breaks(late: bytes | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        await asyncio.sleep(0.02)
        if late:
            await peer.send(late)
            await peer.closed.wait()
        peer.fin()

    async with raw_server(script) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
        await answer.chunk()
        answer.conclude()
        await eventually(lambda: engine.open_connections == 0)
        answer.close()


async def test_conclude_of_a_whole_answer_and_close_twice() -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        for _ in range(3):
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
            await answer.read(100)
            answer.conclude()
            other = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
            answer.close()
            answer.conclude()
            assert await other.read(100) == b"hello"
            other.close()
            other.close()
        assert len(server.peers) == 1
        assert engine.idle_connections == 1


async def test_a_reader_whose_answer_is_closed_is_told() -> None:
    async with raw_server(respond(STREAM, then="stall")) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
        await answer.chunk()
        waiting = asyncio.ensure_future(answer.chunk())
        await asyncio.sleep(0)
        answer.close()
        with pytest.raises(UpstreamProtocolError):
            await asyncio.wait_for(waiting, ALL_OTHERS)
