"""A response that is cut anywhere is an error, and never a silent end."""

from __future__ import annotations

import asyncio

import pytest

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.upstream.engine import Engine
from rawserver import BOTH_LOOPS, TIMEOUTS, Peer, chunked, eventually, plain, raw_server, request_to, running_engine

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

EVENTS = [b'data: {"id":1}\n\n', b"data: [DONE]\n\n"]
RESPONSES = {
    "content-length": plain(b"hello world"),
    "chunked": chunked(b"hello", b" world"),
    "sse": chunked(*EVENTS, extra=b"content-type: text/event-stream\r\n"),
    "interim": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + plain(b"ok"),
}


def body_of(response: bytes) -> bytes:
    """The body bytes in a whole or cut response of the table."""
    if b"103 Early" in response:
        response = response.partition(b"\r\n\r\n")[2]
    head, _, rest = response.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


async def read(engine: Engine, request: object, got: list[bytes]) -> None:
    answer = await engine.open(request, TIMEOUTS, first_byte=2.0)  # type: ignore[arg-type]
    try:
        while chunk := await answer.chunk():
            got.append(chunk)
    finally:
        answer.close()


async def call_cut(peer: Peer, response: bytes, cuts: list[int], *, reset: bool) -> None:
    await peer.request()
    cut = cuts[peer.number]
    if cut:
        await peer.send(response[:cut])
    if not reset:
        peer.fin()
        return
    await asyncio.sleep(0.001)  # a reset overtakes what the receiver has not read
    peer.reset()


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
@pytest.mark.parametrize("kind", RESPONSES)
async def test_every_cut_is_an_error(*, kind: str, reset: bool) -> None:
    response = RESPONSES[kind]
    cuts = list(range(len(response)))
    async with raw_server(lambda p: call_cut(p, response, cuts, reset=reset)) as server, running_engine() as engine:
        for cut in cuts:
            got: list[bytes] = []
            with pytest.raises(UpstreamProtocolError):
                await read(engine, request_to(server.origin), got)
            assert b"".join(got) == body_of(response[:cut]), cut
        await eventually(lambda: engine.open_connections == 0)
        assert [len(peer.requests) for peer in server.peers] == [1] * len(cuts)
        assert engine.idle_connections == 0


@pytest.mark.parametrize("kind", RESPONSES)
async def test_every_segmentation_in_two_is_whole(kind: str) -> None:
    response = RESPONSES[kind]

    async def script(peer: Peer) -> None:
        for cut in range(1, len(response)):
            await peer.request()
            await peer.send(response[:cut])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await peer.send(response[cut:])
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        for _ in range(1, len(response)):
            got: list[bytes] = []
            await read(engine, request_to(server.origin), got)
            assert b"".join(got) == body_of(response)
        assert len(server.peers) == 1


async def test_a_byte_at_a_time() -> None:
    response = RESPONSES["sse"]

    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(len(response)):
            await peer.send(response[at : at + 1])
            await asyncio.sleep(0)
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        got: list[bytes] = []
        await read(engine, request_to(server.origin), got)
        assert b"".join(got) == b"".join(EVENTS)
        assert engine.idle_connections == 1


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
async def test_a_body_that_ends_with_the_connection(*, reset: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + b"one ")
        await asyncio.sleep(0.005)
        await peer.send(b"two")
        await asyncio.sleep(0.005)
        peer.reset() if reset else peer.fin()

    async with raw_server(script) as server, running_engine() as engine:
        got: list[bytes] = []
        if reset:
            with pytest.raises(UpstreamProtocolError):
                await read(engine, request_to(server.origin), got)
        else:
            await read(engine, request_to(server.origin), got)
        assert b"".join(got) == b"one two"
        await eventually(lambda: engine.open_connections == 0)


async def test_closing_the_engine_is_no_clean_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2.0)
        assert await answer.chunk() == b"half of it"
        waiting = asyncio.ensure_future(answer.chunk())
        await asyncio.sleep(0)
        await engine.aclose()
        with pytest.raises(UpstreamProtocolError):
            await waiting
        answer.close()
