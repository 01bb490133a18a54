"""The same bytes to stock uvicorn (httptools) and to this protocol: the same answers and the same view of the
application, or a difference that is listed here with its reason."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from door_rig import Recorder, answers, listening
from gateway_middleware.core.scope import OUTBOX
from rawserver import BOTH_LOOPS

H = b" HTTP/1.1\r\nhost: x\r\n"
END = b"connection: close\r\n\r\n"
CHUNKS = b"transfer-encoding: chunked\r\n"
LAST = b"GET /last" + H + END
View: TypeAlias = "tuple[list[Any], list[Any], list[bytes]]"

SAME = {
    "get": b"GET /" + H + END,
    "query": b"GET /a?b=c&d=%20" + H + END,
    "empty query": b"GET /a?" + H + END,
    "two question marks": b"GET /a?b?c" + H + END,
    "fragment": b"GET /a?b#c" + H + END,
    "escapes": b"GET /a%2Fb%20c%C3%A9%zz" + H + END,
    "escaped beyond UTF-8": b"GET /%ff" + H + END,
    "double slash": b"GET //a//b" + H + END,
    "dots": b"GET /a/../b/./c" + H + END,
    "absolute form": b"GET http://h:1/a?b" + H + END,
    "star": b"OPTIONS *" + H + END,
    "semicolons": b"GET /a;b=c" + H + END,
    "brackets": b"GET /a[]{}|^" + H + END,
    "spaces before the target": b"GET  /" + H + END,
    "delete": b"DELETE /a" + H + END,
    "patch": b"PATCH /a" + H + b"content-length: 2\r\n" + END + b"ab",
    "odd method": b"M-SEARCH /" + H + END,
    "length": b"POST /" + H + b"content-length: 5\r\n\r\nhello" + LAST,
    "length 0": b"POST /" + H + b"content-length: 0\r\n\r\n" + LAST,
    "length with zeros": b"POST /" + H + b"content-length: 005\r\n\r\nhello" + LAST,
    "chunks": b"POST /" + H + CHUNKS + b"\r\n5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n" + LAST,
    "chunks with trailers": b"POST /" + H + CHUNKS + b"\r\n1\r\na\r\n0\r\n\r\n" + LAST,
    "no chunks": b"POST /" + H + CHUNKS + b"\r\n0\r\n\r\n" + LAST,
    "sizes in both cases": b"POST /" + H + CHUNKS + b"\r\nA\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n" + LAST,
    "pipeline": (b"GET /1" + H + b"\r\n") * 5 + LAST,
    "blank lines between": b"\r\n\r\nGET /" + H + b"\r\n\r\n" + LAST,
    "headers": b"GET /" + H + b"X-A:b\r\nx-a:  c \r\nx-empty:\r\nx-high: \xe9\xff\r\nx-tab: a\tb\r\n" + END,
    "names with signs": b"GET /" + H + b"x_a.b!#$%&'*+^`|~: c\r\n" + END,
    "close in a list": b"GET /" + H + b"connection: x, close\r\n\r\n" + LAST,
    "keep-alive": b"GET /" + H + b"connection: keep-alive\r\n\r\n" + LAST,
    "HTTP/1.0": b"GET / HTTP/1.0\r\nhost: x\r\n\r\n",
    "HTTP/1.0 without host": b"GET / HTTP/1.0\r\n\r\n",
    "unknown expectation": b"POST /" + H + b"expect: tea\r\ncontent-length: 1\r\n\r\na" + LAST,
    "upgrade of a request without a body": b"GET /" + H + b"connection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
    "head": b"HEAD /" + H + END,
    "empty host": b"GET / HTTP/1.1\r\nhost:\r\n" + END,
    # Refused by both, by status 400.
    "two lengths": b"POST /" + H + b"content-length: 1\r\ncontent-length: 2\r\n\r\na",
    "length and chunks": b"POST /" + H + b"content-length: 1\r\n" + CHUNKS + b"\r\n0\r\n\r\n",
    "folding": b"GET /" + H + b"a: b\r\n c\r\n\r\n",
    "NUL in a value": b"GET /" + H + b"a: \0\r\n\r\n",
    "unknown method": b"FOO /" + H + b"\r\n",
    "space before colon": b"GET /" + H + b"a : b\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nhost: x\n\n",
    "bad version": b"GET / HTTP/1.7\r\nhost: x\r\n\r\n".replace(b"1.7", b"x.y"),
}

DIFFERENT = {
    "no host": (b"GET / HTTP/1.1\r\n" + END, 400, "RFC 9112 3.2: HTTP/1.1 without Host must be refused"),
    "two hosts": (b"GET /" + H + b"host: y\r\n" + END, 400, "RFC 9112 3.2: more than one Host must be refused"),
    "host with a path": (b"GET / HTTP/1.1\r\nhost: a/b?c\r\n" + END, 400, "it changes what URL an application sees"),
    "two codings": (
        b"POST /" + H + b"transfer-encoding: gzip, chunked\r\n" + END + b"0\r\n\r\n",
        400,
        "a coding that nobody decodes",
    ),
    "chunks in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nhost: x\r\n" + CHUNKS + b"\r\n1\r\na\r\n0\r\n\r\n",
        400,
        "RFC 9112 6.1: faulty framing; proxies of HTTP/1.0 read it otherwise",
    ),
    "tunnel": (b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n", 405, "this is no proxy"),
    "HTTP/2.0 in clear": (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505, "not spoken"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505, "not spoken"),
    "RTSP": (b"GET / RTSP/1.0\r\nhost: x\r\n\r\n", 505, "not spoken"),
    "upgrade with a body": (
        b"POST /" + H + b"connection: upgrade, close\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc",
        200,
        "stock uvicorn loses the body, or takes it for the next request",
    ),
    "trailers": (
        b"POST /" + H + CHUNKS + b"\r\n1\r\na\r\n0\r\nauthorization: t\r\n\r\n" + LAST,
        200,
        "trailers are not merged into headers",
    ),
    "HTTP/1.0 kept alive": (
        b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        200,
        "RFC 9112 9.3: persistent when asked for",
    ),
    "expectation with its body": (
        b"POST /" + H + b"expect: 100-continue\r\ncontent-length: 1\r\n" + END + b"a",
        200,
        "RFC 9110 10.1.1: no 100 when the body has come",
    ),
    "absolute form without a path": (b"GET http://h" + H + END, 200, "RFC 9112 3.2.2: the path is /; stock says 400"),
    "101 headers": (b"GET /" + H + b"a: b\r\n" * 99 + END, 431, "bounded"),
    "head of 70 KB": (b"GET /" + H + b"a: " + b"b" * 70_000 + b"\r\n" + END, 431, "bounded"),
}


def view(app: Recorder, received: bytes, *, head_only: bool) -> View:
    scopes = [{k: v for k, v in scope.items() if k not in ("client", "server", OUTBOX.slot)} for scope in app.scopes]
    got = [
        (a.status, a.header(b"content-length"), a.header(b"connection"), a.body) if a.status < 400 else a.status
        for a in answers(received, head_only=head_only)
    ]
    return got, scopes, app.bodies


async def drive(protocol: Any, data: bytes) -> View:
    """What comes of these bytes, until the connection is closed: each of the pieces asks for that, or is refused."""
    app = Recorder()
    async with listening(app, protocol=protocol) as listener:
        reader, writer = await listener.connect()
        writer.write(data)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(reader.read(65536), 60):
                received += piece
        writer.close()
    return view(app, received, head_only=data.startswith(b"HEAD"))


@pytest.mark.anyio
@BOTH_LOOPS
@pytest.mark.parametrize("name", SAME)
async def test_the_same(name: str) -> None:
    ours, stock = await drive(None, SAME[name]), await drive(HttpToolsProtocol, SAME[name])
    assert ours == stock
    assert ours[0], "nothing was answered"


@pytest.mark.anyio
@BOTH_LOOPS
@pytest.mark.parametrize("name", DIFFERENT)
async def test_different_with_a_reason(name: str) -> None:
    data, status, reason = DIFFERENT[name]
    ours, stock = await drive(None, data), await drive(HttpToolsProtocol, data)
    assert ours != stock, reason
    first = ours[0][0]
    assert (first if isinstance(first, int) else first[0]) == status, reason


TOKEN = st.sampled_from([b"x-a", b"X-B", b"accept", b"user-agent", b"cookie"])
VALUE = st.binary(max_size=12).map(lambda v: bytes(b for b in v if b >= 32 and b != 127)).map(bytes.strip)
HEADERS = st.lists(st.tuples(TOKEN, VALUE), max_size=4)
PATH = st.lists(st.sampled_from([b"a", b"/", b"%20", b"%C3%A9", b"%ff", b".", b";", b"=", b"~"]), max_size=6)
QUERY = st.sampled_from([b"", b"?", b"?a=b", b"?a?b", b"?%00"])
BODY = st.one_of(st.none(), st.binary(max_size=40), st.lists(st.binary(min_size=1, max_size=20), max_size=4))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % pair for pair in draw(HEADERS))
    head = b"%b /%b%b HTTP/1.1\r\n%b" % (
        draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"])),
        b"".join(draw(PATH)),
        draw(QUERY),
        lines,
    )
    head += b"host: x\r\n"
    body = draw(BODY)
    if body is None:
        return head + b"\r\n"
    if isinstance(body, bytes):
        return head + b"content-length: %d\r\n\r\n" % len(body) + body
    return head + CHUNKS + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in body) + b"0\r\n\r\n"


@given(st.lists(requests(), max_size=4))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_valid_requests_are_the_same(pipeline: list[bytes]) -> None:
    data = b"".join(pipeline) + LAST
    ours, stock = asyncio.run(drive(None, data)), asyncio.run(drive(HttpToolsProtocol, data))
    assert ours == stock
    assert len(ours[0]) == len(pipeline) + 1
