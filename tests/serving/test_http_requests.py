"""Requests over a real socket: every cut, pipelining, HTTP/1.0, `Expect`, HEAD, upgrades, and refusals."""

from __future__ import annotations

import asyncio
import gc
import ssl
from typing import Any

import pytest
import trustme

from door_rig import GET, Recorder, answer, answers, listening, read_all, read_answer, send, until, whole_body
from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.scope import OUTBOX
from gateway_middleware.serving.http.exchange import Exchange
from gateway_middleware.serving.http.head import RequestHead
from gateway_middleware.serving.http.limits import DoorLimits
from gateway_middleware.serving.http.refusal import Refusal
from rawserver import BOTH_LOOPS

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

CLOSE = b"connection: close\r\n"
SIZED = b"POST /a%20b/%2F?q=1 HTTP/1.1\r\nHost: x\r\nX-A: b\r\ncontent-length: 11\r\n\r\nhello world"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nauthorization: t\r\n\r\n"
)
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"\r\n"


def seen(app: Recorder) -> list[tuple[str, bytes]]:
    return list(zip([scope["path"] for scope in app.scopes], app.bodies, strict=True))


@pytest.mark.parametrize("request_", [GET, SIZED, CHUNKED], ids=["get", "length", "chunked"])
async def test_a_request_cut_in_two_anywhere_is_one_request(request_: bytes) -> None:
    app, whole = Recorder(), Recorder()
    async with listening(whole) as listener:
        await send(listener.port, request_ + LAST)
    async with listening(app) as listener:
        for at in range(1, len(request_)):
            got = answers(await send(listener.port, request_[:at], request_[at:] + LAST))
            assert [(a.status, a.body) for a in got] == [(200, b"hello")] * 2, at
    assert seen(app) == seen(whole) * (len(request_) - 1)
    assert app.scopes[0]["headers"] == whole.scopes[0]["headers"]


@pytest.mark.parametrize("request_", [GET, SIZED, CHUNKED], ids=["get", "length", "chunked"])
async def test_a_request_cut_off_anywhere_is_no_request(request_: bytes) -> None:
    app = Recorder()
    async with listening(app) as listener:
        for at in range(len(request_)):
            assert await send(listener.port, request_[:at], eof=True) == b"", at
        await listener.settled()
    assert app.bodies == []
    assert app.disconnects == len(app.scopes)


async def test_a_request_byte_by_byte() -> None:
    app = Recorder()
    async with listening(app) as listener:
        got = answers(await send(listener.port, *[bytes([byte]) for byte in SIZED + CHUNKED + LAST]))
    assert [a.status for a in got] == [200, 200, 200]
    assert seen(app) == [("/a b//", b"hello world"), ("/c", b"hello world"), ("/last", b"")]


async def test_what_the_application_sees() -> None:
    app = Recorder()
    async with listening(app, root_path="/root") as listener:
        _, writer = await listener.connect()
        client = writer.get_extra_info("sockname")
        writer.write(SIZED)
        await until(lambda: len(app.bodies) == 1)
        writer.close()
    assert app.scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", listener.port),
            "client": client,
            "scheme": "http",
            "method": "POST",
            "root_path": "/root",
            "path": "/root/a b//",
            "raw_path": b"/root/a%20b/%2F",
            "query_string": b"q=1",
            "headers": [(b"host", b"x"), (b"x-a", b"b"), (b"content-length", b"11")],
            "state": {"a": 1},
            OUTBOX.slot: app.scopes[0][OUTBOX.slot],
        }
    ]


async def test_trailers_are_dropped() -> None:
    app = Recorder()
    async with listening(app) as listener:
        await send(listener.port, CHUNKED + LAST)
    assert [name for scope in app.scopes for name, _ in scope["headers"] if name == b"authorization"] == []


