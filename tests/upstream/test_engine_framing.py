"""Where an answer ends, which answers are refused, and which connections may serve another one."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_middleware.core.asgi import Watchtower
from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.core.outbox import Outbox
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.upstream.answer import EngineAnswer
from gateway_middleware.upstream.connection import Connection
from gateway_middleware.upstream.engine import Engine
from rawserver import (
    BOTH_LOOPS,
    TIMEOUTS,
    Peer,
    chunked,
    deliver,
    eventually,
    plain,
    raw_server,
    request_to,
    respond,
    running_engine,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
LARGE = b"x" * 5_000_000


async def call(engine: Engine, request: UpstreamRequest) -> tuple[int, HeaderList, bytes]:
    answer = await engine.open(request, TIMEOUTS, first_byte=2.0)
    try:
        body = await answer.read(10_000_000)
        return answer.status, answer.headers, body
    finally:
        answer.close()


@pytest.mark.parametrize(
    ("response", "status", "body", "is_kept"),
    [
        (plain(), 200, b"hello", True),
        (plain(b""), 200, b"", True),
        (plain(status=b"404 Not Found"), 404, b"hello", True),
        (plain(status=b"302 Found", extra=b"location: /elsewhere\r\n"), 302, b"hello", True),
        (plain(extra=b"connection: close\r\n"), 200, b"hello", False),
        (plain(extra=b"Upgrade: h2c\r\nConnection: Upgrade\r\n"), 200, b"hello", True),
        (plain(b"hello").replace(b"1.1", b"1.0"), 200, b"hello", False),
        (chunked(b"a", b"b"), 200, b"ab", True),
        (chunked(b"a", end=b"0\r\nserver-timing: x\r\n\r\n"), 200, b"a", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n", 200, b"a", True),
        (INTERIM + plain(), 200, b"hello", True),
        (INTERIM * 3 + chunked(b"a"), 200, b"a", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b"", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n", 304, b"", False),
    ],
)
async def test_good_answers(*, response: bytes, status: int, body: bytes, is_kept: bool) -> None:
    async with raw_server(respond(response)) as server, running_engine() as engine:
        for _ in range(2):
            got_status, headers, got_body = await call(engine, request_to(server.origin))
            assert (got_status, got_body) == (status, body)
            assert not {name for name, _ in headers} & {b"link", b"server-timing"}
        assert len(server.peers) == (1 if is_kept else 2)
        await eventually(lambda: engine.open_connections == is_kept)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc",
        b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\ncontent-length: 5\r\n\r\nhello" + plain(),
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + plain(),
        b"POST / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH\r\n",
        b"hello" * 1000,
    ],
)
async def test_refused_answers(response: bytes) -> None:
    async with raw_server(respond(response, then="stall")) as server, running_engine() as engine:
        with pytest.raises(UpstreamProtocolError):
            await call(engine, request_to(server.origin))
        await eventually(lambda: engine.open_connections == 0)
        assert len(server.requests) == 1


@pytest.mark.parametrize("garbage", [plain(b"evil"), b"H", b"HTTP", b"evil", b"\x00", b"0\r\n\r\n", b"HTTP/1.1 100 C"])
@pytest.mark.parametrize("is_later", [False, True], ids=["same_segment", "later_segment"])
@pytest.mark.parametrize("response", [plain(), chunked(b"hel", b"lo")], ids=["length", "chunked"])
async def test_bytes_after_the_answer_cost_the_connection(*, response: bytes, is_later: bool, garbage: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response + (b"" if is_later else garbage))
        if is_later:
            await asyncio.sleep(0.003)
            await peer.send(garbage)
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        assert (await call(engine, request_to(server.origin)))[2] == b"hello"
        if is_later:
            await eventually(lambda: engine.open_connections == 0)
        assert (await call(engine, request_to(server.origin)))[2] == b"hello"
        assert [len(peer.requests) for peer in server.peers] == [1, 1]
        assert engine.reused == 0


async def test_head_has_no_body() -> None:
    response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    async with raw_server(respond(response)) as server, running_engine() as engine:
        for _ in range(2):
            assert (await call(engine, request_to(server.origin, b"", method="HEAD")))[2] == b""
        assert len(server.peers) == 2


# A large answer does not survive a close: the provider's kernel drops it together with what it did not read.
@pytest.mark.parametrize(
    ("body", "then"),
    [(b"short", "keep"), (b"short", "fin"), (b"y" * 300_000, "keep")],
    ids=["short", "short_fin", "long"],
)
async def test_an_answer_before_the_request_is_sent(body: bytes, then: str) -> None:
    async def script(peer: Peer) -> None:
        peer.pause_reading()
        await peer.send(plain(body, status=b"413 Content Too Large"))
        if then == "fin":
            peer.fin()
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        status, _, got = await call(engine, request_to(server.origin, LARGE))
        assert (status, got) == (413, body)
        await eventually(lambda: engine.open_connections == 0)


async def test_a_large_request_arrives_whole() -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        await call(engine, request_to(server.origin, LARGE))
        await call(engine, request_to(server.origin, b"small"))
        assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [LARGE, b"small"]
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"y" * 100_000 + b"\r\n",
        b"".join(b"x-%d: y\r\n" % n for n in range(300)),
        b"".join(b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100)),
    ],
    ids=["long", "many", "both"],
)
@pytest.mark.parametrize("step", [1_000_000, 1000], ids=["at_once", "in_steps"])
async def test_a_flood_of_headers(head: bytes, step: int) -> None:
    response = plain(extra=head)

    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(0, len(response), step):
            await peer.send(response[at : at + step])
            await asyncio.sleep(0)
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        with pytest.raises(UpstreamProtocolError):
            await call(engine, request_to(server.origin))
        await eventually(lambda: engine.open_connections == 0)


async def test_endless_interim_answers() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(INTERIM)

    async with raw_server(script) as server, running_engine() as engine:
        with pytest.raises(UpstreamProtocolError, match="too long"):
            await call(engine, request_to(server.origin))


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda t: b"x" + t.encode())
VALUES = st.text("abcXYZ 0129;=,\"'", max_size=30).map(lambda t: t.strip().encode())
BODIES = st.lists(st.binary(min_size=1, max_size=50), max_size=6)


@given(
    status=st.sampled_from([200, 201, 400, 404, 429, 500, 503]),
    headers=st.lists(st.tuples(TOKENS, VALUES), max_size=8),
    pieces=BODIES,
    framing=st.sampled_from(["length", "chunked", "eof"]),
    interim=st.booleans(),
    cuts=st.lists(st.integers(0, 600), max_size=12),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_any_response_in_any_segments(
    *, status: int, headers: HeaderList, pieces: list[bytes], framing: str, interim: bool, cuts: list[int]
) -> None:
    extra = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    body = b"".join(pieces)
    if framing == "length":
        response = plain(body, extra=extra)
    elif framing == "chunked":
        response = chunked(*pieces, extra=extra)
    else:
        response = b"HTTP/1.1 200 OK\r\n" + extra + b"\r\n" + body
    response = (INTERIM if interim else b"") + response.replace(b"200 OK", b"%d Status" % status)

    loop = asyncio.get_running_loop()
    connection = Connection(on_idle=lambda _: None, on_lost=lambda _: None, outbox=Outbox(), loop=loop)
    answer = EngineAnswer(connection, asyncio.get_running_loop(), first_byte=5, idle=5, until=1e12, tower=Watchtower())
    transport = _Transport()
    connection.connection_made(transport)
    connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", answer)
    await asyncio.sleep(0)  # it is written at the end of the turn; what came before that would be no answer to it
    edges = sorted({0, len(response), *(cut for cut in cuts if cut < len(response))})
    for start, end in itertools.pairwise(edges):
        deliver(connection, response[start:end])
    if framing == "eof":
        connection.eof_received()
        connection.connection_lost(None)
    assert answer.has_head
    got = await answer.read(10_000)
    answer.close()
    assert (answer.status, got) == (status, body)
    assert answer.headers[: len(headers)] == headers
    assert framing == "eof" or not transport.is_closing()


class _Transport(asyncio.Transport):
    """A socket that sends into nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._is_closing = False

    def write(self, data: object) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._is_closing = True
