"""The parts of the HTTP protocol that know no socket: heads, bodies, pace, answers."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.pace import Pace
from gateway_middleware.serving.http.answer import Answer
from gateway_middleware.serving.http.door import Door
from gateway_middleware.serving.http.framing import BodyFraming, ChunkedFraming, LengthFraming
from gateway_middleware.serving.http.head import read_head
from gateway_middleware.serving.http.head_forms import HeadForms
from gateway_middleware.serving.http.last_head import LastHead
from gateway_middleware.serving.http.limits import DoorLimits
from gateway_middleware.serving.http.refusal import RefusedRequestError, plain_refusal, refusal_of

HOST = b"host: x\r\n"
REFUSED_HEADS = {
    "length and chunks": (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        400,
    ),
    "chunks and length": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", 400),
    "one length twice": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", 400),
    "list of lengths": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3, 3\r\n\r\n", 400),
    "signed length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\n", 400),
    "negative length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\n", 400),
    "hex length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0x3\r\n\r\n", 400),
    "empty length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length:\r\n\r\n", 400),
    "endless length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999999999999\r\n\r\n", 400),
    "two codings": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 400),
    "chunked twice": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n", 400),
    "two coding headers": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n",
        400,
    ),
    "identity": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\n\r\n", 400),
    "disguised coding": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: \x0bchunked\r\n\r\n", 400),
    "quoted coding": (b'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: "chunked"\r\n\r\n', 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", 400),
    "tab-folded header": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n\tc\r\n\r\n", 400),
    "folded first header": (b"GET / HTTP/1.1\r\n host: x\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nhost: x\r\n\r\n", 400),
    "bare LF in a header": (b"GET / HTTP/1.1\r\nhost: x\na: b\r\n\r\n", 400),
    "bare CR in a value": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n", 400),
    "NUL in a name": (b"GET / HTTP/1.1\r\nhost: x\r\na\0: b\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "DEL in a value": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\x7f\r\n\r\n", 400),
    "space before the colon": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length : 3\r\n\r\n", 400),
    "no name": (b"GET / HTTP/1.1\r\nhost: x\r\n: b\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\nhost: x\r\nab\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    "one host twice": (b"GET / HTTP/1.1\r\nhost: x\r\nHost: x\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "host with a path": (b"GET / HTTP/1.1\r\nhost: a/admin?x=\r\n\r\n", 400),
    "host with a fragment": (b"GET / HTTP/1.1\r\nhost: a#b\r\n\r\n", 400),
    "host with a user": (b"GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
    "host with a list": (b"GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", 400),
    "two expectations": (b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nexpect: x\r\n\r\n", 400),
    "unknown method": (b"FOO / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "method in lower case": (b"get / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "target beyond ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "tunnel": (b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 405),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\n", 505),
    "RTSP": (b"GET / RTSP/1.0\r\nhost: x\r\n\r\n", 505),
    "too many headers": (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", REFUSED_HEADS)
def test_a_head_that_can_be_read_in_two_ways_is_refused(name: str) -> None:
    head, status = REFUSED_HEADS[name]
    with pytest.raises(RefusedRequestError) as caught:
        read_head(head, 100)
    assert caught.value.status == status
    assert caught.value.message.isascii()


@pytest.mark.parametrize(
    ("lines", "version", "length", "keep_alive", "expects"),
    [
        (b"", "1.1", 0, True, False),
        (b"content-length: 3\r\n", "1.1", 3, True, False),
        (b"content-length: 3 \r\n", "1.1", 3, True, False),
        (b"Transfer-Encoding: Chunked\r\n", "1.1", None, True, False),
        (b"connection: close\r\n", "1.1", 0, False, False),
        (b"connection: keep-alive\r\nconnection: Close\r\n", "1.1", 0, False, False),
        (b"connection: x-closed\r\n", "1.1", 0, True, False),
        (b"", "1.0", 0, False, False),
        (b"connection: Keep-Alive\r\n", "1.0", 0, True, False),
        (b"connection: keep-alive, close\r\n", "1.0", 0, False, False),
        (b"expect: 100-Continue\r\ncontent-length: 1\r\n", "1.1", 1, True, True),
        (b"expect: 100-continue\r\ncontent-length: 1\r\n", "1.0", 1, False, False),
        (b"expect: tea\r\n", "1.1", 0, True, False),
        (b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 9\r\n", "1.1", 9, True, False),
    ],
)
def test_what_a_head_says(lines: bytes, version: str, length: int | None, keep_alive: bool, expects: bool) -> None:
    head = read_head(b"POST /p?q HTTP/%b\r\nHost: a.b:80\r\n%b\r\n" % (version.encode(), lines), 100)
    assert (head.method, head.target, head.version) == ("POST", b"/p?q", version)
    assert (head.content_length, head.keep_alive, head.expects_continue) == (length, keep_alive, expects)
    assert head.headers[0] == (b"host", b"a.b:80")


@pytest.mark.parametrize("host", [b"x", b"", b"a_b.c:", b"127.0.0.1:80", b"[::1]:80", b"[fe80::1]"])
def test_hosts_that_are_taken(host: bytes) -> None:
    assert read_head(b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % host, 100).headers == [(b"host", host)]


def test_http_1_0_needs_no_host() -> None:
    assert read_head(b"GET / HTTP/1.0\r\n\r\n", 100).headers == []


NAMES = st.sampled_from([b"accept", b"Content-Length", b"content-length", b"X-Content-Length", b"expect"])
VALUES = st.sampled_from([b"0", b"12", b" 12 ", b"\t7", b"0x3", b"100-continue", b"a\tb", b"999999999999999999"])
HEADS = st.builds(
    lambda target, lines: b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (target, b"".join(lines)),
    st.sampled_from([b"/", b"/a?content-length:", b"/b"]),
    st.lists(st.builds(b"%b:%b\r\n".__mod__, st.tuples(NAMES, VALUES)), max_size=4),
)


@settings(deadline=None)
@given(st.lists(HEADS, min_size=2, max_size=4))
def test_a_head_that_is_repeated_says_what_it_says_when_it_is_read(heads: list[bytes]) -> None:
    last, state = LastHead(), {"a": 1}
    for raw in [head for head in heads for _ in range(2)]:
        repeated = last.repeat(raw, state)
        try:
            head = read_head(raw, 100)
        except RefusedRequestError:
            assert repeated is None
            continue
        scope = {"headers": head.headers, "state": {}, "path": head.target}
        if repeated is None:
            last.remember(raw, head, scope)
            continue
        same, its_scope = repeated
        assert its_scope == {**scope, "state": state}
        assert its_scope["state"] is not state
        for name in ("method", "target", "version", "content_length", "keep_alive", "expects_continue", "headers"):
            assert getattr(same, name) == getattr(head, name)


def test_only_the_length_may_differ_in_a_head_that_is_repeated() -> None:
    def raw(length: bytes, rest: bytes = b"") -> bytes:
        return b"POST / HTTP/1.1\r\nhost: x\r\nContent-Length: %b\r\nauthorization: a\r\n%b\r\n" % (length, rest)

    last, head = LastHead(), read_head(raw(b"12"), 100)
    last.remember(raw(b"12"), head, {"headers": head.headers})
    assert last.repeat(raw(b"3000"), {}) == (
        head,
        {"headers": [(b"host", b"x"), (b"content-length", b"3000"), (b"authorization", b"a")], "state": {}},
    )
    head.headers.append((b"x-user", b"of the request before"))  # as applications do
    repeated = last.repeat(raw(b"1"), {})
    assert repeated is not None
    assert repeated[1]["headers"] == [(b"host", b"x"), (b"content-length", b"1"), (b"authorization", b"a")]
    for other in (raw(b""), raw(b"-1"), raw(b"1 1"), raw(b"9" * 19), raw(b"1", b"a: b\r\n"), raw(b"1")[:-2]):
        assert last.repeat(other, {}) is None
    long = raw(b"12", b"a: %b\r\n" % (b"x" * 2048))
    last.remember(long, read_head(long, 100), {})
    assert last.repeat(long, {}) is None


def drive(framing: BodyFraming, pieces: list[bytes]) -> tuple[bytes, bytes]:
    body = rest = b""
    for piece in pieces:
        if framing.is_whole:
            rest += piece
            continue
        part, after = framing.feed(piece)
        body, rest = body + part, rest + after
    return body, rest


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(marks) if a < b]


EXTENSION = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b";a;b=c"])
CHUNK = st.tuples(st.binary(min_size=1, max_size=20), EXTENSION, st.booleans())
TRAILERS = st.lists(st.sampled_from([b"a: b\r\n", b"x-y:\r\n", b"authorization: Bearer k\r\n"]), max_size=3)


def chunked(chunks: list[tuple[bytes, bytes, bool]], trailers: list[bytes]) -> bytes:
    frames = [(b"%X" if upper else b"00%x") % len(c) + ext + b"\r\n" + c + b"\r\n" for c, ext, upper in chunks]
    return b"".join(frames) + b"0\r\n" + b"".join(trailers) + b"\r\n"


@given(st.lists(CHUNK, max_size=5), TRAILERS, st.binary(max_size=20), st.lists(st.integers(0, 500), max_size=8))
@settings(deadline=None)
def test_a_chunked_body_comes_out_whole_wherever_it_is_cut(
    chunks: list[tuple[bytes, bytes, bool]], trailers: list[bytes], rest: bytes, places: list[int]
) -> None:
    framing = ChunkedFraming(1000)
    body, after = drive(framing, cut(chunked(chunks, trailers) + rest, places))
    assert framing.is_whole
    assert body == b"".join(chunk for chunk, _, _ in chunks)
    assert after == rest


class Parsed:
    """What httptools makes of a chunked body."""

    def __init__(self) -> None:
        self.body = b""
        self.messages = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


def read_by_httptools(data: bytes) -> tuple[bytes, bool] | None:
    parsed = Parsed()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n" + data)
    except httptools.HttpParserError:
        return None
    return parsed.body, parsed.messages == 1


MUTATION = st.tuples(
    st.integers(0, 10_000), st.sampled_from([b"", b"\r", b"\n", b"\0", b"0", b";", b" ", b"\r\n", b"-"])
)


@given(st.lists(CHUNK, max_size=3), TRAILERS, st.lists(MUTATION, max_size=3))
@settings(deadline=None, max_examples=500)
def test_what_it_takes_httptools_takes_in_the_same_way(
    chunks: list[tuple[bytes, bytes, bool]], trailers: list[bytes], mutations: list[tuple[int, bytes]]
) -> None:
    data = chunked(chunks, trailers)
    for place, byte in mutations:
        at = place % (len(data) + 1)
        data = data[:at] + byte + data[at + 1 :]
    framing = ChunkedFraming(10_000)
    try:
        body, rest = drive(framing, [data])
    except RefusedRequestError:
        return
    if framing.is_whole:
        assert read_by_httptools(data[: len(data) - len(rest)]) == (body, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1; a\r\na\r\n",
        b"1;\r\na\r\n",
        b"1 1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na\r\r\n",
        b"1;a\0\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;a\n2\r\na\r\n",
        b"10000000000000000\r\n",
        b"0\r\n\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\na : b\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\na: \0\r\n\r\n",
        b"1" * 20_000,
    ],
)
def test_a_chunked_body_that_is_broken_is_refused(data: bytes) -> None:
    for pieces in ([data], [bytes([byte]) for byte in data]):
        with pytest.raises(RefusedRequestError) as caught:
            drive(ChunkedFraming(1000), pieces)
        assert caught.value.status == 400


@pytest.mark.parametrize("extra", [b"1;%b\r\na\r\n" % (b"x" * 40), b"0\r\na: %b\r\n" % (b"x" * 40)])
def test_extensions_and_trailers_are_bounded_over_the_whole_body(extra: bytes) -> None:
    framing = ChunkedFraming(100)
    framing.feed(extra)
    with pytest.raises(RefusedRequestError) as caught:
        drive(framing, [extra.removeprefix(b"0\r\n"), extra.removeprefix(b"0\r\n")])
    assert caught.value.status == 431


@given(st.binary(max_size=50), st.binary(max_size=20), st.lists(st.integers(0, 70), max_size=5))
@settings(deadline=None)
def test_a_body_of_a_length(body: bytes, rest: bytes, places: list[int]) -> None:
    framing = LengthFraming(len(body))
    assert drive(framing, cut(body + rest, places)) == (body, rest)
    assert framing.is_whole


def test_a_body_that_moves_is_given_time() -> None:
    pace = Pace(30.0, 1024)
    now = 0.0
    assert pace.start(now) == 30.0
    for _ in range(10):
        now += 29.9
        assert not pace.is_too_slow(now)
        pace.count(30 * 1024, now)
        assert pace.start(now) == now + 30.0
    for _ in range(29):
        now += 1.0
        pace.count(1024, now)
    pace.count(1024, now + 0.9)
    now += 0.9
    assert not pace.is_too_slow(now + 29.9)
    assert pace.is_too_slow(now + 30.0)


def test_a_burst_does_not_pay_for_the_silence_after_it() -> None:
    pace = Pace(30.0, 1024)
    pace.start(0.0)
    pace.count(10_000_000, 1.0)
    assert not pace.is_too_slow(30.9)
    assert pace.is_too_slow(31.0)


def test_a_trickle_is_too_slow() -> None:
    pace = Pace(30.0, 1024)
    pace.start(0.0)
    for second in range(1, 30):
        pace.count(1000, float(second))
        assert not pace.is_too_slow(float(second))
    assert pace.is_too_slow(30.0)


def test_time_in_which_nobody_waits_does_not_count() -> None:
    pace = Pace(30.0, 1024)
    pace.start(0.0)
    pace.stop(10.0)
    pace.stop(500.0)
    assert pace.start(1000.0) == 1020.0
    assert not pace.is_too_slow(1019.9)
    assert pace.is_too_slow(1020.0)


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


LENGTH_2 = (b"content-length", b"2")
SIZED = b"200 OK\r\ncontent-length: 2\r\n"
CHUNKS = b"200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "version", "keep", "messages", "expected"),
    [
        ("GET", "1.1", True, [start(200, LENGTH_2), body(b"ok")], SIZED + b"\r\nok"),
        ("GET", "1.1", False, [start(200, LENGTH_2), body(b"ok")], SIZED + b"connection: close\r\n\r\nok"),
        (
            "GET",
            "1.1",
            True,
            [start(599), body(b"ok")],
            b"599 \r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("GET", "1.1", True, [start(), body(b"")], CHUNKS + b"0\r\n\r\n"),
        (
            "GET",
            "1.1",
            True,
            [start(), body(b"a", more=True), body(b"", more=True), body(b"b")],
            CHUNKS + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
        ),
        ("GET", "1.0", False, [start(), body(b"ok")], b"200 OK\r\nconnection: close\r\n\r\nok"),
        ("GET", "1.0", True, [start(), body(b"ok")], b"200 OK\r\nconnection: close\r\n\r\nok"),
        ("GET", "1.0", True, [start(200, LENGTH_2), body(b"ok")], SIZED + b"connection: keep-alive\r\n\r\nok"),
        ("HEAD", "1.1", True, [start(200, LENGTH_2), body(b"ok")], SIZED + b"\r\n"),
        ("HEAD", "1.1", True, [start(), body(b"ok")], b"200 OK\r\n\r\n"),
        ("GET", "1.1", True, [start(204), body(b"")], b"204 No Content\r\n\r\n"),
        ("GET", "1.1", True, [start(304, LENGTH_2), body(b"")], b"304 Not Modified\r\ncontent-length: 2\r\n\r\n"),
        (
            "GET",
            "1.1",
            True,
            [start(200, LENGTH_2, (b"Connection", b"x, Close")), body(b"ok")],
            SIZED + b"connection: close\r\n\r\nok",
        ),
        (
            "GET",
            "1.1",
            True,
            [start(200, (b"transfer-encoding", b"chunked")), body(b"ok")],
            CHUNKS + b"2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "GET",
            "1.1",
            True,
            [start(200, LENGTH_2, (b"transfer-encoding", b"chunked")), body(b"ok")],
            SIZED + b"\r\nok",
        ),
        (
            "GET",
            "1.1",
            True,
            [start(200, LENGTH_2, (b"X-A", b"b\tc\xff")), body(b"ok")],
            SIZED + b"x-a: b\tc\xff\r\n\r\nok",
        ),
    ],
)
def test_answers(method: str, version: str, keep: bool, messages: list[Any], expected: bytes) -> None:
    answer = Answer(method=method, version=version, keep_alive=keep, forms=HeadForms())
    data = answer.start(messages[0], b"")
    for message in messages[1:]:
        assert not answer.is_complete
        data += b"".join(answer.body(message))
    assert data == b"HTTP/1.1 " + expected
    assert answer.is_complete
    assert answer.keep_alive is (b"connection: close" not in expected)


@pytest.mark.parametrize(
    "messages",
    [
        [body(b"x")],
        [start(200, LENGTH_2), start()],
        [start(200, LENGTH_2), body(b"abc")],
        [start(200, LENGTH_2), body(b"a")],
        [start(200, LENGTH_2), body(b"ab"), body(b"")],
        [start(200, LENGTH_2, LENGTH_2)],
        [start(200, (b"content-length", b"-1"))],
        [start(204), body(b"x")],
        [start(304, LENGTH_2), body(b"xx")],
        [start(200, (b"a b", b"c"))],
        [start(200, (b"a:", b"c"))],
        [start(200, (b"", b"c"))],
        [start(200, (b"a", b"c\r\nset-cookie: x"))],
        [start(200, (b"a", b"c\nd"))],
        [start(200, (b"a", b"c\rd"))],
        [start(200, (b"a", b"c\0d"))],
    ],
)
def test_faults_of_the_application(messages: list[Any]) -> None:
    answer = Answer(method="GET", version="1.1", keep_alive=True, forms=HeadForms())
    for message in messages[:-1]:
        answer.body(message) if answer.is_started else answer.start(message, b"")
    with pytest.raises(RuntimeError):
        answer.body(messages[-1]) if answer.is_started else answer.start(messages[-1], b"")


def test_forms_of_heads_are_bounded_in_number() -> None:
    forms = HeadForms()
    for i in range(1000):
        assert forms.of((b"X-%d" % i, b"a%")).lines % (b"1", b"2") == b"x-%d: 1\r\na%%: 2\r\n" % i
    assert len(forms) <= 512


def test_refusals_say_what_could_be_read() -> None:
    error = RefusedRequestError(431, "too much", retry_after=0.2)
    refusal = refusal_of(error, b"HEAD /v1/messages HTTP/1.1\r\nHost: x\r\nAnthropic-Version: 2023\r\nhalf")
    assert (refusal.method, refusal.target) == (b"HEAD", b"/v1/messages")
    assert refusal.headers == ((b"host", b"x"), (b"anthropic-version", b"2023"))
    assert plain_refusal(refusal) == (
        [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")],
        b"too much",
    )
    assert refusal_of(error, b"").target == b""


def test_a_door_goes_to_other_processes_without_its_counts() -> None:
    door = Door(DoorLimits(max_headers=7))
    assert door.take(100)
    other = pickle.loads(pickle.dumps(door))  # noqa: S301 - made on this line
    assert other.limits == door.limits
    assert other.body_bytes == 0