async def test_pipelined_requests_are_answered_in_order_and_one_at_a_time() -> None:
    running: list[int] = []
    most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        number = int(scope["path"][1:])
        await asyncio.sleep((number % 3) * 0.001)
        await answer(send, scope["path"].encode(), headers=[(b"content-length", b"%d" % len(scope["path"]))])
        running.pop()

    requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % i for i in range(200))
    async with listening(app) as listener:
        got = answers(await send(listener.port, requests + b"GET /200 HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"\r\n"))
    assert [a.body for a in got] == [b"/%d" % i for i in range(201)]
    assert most == 1


async def test_a_pipeline_is_not_read_ahead_of_its_answers() -> None:
    may_go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await may_go_on.wait()
        await answer(send)

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        pipeline = GET * 400_000
        writer.write(pipeline)
        sent = -1
        while sent != writer.transport.get_write_buffer_size():  # until the kernel takes no more
            sent = writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.05)
        assert sent > 0
        assert len(listener.state.tasks) == 1
        writer.close()
        await asyncio.sleep(0)
        may_go_on.set()
        reader.feed_eof()


async def test_after_close_nothing_of_a_pipeline_is_served() -> None:
    app = Recorder()
    async with listening(app) as listener:
        got = answers(await send(listener.port, LAST + GET + GET))
    assert len(got) == len(app.scopes) == 1


async def test_http_1_0() -> None:
    app = Recorder()
    async with listening(app) as listener:
        plain = answers(await send(listener.port, b"GET / HTTP/1.0\r\n\r\n" + GET))
        kept = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
        both = answers(await send(listener.port, kept + b"GET / HTTP/1.0\r\n\r\n"))
    assert [a.header(b"connection") for a in plain] == [b"close"]
    assert [a.header(b"connection") for a in both] == [b"keep-alive", b"close"]
    assert [scope["http_version"] for scope in app.scopes] == ["1.0"] * 3


async def test_an_answer_of_unknown_length_ends_with_the_connection_for_http_1_0() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"abc")

    async with listening(app) as listener:
        data = await send(listener.port, b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert data == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc"


EXPECT = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"


async def test_100_continue_is_sent_when_the_application_wants_the_body() -> None:
    asked = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asked.wait()
        await answer(send, await whole_body(receive) or b"", headers=[(b"content-length", b"3")])

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(EXPECT)
        interim = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        await asyncio.wait([interim], timeout=0.02)
        assert not interim.done()
        asked.set()
        assert await interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await read_answer(reader)).body == b"abc"
        writer.close()


async def test_no_100_continue_after_a_refusal_or_when_the_body_is_there() -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 401)
        await receive()

    async with listening(refusing) as listener:
        got = answers(await send(listener.port, EXPECT))
    assert [(a.status, a.header(b"connection")) for a in got] == [(401, b"close")]
    async with listening(Recorder()) as listener:
        got = answers(await send(listener.port, EXPECT + b"abc" + LAST))
    assert [a.status for a in got] == [200, 200]


async def test_head_has_no_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"hello", headers=[(b"content-length", b"5")])

    head = b"HEAD / HTTP/1.1\r\nhost: x\r\n"
    async with listening(app) as listener:
        data = await send(listener.port, head + b"\r\n" + head + CLOSE + b"\r\n")
        refused = await send(listener.port, b"HEAD / HTTP/1.1\r\n\r\n")
    assert data.count(b"content-length: 5\r\n") == 2
    assert b"hello" not in data
    assert refused.endswith(b"connection: close\r\n\r\n")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_upgrades_are_ignored_and_hide_no_request(protocol: bytes) -> None:
    app = Recorder()
    lines = b"connection: upgrade\r\nupgrade: " + protocol + b"\r\n"
    hidden = b"GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"
    plain = b"POST /a HTTP/1.1\r\nhost: x\r\n" + lines + b"content-length: %d\r\n\r\n" % len(hidden) + hidden
    chunks = b"POST /b HTTP/1.1\r\nhost: x\r\n" + lines + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    bare = b"GET /c HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n"
    async with listening(app) as listener:
        got = answers(await send(listener.port, plain + chunks + bare + LAST))
    assert [a.status for a in got] == [200] * 4
    assert seen(app) == [("/a", hidden), ("/b", b"abc"), ("/c", b""), ("/last", b"")]


