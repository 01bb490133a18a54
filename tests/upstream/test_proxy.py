"""Providers behind a CONNECT proxy: a small real one, with TLS through it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trustme

from gateway_middleware.breaker.failure.classes import FailureClass, classify
from gateway_middleware.core.errors import UpstreamConnectError, UpstreamTimeoutError
from gateway_middleware.core.provider_api import Origin, Proxy
from gateway_middleware.core.secret import Secret
from rawserver import BOTH_LOOPS, call, plain, raw_server, request_to, respond, running_engine

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

AUTHORITY = trustme.CA()


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


class ConnectProxy:
    """Leads on to where CONNECT says; `answer` is sent in place of that, `credentials` are asked for."""

    def __init__(self, *, answer: bytes | None = None, credentials: bytes | None = None) -> None:
        self.heads: list[bytes] = []
        self.port = 0
        self._answer = answer
        self._credentials = credentials

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self._answer is not None:
                writer.write(self._answer)
                await writer.drain()
            elif self._credentials is not None and b"Basic " + b64encode(self._credentials) not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            else:
                await self._lead_on(head, reader, writer)
        writer.close()

    async def _lead_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, port = head.split()[1].rsplit(b":", 1)
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
        await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def running(proxy: ConnectProxy) -> AsyncIterator[ConnectProxy]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


def through(origin: Origin, proxy: ConnectProxy, credentials: str | None = None, **more: str) -> Origin:
    secret = Secret(credentials) if credentials is not None else None
    named = Proxy(host="127.0.0.1", port=proxy.port, credentials=secret)
    return msgspec.structs.replace(origin, proxy=named, **more)


async def test_plain_http_goes_through_the_tunnel() -> None:
    async with running(ConnectProxy()) as proxy, raw_server(respond(plain())) as server, running_engine() as engine:
        origin = through(server.origin, proxy)
        for _ in range(2):
            assert await call(engine, request_to(origin)) == b"hello"
        authority = f"127.0.0.1:{server.origin.port}".encode()
        assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (authority, authority)]


async def test_tls_goes_through_the_tunnel_to_the_provider_itself(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(bundle)
    async with running(ConnectProxy()) as proxy, running_engine() as engine:
        async with raw_server(respond(plain()), context=server_context(), host="localhost") as server:
            origin = through(server.origin, proxy, ca_file=str(bundle))
            assert await call(engine, request_to(origin)) == b"hello"
            assert server.requests[0].startswith(b"POST /v1/x HTTP/1.1\r\nhost: localhost")
            with pytest.raises(UpstreamConnectError, match="certificate is not accepted"):
                await call(engine, request_to(through(server.origin, proxy)))


async def test_credentials_are_the_proxys_alone() -> None:
    proxy = ConnectProxy(credentials=b"user:pass:word")
    async with running(proxy), raw_server(respond(plain())) as server, running_engine() as engine:
        assert await call(engine, request_to(through(server.origin, proxy, "user:pass:word"))) == b"hello"
        assert b"proxy-authorization" not in server.requests[0].lower()
        with pytest.raises(UpstreamConnectError, match="407") as caught:
            await call(engine, request_to(through(server.origin, proxy, "user:wrong-one")))
        assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad", "answered 502"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "answered 100"),
        (b"SSH-2.0-x\r\n\r\n", "does not answer in HTTP"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "too long a head"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "more than its answer"),
    ],
)
async def test_a_proxy_that_will_not_is_told_as_such(answer: bytes, says: str) -> None:
    async with running(ConnectProxy(answer=answer)) as proxy, running_engine() as engine:
        origin = through(Origin(host="provider.test", port=443, is_tls=True), proxy)
        with pytest.raises(UpstreamConnectError, match=says) as caught:
            await call(engine, request_to(origin))
        assert f"proxy 127.0.0.1:{proxy.port}" in str(caught.value)
        assert classify(caught.value) is FailureClass.CONNECT
        assert proxy.heads[0].startswith(b"CONNECT provider.test:443 ")


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = ConnectProxy()
    async with running(proxy), running_engine() as engine, raw_server(respond(plain())) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert await call(engine, request_to(server.origin)) == b"hello"
        assert proxy.heads == [], "the environment names no proxy"
        proxy.port = 1
        with pytest.raises(UpstreamConnectError, match="No connection"):
            await call(engine, request_to(through(server.origin, proxy)))


async def test_a_silent_proxy_costs_no_more_than_the_time_to_connect() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with running_engine() as engine:
        proxy = ConnectProxy()
        proxy.port = server.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamTimeoutError) as caught:
            await call(engine, request_to(through(Origin(host="h.test", port=80, is_tls=False), proxy)))
        assert caught.value.phase == "connect"
    server.close()
