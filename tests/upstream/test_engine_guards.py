"""What a hostile or clumsy provider, caller or environment cannot do to the engine."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.errors import UpstreamProtocolError, UpstreamTimeoutError
from gateway_middleware.core.provider_api import Origin, UpstreamRequest
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.connecting import default_context
from gateway_middleware.upstream.httpx_mapping import origin_of
from rawserver import (
    BOTH_LOOPS,
    Peer,
    call,
    eventually,
    idle_connection,
    plain,
    raw_server,
    request_to,
    respond,
    running_engine,
    socket_of,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b"%x\r\n%s\r\n" % (30_000, b"z" * 30_000)


async def read_slowly(answer: EngineAnswer, *, until: float) -> None:
    while asyncio.get_running_loop().time() < until:
        await answer.chunk()
        await asyncio.sleep(0.002)


# The provider.


async def test_total_ends_an_endless_answer_for_a_reader_that_always_finds_bytes() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(PIECE)

    async with raw_server(script) as server, running_engine() as engine:
        loop = asyncio.get_running_loop()
        answer = await engine.open(request_to(server.origin), Timeouts(idle=1, total=0.1), first_byte=1)
        with pytest.raises(UpstreamTimeoutError) as caught:
            await read_slowly(answer, until=loop.time() + 1)
        assert caught.value.phase == "total"
        await eventually(lambda: engine.open_connections == 0)
        answer.close()


@pytest.mark.parametrize("start", [b"x: ", b"1;x="], ids=["trailer", "extension"])
async def test_endless_framing(start: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"1\r\na\r\n" + (b"0\r\n" if start == b"x: " else b"") + start)
        while True:
            await peer.send(b"y" * 16_384)

    async with raw_server(script) as server, running_engine() as engine:
        with pytest.raises(UpstreamProtocolError, match="too long"):
            await call(engine, request_to(server.origin))
        await eventually(lambda: engine.open_connections == 0)


async def test_many_small_chunks_are_no_endless_framing() -> None:
    body = b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n"
    async with raw_server(respond(HEAD + body)) as server, running_engine() as engine:
        assert await call(engine, request_to(server.origin)) == b"a" * 50_000
        assert engine.idle_connections == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nx: a\nb: c\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: \x0bchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;\x00\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 099 Early\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_doubtful_framing_is_refused(response: bytes) -> None:
    async with raw_server(respond(response, then="stall")) as server, running_engine() as engine:
        with pytest.raises(UpstreamProtocolError):
            await call(engine, request_to(server.origin))
        await eventually(lambda: engine.open_connections == 0)


@pytest.mark.parametrize("is_proven", [True, False], ids=["close_notify", "fin_only"])
@pytest.mark.parametrize("size", [10, 300_000])
async def test_over_tls_only_a_close_notify_ends_a_body(*, is_proven: bool, size: int) -> None:
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"h" * size)
        if is_proven:
            peer.fin()
        else:
            assert peer.transport is not None
            await asyncio.sleep(0.02)
            with socket.socket(fileno=os.dup(peer.transport.get_extra_info("socket").fileno())) as raw:
                raw.shutdown(socket.SHUT_WR)
        await peer.closed.wait()

    async with raw_server(script, context=served, host="localhost") as server:
        async with running_engine(ssl_context=trusting) as engine:
            if is_proven:
                assert len(await call(engine, request_to(server.origin))) == size
            else:
                with pytest.raises(UpstreamProtocolError):
                    await call(engine, request_to(server.origin))


async def test_a_provider_that_drops_every_idle_connection_at_once() -> None:
    leaves = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.send(plain())
        await leaves.wait()
        peer.fin()

    async with raw_server(script) as server, running_engine() as engine:
        await asyncio.gather(*(call(engine, request_to(server.origin)) for _ in range(100)))
        assert engine.idle_connections == 100
        leaves.set()
        await eventually(lambda: engine.open_connections == 0)
        assert engine.idle_connections == 0


async def test_a_connection_too_old_is_not_used_when_the_timer_is_late() -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        await call(engine, request_to(server.origin))
        connection = idle_connection(engine, server.origin)
        assert connection.idle_since is not None
        connection.idle_since -= 15.0
        await call(engine, request_to(server.origin))
        assert len(server.peers) == 2
        await eventually(lambda: engine.open_connections == 1)


# The caller and the environment.


@pytest.mark.parametrize("value", [b"a\r\nevil: 1", b"a\nevil: 1", b"a\rb", b"a\0b"])
@pytest.mark.parametrize("is_reused", [False, True], ids=["fresh", "reused"])
async def test_a_header_of_the_call_stays_on_its_line(*, value: bytes, is_reused: bool) -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        good = request_to(server.origin)
        if is_reused:
            await call(engine, good)
        for headers in [((b"x", value),), ((b"x" + value, b"y"),)]:
            with pytest.raises(ValueError, match="control character"):
                await call(engine, UpstreamRequest(target=good.target, body=b"{}", headers=headers))
        assert (engine.open_connections, engine.idle_connections) == (is_reused, is_reused)
        await call(engine, UpstreamRequest(target=good.target, body=b"{}", headers=((b"x", b"y"), (b"z", b""))))
        assert b"\r\nx: y\r\nz: \r\n" in server.requests[-1]
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("url", "headers", "error"),
    [
        ("ftp://127.0.0.1/", {}, httpx.UnsupportedProtocol),
        ("ws://127.0.0.1/", {}, httpx.UnsupportedProtocol),
        ("http://127.0.0.1/", {"x": "a\r\nevil: 1"}, httpx.LocalProtocolError),
    ],
)
async def test_requests_that_are_not_sent(url: str, headers: dict[str, str], error: type[Exception]) -> None:
    async with running_engine() as engine:
        with pytest.raises(error):
            await engine.handle_async_request(httpx.Request("POST", url, headers=headers, content=b"{}"))
        assert engine.opened == 0


async def test_names_and_addresses_go_out_in_ascii() -> None:
    assert origin_of(httpx.URL("https://bücher.example/")) == Origin(
        host="xn--bcher-kva.example", port=443, is_tls=True
    )
    assert origin_of(httpx.URL("http://[::1]:8/")).authority == "[::1]:8"


async def test_session_keys_are_not_written_for_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = default_context()
    assert not context.keylog_filename
    assert list(tmp_path.iterdir()) == []
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_the_kernel_asks_after_silent_connections() -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        await call(engine, request_to(server.origin))
        raw = socket_of(idle_connection(engine, server.origin))
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