REFUSED = {
    "length and chunks": (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\naGET /", 400),
    "folding": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c: d\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    "NUL": (b"GET / HTTP/1.1\r\nhost: \0", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    "tunnel": (b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n", 405),
    "bad target": (b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "long head": (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    "endless head": (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 70_000, 431),
    "long target": (b"GET /" + b"b" * 70_000, 414),
    "long target in a whole head": (b"GET /" + b"b" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "many headers": (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
    "endless extension": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 20_000,
        400,
    ),
    "many extensions": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + (b"1;" + b"a" * 9000 + b"\r\na\r\n") * 8,
        431,
    ),
    "many trailers": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + (b"a: " + b"b" * 9000 + b"\r\n") * 8,
        431,
    ),
    "bad chunk": (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_and_closed_and_nothing_after_it_is_served(name: str) -> None:
    data, status = REFUSED[name]
    app = Recorder()
    async with listening(app) as listener:
        got = answers(await send(listener.port, data, GET))
        await listener.settled()
    assert [(a.status, a.header(b"connection")) for a in got] == [(status, b"close")]
    assert app.bodies == []
    assert app.disconnects == len(app.scopes)


async def test_a_bad_request_in_a_pipeline_does_not_hurt_the_ones_before_it() -> None:
    app = Recorder()
    async with listening(app) as listener:
        got = answers(await send(listener.port, SIZED + CHUNKED + b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n" + GET))
    assert [a.status for a in got] == [200, 200, 400]
    assert len(app.bodies) == 2


async def test_refusals_are_rendered_by_whoever_is_injected() -> None:
    refusals: list[Refusal] = []

    def refuse(refusal: Refusal) -> tuple[HeaderList, bytes]:
        refusals.append(refusal)
        return [(b"x-why", b"because")], b"no"

    async with listening(Recorder(), refuse=refuse) as listener:
        head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAnthropic-Version: 1\r\n"
        got = answers(await send(listener.port, head + b"content-length: x\r\n\r\n"))
        got += answers(await send(listener.port, head + b"transfer-encoding: chunked\r\n\r\nzz\r\n"))
    assert [(a.status, a.header(b"x-why"), a.body) for a in got] == [(400, b"because", b"no")] * 2
    assert [(r.method, r.target) for r in refusals] == [(b"POST", b"/v1/messages")] * 2
    assert all((b"anthropic-version", b"1") in r.headers for r in refusals)


async def test_default_headers_are_those_of_uvicorn() -> None:
    async with listening(Recorder()) as listener:
        listener.state.default_headers = [(b"date", b"now")]
        got = answers(await send(listener.port, LAST))
        listener.state.default_headers = [(b"date", b"later")]
        got += answers(await send(listener.port, b"GET / HTTP/1.1\r\n\r\n"))
    assert [a.header(b"date") for a in got] == [b"now", b"later"]


async def test_unix_sockets_have_no_client(tmp_path: Any) -> None:
    app = Recorder()
    async with listening(app) as listener:
        path = str(tmp_path / "door")
        server = await asyncio.get_running_loop().create_unix_server(listener.protocol, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(LAST)
        assert answers(await read_all(reader))[0].status == 200
        writer.close()
        server.close()
    assert (app.scopes[0]["client"], app.scopes[0]["server"]) == (None, (path, None))


async def test_faults_of_the_application_are_answered_or_cut(caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/raise":
            raise ValueError
        if path == "/nothing":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        if path == "/raise-before-body":
            raise ValueError
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        if path == "/long":
            await send({"type": "http.response.body", "body": b"cdefg"})
        if path == "/short":
            await send({"type": "http.response.body", "body": b"c"})
        if path == "/raise-in-body":
            raise ValueError

    async with listening(app) as listener:
        for path in (b"/raise", b"/nothing", b"/raise-before-body"):
            got = answers(await send(listener.port, b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path))
            assert [(a.status, a.body) for a in got] == [(500, b"Internal Server Error")], path
        for path in (b"/long", b"/short", b"/raise-in-body", b"/end-in-body"):
            data = await send(listener.port, b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            assert data.endswith(b"\r\n\r\nab"), path
    assert len(caplog.records) == 7


async def test_a_cut_answer_cannot_be_taken_for_a_whole_one_by_http_1_0() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await asyncio.sleep(0.02)
        raise ValueError

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_head_and_first_body_are_one_write_but_a_late_body_does_not_hold_the_head() -> None:
    may_go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await may_go_on.wait()
        await send({"type": "http.response.body", "body": b"late"})

    async with listening(app) as listener:
        reader, writer = await listener.connect()
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        may_go_on.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"4\r\nlate\r\n0\r\n\r\n"
        writer.close()


async def test_what_an_application_does_after_its_answer_holds_nothing_up() -> None:
    may_end = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, headers=[(b"content-length", b"2")])
        assert (await receive())["type"] == "http.disconnect"
        if scope["path"] == "/":
            await may_end.wait()

    async with listening(app) as listener:
        assert len(answers(await send(listener.port, GET + LAST))) == 2
        assert len(listener.state.tasks) == 1
        may_end.set()


async def test_requests_leave_no_cycles() -> None:
    app = Recorder()
    async with listening(app) as listener:
        reader, writer = await listener.connect()
        for _ in range(3):
            writer.write(SIZED)
            await read_answer(reader)
        app.scopes.clear()
        gc.collect()
        gc.disable()
        try:
            for _ in range(50):
                writer.write(SIZED)
                await read_answer(reader)
            app.scopes.clear()
            await asyncio.sleep(0)
            left = [type(one) for one in gc.get_objects() if type(one) in (Exchange, RequestHead)]
            assert left == [RequestHead]  # that of the last request, which the next one may repeat
        finally:
            gc.enable()


async def test_limits_of_a_head_are_exact() -> None:
    head = b"GET / HTTP/1.1\r\nhost: x\r\na: %b\r\n" + CLOSE + b"\r\n"
    size = len(head) - 2
    async with listening(Recorder(), limits=DoorLimits(max_head_bytes=1000, max_headers=3)) as listener:
        assert answers(await send(listener.port, head % (b"b" * (1000 - size))))[0].status == 200
        assert answers(await send(listener.port, head % (b"b" * (1001 - size))))[0].status == 431
        assert answers(await send(listener.port, SIZED * 50 + LAST))[-1].status == 200
        more = head.replace(b"a: %b", b"a: b\r\nc: d")
        assert answers(await send(listener.port, more))[0].status == 431


async def test_a_head_may_be_longer_than_what_is_read_ahead() -> None:
    long = b"".join(b"x-%d: %b\r\n" % (i, b"a" * 5000) for i in range(60))
    head = b"GET / HTTP/1.1\r\nhost: x\r\n" + long + CLOSE + b"\r\n"
    limits = DoorLimits(max_head_bytes=400_000)
    async with listening(Recorder(), limits=limits) as listener:
        pieces = [head[at : at + 50_000] for at in range(0, len(head), 50_000)]
        assert [a.status for a in answers(await send(listener.port, *pieces))] == [200]
        assert len(answers(await send(listener.port, (GET + head[: -len(CLOSE) - 2] + b"\r\n") * 3 + head))) == 7


async def test_over_tls() -> None:
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)
    app = Recorder(b"a" * 1_000_000)
    async with listening(app) as listener:
        server = await asyncio.get_running_loop().create_server(listener.protocol, "127.0.0.1", 0, ssl=served)
        port = server.sockets[0].getsockname()[1]
        got = []
        for data in (SIZED + LAST, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
            writer.write(data)
            got += answers(await read_all(reader))
            writer.close()
        server.close()
    assert [(a.status, len(a.body)) for a in got[:2]] == [(200, 1_000_000)] * 2
    assert [a.status for a in got[2:]] == [400]
    assert [scope["scheme"] for scope in app.scopes] == ["https"] * 2
