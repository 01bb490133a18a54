"""The engine as the transport of an httpx client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway_middleware.upstream.connecting import default_context
from gateway_middleware.upstream.engine_transport import EngineTransport
from rawserver import (
    BOTH_LOOPS,
    Peer,
    RawServer,
    Script,
    chunked,
    eventually,
    plain,
    raw_server,
    respond,
    running_engine,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def client_of(script: Script, *, timeout: httpx.Timeout | float | None = 2.0) -> AsyncIterator[Pair]:
    async with raw_server(script) as server, running_engine() as engine:
        async with httpx.AsyncClient(transport=engine, base_url=server.url, timeout=timeout) as client:
            yield Pair(server, engine, client)


class Pair:
    def __init__(self, server: RawServer, engine: EngineTransport, client: httpx.AsyncClient) -> None:
        self.server, self.engine, self.client = server, engine, client


async def test_a_request_and_its_response() -> None:
    response = plain(b'{"a":1}', status=b"201 Created", extra=b"X-One: 1\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n")
    async with client_of(respond(response)) as pair:
        answer = await pair.client.post("/v1/x?q=%20a", json={"b": 2}, headers={"X-Call": "7", "connection": "close"})
        assert (answer.status_code, answer.json(), answer.headers["x-one"]) == (201, {"a": 1}, "1")
        assert answer.http_version == "HTTP/1.1"
        assert answer.cookies["c"] == "d"
        head, _, body = pair.server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1/x?q=%20a HTTP/1.1"
        assert body == b'{"b":2}'
        names = [line.partition(b":")[0] for line in lines[1:]]
        assert names.count(b"host") == names.count(b"content-length") == 1
        assert b"host: 127.0.0.1:%d" % pair.server.origin.port in lines
        assert b"x-call: 7" in lines
        assert not {b"transfer-encoding", b"connection"} & set(names)


async def test_a_body_that_is_streamed_to_the_engine() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with client_of(respond(plain())) as pair:
        assert (await pair.client.put("/", content=body())).text == "hello"
        assert pair.server.requests[0].endswith(b"\r\n\r\none two")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_methods(method: str) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(plain() if not request.startswith(b"HEAD") else plain(b"").replace(b": 0", b": 5"))
        await peer.closed.wait()

    async with client_of(script) as pair:
        answer = await pair.client.request(method, "/")
        assert answer.text == ("" if method == "HEAD" else "hello")
        assert pair.server.requests[0].startswith(method.encode() + b" / HTTP/1.1\r\n")


async def test_redirects_are_not_followed() -> None:
    async with client_of(respond(plain(b"", status=b"307 X", extra=b"location: /two\r\n"))) as pair:
        answer = await pair.client.get("/one")
        assert (answer.status_code, answer.headers["location"]) == (307, "/two")
        assert len(pair.server.requests) == 1


async def test_connections_are_reused() -> None:
    async with client_of(respond(chunked(b"a", b"b"))) as pair:
        for _ in range(5):
            assert (await pair.client.get("/")).text == "ab"
        assert len(pair.server.peers) == 1


async def test_a_streamed_response() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        for number in range(5):
            await peer.send(b"2\r\n%d \r\n" % number)
            await asyncio.sleep(0.003)
        await peer.send(b"0\r\n\r\n")
        await peer.closed.wait()

    async with client_of(script) as pair:
        async with pair.client.stream("GET", "/") as answer:
            assert [chunk async for chunk in answer.aiter_raw()] == [b"0 ", b"1 ", b"2 ", b"3 ", b"4 "]
        assert pair.engine.idle_connections == 1


async def test_a_stream_that_is_left() -> None:
    async with client_of(respond(HEAD + b"1\r\na\r\n", then="stall")) as pair:
        async with pair.client.stream("GET", "/") as answer:
            chunks = answer.aiter_raw()
            assert await anext(chunks) == b"a"
        await eventually(lambda: pair.engine.open_connections == 0)
        await asyncio.wait_for(pair.server.peers[0].closed.wait(), 10)
        await chunks.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("response", "then", "error"),
    [
        (b"", "fin", httpx.RemoteProtocolError),
        (b"", "reset", httpx.RemoteProtocolError),
        (plain()[:-1], "fin", httpx.RemoteProtocolError),
        (HEAD + b"1\r\na\r\n", "reset", httpx.RemoteProtocolError),
        (b"nonsense", "stall", httpx.RemoteProtocolError),
        (b"", "stall", httpx.ReadTimeout),
        (HEAD, "stall", httpx.ReadTimeout),
        (HEAD + b"1\r\na\r\n", "stall", httpx.ReadTimeout),
    ],
)
async def test_failures(response: bytes, then: str, error: type[Exception]) -> None:
    async with client_of(respond(response, then=then), timeout=0.1) as pair:
        with pytest.raises(error) as caught:
            await pair.client.get("/")
        assert type(caught.value) is error
        assert isinstance(caught.value, httpx.TransportError)
        assert caught.value.request.method == "GET"
        await eventually(lambda: pair.engine.open_connections == 0)


async def test_no_connection() -> None:
    async with raw_server(respond(plain())) as server:
        url = server.url
    async with httpx.AsyncClient(transport=EngineTransport()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_connection_that_takes_too_long() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine(ssl_context=default_context()) as engine:
        timeout = httpx.Timeout(5, connect=0.05)
        async with httpx.AsyncClient(transport=engine, timeout=timeout) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(server.url.replace("http:", "https:"))


async def test_no_timeout_is_no_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.send(plain())
        await peer.closed.wait()

    async with client_of(script, timeout=None) as pair:
        assert (await pair.client.get("/")).text == "hello"


async def test_the_client_closes_the_engine() -> None:
    async with raw_server(respond(plain())) as server:
        engine = EngineTransport()
        async with httpx.AsyncClient(transport=engine) as client:
            await client.get(server.url)
            assert engine.open_connections == 1
        assert engine.open_connections == 0
