"""TLS to a real server with a certificate authority of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from gateway_middleware.core.errors import (
    StaleConnectionError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
)
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.connecting import default_context
from rawserver import (
    BOTH_LOOPS,
    TIMEOUTS,
    Peer,
    call,
    chunked,
    eventually,
    idle_connection,
    plain,
    raw_server,
    request_to,
    respond,
    running_engine,
    socket_of,
    stopped,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

AUTHORITY = trustme.CA()


def server_context(name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_a_trusted_server() -> None:
    large = b"t" * 1_000_000
    async with raw_server(respond(plain(large)), context=server_context(), host="localhost") as server:
        async with running_engine(ssl_context=trusting()) as engine:
            for _ in range(3):
                assert await call(engine, request_to(server.origin, large)) == large
            assert len(server.peers) == 1
            assert server.requests[0].endswith(large)


async def test_an_address_for_a_name() -> None:
    async with raw_server(respond(plain()), context=server_context("127.0.0.1")) as server:
        async with running_engine(ssl_context=trusting()) as engine:
            assert await call(engine, request_to(server.origin)) == b"hello"


async def refused(server_origin: Origin, context: ssl.SSLContext | None, match: str) -> None:
    async with running_engine(ssl_context=context) as engine:
        with pytest.raises(UpstreamConnectError, match=match):
            await call(engine, request_to(server_origin))
        assert engine.open_connections == 0


async def test_an_unknown_authority_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with raw_server(respond(plain()), context=server_context(), host="localhost") as server:
        await refused(server.origin, None, "certificate is not accepted")
        assert server.requests == []


async def test_a_wrong_name_is_refused() -> None:
    async with raw_server(respond(plain()), context=server_context("example.org"), host="localhost") as server:
        await refused(server.origin, trusting(), "certificate is not accepted")
        assert server.requests == []


async def test_no_tls_at_all() -> None:
    async with raw_server(respond(plain(), then="fin")) as server:
        origin = Origin(host="localhost", port=server.origin.port, is_tls=True)

        async def answer_in_clear(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.fin()

        server.script = answer_in_clear
        await refused(origin, trusting(), "TLS failed")


async def test_a_hang_up_in_the_handshake() -> None:
    async def script(peer: Peer) -> None:
        peer.fin()

    async with raw_server(script) as server:
        await refused(Origin(host="localhost", port=server.origin.port, is_tls=True), trusting(), "No connection")


async def test_old_tls_is_refused() -> None:
    assert default_context().minimum_version >= ssl.TLSVersion.TLSv1_2
    assert default_context().check_hostname


async def test_se29_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with raw_server(respond(plain()), context=server_context(), host="localhost") as server:
        async with running_engine(ssl_context=trusting()) as engine:
            assert await call(engine, request_to(server.origin)) == b"hello"


@pytest.mark.parametrize("is_tls", [False, True], ids=["clear", "tls"])
async def test_no_delay(*, is_tls: bool) -> None:
    context = server_context("127.0.0.1") if is_tls else None
    async with raw_server(respond(plain()), context=context) as server:
        async with running_engine(ssl_context=trusting()) as engine:
            await call(engine, request_to(server.origin))
            raw = socket_of(idle_connection(engine, server.origin))
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
@pytest.mark.parametrize("response", [plain(b"hello"), chunked(b"hello")], ids=["length", "chunked"])
async def test_cuts(*, response: bytes, reset: bool) -> None:
    cuts = [0, 1, 20, len(response) - 1]

    async def script(peer: Peer) -> None:
        await peer.request()
        if cuts[peer.number]:
            await peer.send(response[: cuts[peer.number]])
        await asyncio.sleep(0.002)
        peer.reset() if reset else peer.fin()

    async with raw_server(script, context=server_context(), host="localhost") as server:
        async with running_engine(ssl_context=trusting()) as engine:
            for _ in cuts:
                with pytest.raises(UpstreamProtocolError):
                    await call(engine, request_to(server.origin))
            await eventually(lambda: engine.open_connections == 0)
            assert len(server.requests) == len(cuts)


async def test_the_server_closes_about_when_the_next_request_goes_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(plain())
        await asyncio.sleep(0.003)
        peer.fin()

    async with raw_server(script, context=server_context(), host="localhost") as server:
        async with running_engine(ssl_context=trusting(), stale_after=0.0) as engine:
            for wait in (0.0, 0.002, 0.0025, 0.003, 0.0035, 0.004, 0.01) * 3:
                try:
                    assert await call(engine, request_to(server.origin)) == b"hello"
                except StaleConnectionError:
                    assert await call(engine, request_to(server.origin)) == b"hello"
                await asyncio.sleep(wait)
            await eventually(lambda: engine.open_connections == 0)


async def test_closed_as_soon_as_it_is_open() -> None:
    async def script(peer: Peer) -> None:
        peer.fin()

    async with raw_server(script, context=server_context(), host="localhost") as server:
        async with running_engine(ssl_context=trusting()) as engine:
            for _ in range(20):
                with pytest.raises(UpstreamError):
                    await call(engine, request_to(server.origin))
            await eventually(lambda: engine.open_connections == 0)


async def test_a_reader_that_stops_and_a_close_in_flight() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"z" * 65536)

    async with raw_server(script, context=server_context(), host="localhost") as server:
        async with running_engine(ssl_context=trusting()) as engine:
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2)
            await stopped(server.peers[0], limit=16_000_000)  # most of it in the buffers of the kernel
            size = 0
            while size < 10_000_000:
                size += len(await answer.chunk())
            await engine.aclose()
            assert engine.open_connections == 0
            with pytest.raises(UpstreamProtocolError):
                await answer.read(10_000_000)
            answer.close()
