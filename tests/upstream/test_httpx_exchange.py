"""One table of behaviour for every exchange: the engine, a mock transport, httpx's own transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import (
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.engine import Engine
from gateway_middleware.upstream.exchange import Exchange
from gateway_middleware.upstream.httpx_exchange import HttpxExchange
from rawserver import RawServer, chunked, eventually, plain, raw_server, request_to, respond

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SHORT = Timeouts(connect=1, idle=0.1, total=5)
KINDS = ["engine", "httpx"]


@contextlib.asynccontextmanager
async def closing(exchange: Exchange) -> AsyncIterator[Exchange]:
    try:
        yield exchange
    finally:
        await exchange.aclose()


def exchange_of(kind: str) -> Exchange:
    return Engine() if kind == "engine" else HttpxExchange(httpx.AsyncHTTPTransport())


async def read(
    exchange: Exchange, origin: Origin, timeouts: Timeouts = SHORT, first_byte: float = 0.1
) -> tuple[int, bytes]:
    request = request_to(origin, b'{"a":1}', headers=[(b"authorization", b"Bearer k")])
    answer = await exchange.open(request, timeouts, first_byte=first_byte)
    try:
        return answer.status, await answer.read(100)
    finally:
        answer.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (plain(), 200, b"hello"),
        (plain(b"no", status=b"429 Too Many Requests"), 429, b"no"),
        (plain(b"", status=b"307 X", extra=b"location: /two\r\n"), 307, b""),
        (chunked(b"a", b"b"), 200, b"ab"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + plain(), 200, b"hello"),
        (plain(b"\x1f\x8bzip", extra=b"content-encoding: gzip\r\n"), 200, b"\x1f\x8bzip"),
    ],
)
async def test_answers(kind: str, response: bytes, status: int, body: bytes) -> None:
    async with raw_server(respond(response)) as server, closing(exchange_of(kind)) as exchange:
        assert await read(exchange, server.origin) == (status, body)
        head, _, sent = server.requests[0].partition(b"\r\n\r\n")
        assert sent == b'{"a":1}'
        lines = head.lower().split(b"\r\n")
        assert lines.count(b"content-length: 7") == lines.count(b"authorization: bearer k") == 1
        assert len([line for line in lines if line.startswith(b"host:")]) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("response", "then", "error", "phase"),
    [
        (b"", "fin", UpstreamProtocolError, None),
        (plain()[:-1], "fin", UpstreamProtocolError, None),
        (HEAD + b"1\r\na\r\n", "reset", UpstreamProtocolError, None),
        (b"nonsense\r\n\r\n", "stall", UpstreamProtocolError, None),
        (plain(b"x" * 101), "keep", UpstreamProtocolError, None),
        (b"", "stall", UpstreamTimeoutError, "first_byte"),
        (HEAD, "stall", UpstreamTimeoutError, "idle"),
        (HEAD + b"1\r\na\r\n", "stall", UpstreamTimeoutError, "idle"),
    ],
)
async def test_failures(kind: str, response: bytes, then: str, error: type[UpstreamError], phase: str | None) -> None:
    async with raw_server(respond(response, then=then)) as server, closing(exchange_of(kind)) as exchange:
        with pytest.raises(error) as caught:
            await read(exchange, server.origin)
        assert getattr(caught.value, "phase", None) == phase
        await asyncio.wait_for(_until_closed(server), 10) if then == "stall" else None


async def _until_closed(server: RawServer) -> None:
    await server.peers[0].closed.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_no_connection(kind: str) -> None:
    async with raw_server(respond(plain())) as server:
        origin = server.origin
    async with closing(exchange_of(kind)) as exchange:
        with pytest.raises(UpstreamConnectError):
            await read(exchange, origin)


@pytest.mark.parametrize("kind", KINDS)
async def test_total(kind: str) -> None:
    parts = [HEAD, *[b"1\r\na\r\n"] * 200]
    async with raw_server(respond(*parts)) as server, closing(exchange_of(kind)) as exchange:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await read(exchange, server.origin, Timeouts(total=0.1))
        assert caught.value.phase == "total"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_silence_longer_than_the_first_byte_may_take(kind: str) -> None:
    async with raw_server(respond(HEAD + b"1\r\na\r\n", *[b""] * 60, b"0\r\n\r\n")) as server:
        async with closing(exchange_of(kind)) as exchange:
            assert await read(exchange, server.origin, Timeouts(idle=1), first_byte=0.05) == (200, b"a")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["close", "conclude"])
async def test_close_while_streaming(kind: str, way: str) -> None:
    async with raw_server(respond(HEAD + b"1\r\na\r\n", then="stall")) as server:
        async with closing(exchange_of(kind)) as exchange:
            answer = await exchange.open(request_to(server.origin), SHORT, first_byte=1)
            assert await answer.chunk() == b"a"
            getattr(answer, way)()
            answer.close()
            await asyncio.wait_for(_until_closed(server), 10)


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_anywhere(kind: str) -> None:
    parts = [HEAD, *[b"1\r\na\r\n"] * 3, b"0\r\n\r\n"]
    async with raw_server(respond(*parts)) as server, closing(exchange_of(kind)) as exchange:
        for steps in range(40):
            task = asyncio.ensure_future(read(exchange, server.origin))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await read(exchange, server.origin) == (200, b"aaa")
    await eventually(lambda: all(peer.closed.is_set() for peer in server.peers))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes, failure: Exception | None = None, wait: float = 0) -> None:
        self._chunks, self._failure, self._wait = chunks, failure, wait
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        await asyncio.sleep(self._wait)
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        self.is_closed = True


ORIGIN = Origin(host="provider.test", port=443, is_tls=True)


async def test_a_mock_with_content() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(418, json={"url": str(request.url), "body": request.content.decode()})

    async with closing(HttpxExchange(httpx.MockTransport(answer))) as exchange:
        status, body = await read(exchange, ORIGIN)
        assert (status, body) == (418, b'{"url":"https://provider.test/v1/x","body":"{\\"a\\":1}"}')


async def test_a_mock_that_streams() -> None:
    stream = _Stream(b"a", b"", b"b")
    async with closing(HttpxExchange(httpx.MockTransport(lambda _: httpx.Response(200, stream=stream)))) as exchange:
        answer = await exchange.open(request_to(ORIGIN), SHORT, first_byte=1)
        assert [await answer.chunk() for _ in range(4)] == [b"a", b"b", b"", b""]
        answer.close()
        answer.conclude()
    assert stream.is_closed


@pytest.mark.parametrize(
    ("failure", "error", "phase"),
    [
        (httpx.ConnectError("x"), UpstreamConnectError, None),
        (httpx.ProxyError("x"), UpstreamConnectError, None),
        (httpx.ConnectTimeout("x"), UpstreamTimeoutError, "connect"),
        (httpx.PoolTimeout("x"), UpstreamTimeoutError, "pool"),
        (httpx.ReadTimeout("x"), UpstreamTimeoutError, "first_byte"),
        (httpx.WriteTimeout("x"), UpstreamTimeoutError, "first_byte"),
        (httpx.ReadError("x"), UpstreamProtocolError, None),
        (httpx.RemoteProtocolError("x"), UpstreamProtocolError, None),
    ],
)
async def test_the_errors_of_a_mock(failure: Exception, error: type[UpstreamError], phase: str | None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise failure

    async with closing(HttpxExchange(httpx.MockTransport(answer))) as exchange:
        with pytest.raises(error) as caught:
            await read(exchange, ORIGIN)
        assert getattr(caught.value, "phase", None) == phase


async def test_a_mock_that_breaks_or_stalls_in_its_body() -> None:
    for stream, error in (
        (_Stream(b"a", failure=httpx.ReadError("x")), UpstreamProtocolError),
        (_Stream(b"a", failure=httpx.ReadTimeout("x")), UpstreamTimeoutError),
        (_Stream(b"a", wait=5), UpstreamTimeoutError),
    ):
        transport = httpx.MockTransport(lambda _, stream=stream: httpx.Response(200, stream=stream))
        async with closing(HttpxExchange(transport)) as exchange:
            answer = await exchange.open(request_to(ORIGIN), SHORT, first_byte=1)
            assert await answer.chunk() == b"a"
            with pytest.raises(error) as caught:
                await answer.chunk()
            with pytest.raises(UpstreamProtocolError):
                await answer.chunk()
            assert getattr(caught.value, "phase", "idle") == "idle"
            answer.close()
        assert stream.is_closed
