"""Our reading of a provider's answer beside h11: the same bytes are the same answer, or an error for both."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.upstream.engine import Engine
from rawserver import TIMEOUTS, Peer, raw_server, request_to, running_engine

BODY = st.binary(max_size=60)
TOKEN = st.from_regex(r"x-[a-z0-9]{1,8}", fullmatch=True).map(str.encode)
VALUE = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True).map(str.encode)
STATUS = st.sampled_from([b"200 OK", b"200", b"201 Created", b"400 Bad Request", b"429 Too Many Requests", b"503 "])


BEGINNING = re.compile(rb"[\r\n]*(HTTP/1\.1 (\d)\d\d)[^\r\n]*")
END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def head(status: bytes, headers: list[tuple[bytes, bytes]], framing: bytes) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %s\r\n%s%s\r\n" % (status, lines, framing)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer in one of the three framings, perhaps behind an interim one."""
    interim = draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"]))
    status, headers = draw(STATUS), draw(st.lists(st.tuples(TOKEN, VALUE), max_size=4))
    parts = draw(st.lists(BODY.filter(bool), max_size=4))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        body = b"".join(parts)
        return interim + head(status, headers, b"content-length: %d\r\n" % len(body)) + body
    if framing == "chunked":
        extension = draw(st.sampled_from([b"", b";a=b"]))
        chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
        trailer = draw(st.sampled_from([b"", b"x-trailer: 1\r\n"]))
        return interim + head(status, headers, b"transfer-encoding: chunked\r\n") + chunks + b"0\r\n%s\r\n" % trailer
    return interim + head(status, headers, b"connection: close\r\n") + b"".join(parts)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer in which a few bytes were taken out or put in, or that was cut."""
    answer = draw(answers())
    start = draw(st.integers(0, len(answer)))
    end = draw(st.integers(start, min(len(answer), start + 6)))
    put = draw(st.sampled_from([b"", b"\r\n", b"\n", b"\x00", b":", b" ", b"0", b"ff", b"content-length: 3\r\n"]))
    return answer[:start] + put + (answer[end:] if draw(st.booleans()) else b"")


def plain(stream: bytes) -> bytes:
    """Without what h11 looks at and ours does not, in the heads of interim answers and of the answer.

    Empty lines before an answer are no part of it (as RFC 9112, 2.2 has it for requests); h11 refuses them. The reason
    behind a status is for people.
    """
    beginning = BEGINNING.match(stream)
    if beginning is None:
        return stream
    rest = stream[beginning.end() :]
    if beginning[2] == b"1" and (end := END_OF_HEAD.search(rest)) is not None:
        rest = rest[: end.end()] + plain(rest[end.end() :])
    return beginning[1] + rest


def theirs(stream: bytes) -> Answer | None:
    """What h11 reads when the connection ends behind these bytes; None: an error."""
    client = h11.Connection(h11.CLIENT)
    events: list[h11.Event] = []
    client.send(h11.Request(method="POST", target="/v1/x", headers=[("host", "h"), ("content-length", "2")]))
    client.send(h11.Data(data=b"{}"))
    client.send(h11.EndOfMessage())
    try:
        client.receive_data(plain(stream))
        while not events or not isinstance(events[-1], h11.EndOfMessage):
            event = client.next_event()
            if event is h11.NEED_DATA:
                client.receive_data(b"")
                continue
            if not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
                return None
            events.append(event)
    except h11.RemoteProtocolError:
        return None
    response = next(event for event in events if isinstance(event, h11.Response))
    body = b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))
    return Answer(response.status_code, [(bytes(name), bytes(value)) for name, value in response.headers], body)


async def ours(engine: Engine, stream: bytes, size: int) -> Answer | None:
    """What the engine reads when the bytes come in pieces and then the connection ends; None: an error."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(0, len(stream), size):
            await peer.send(stream[at : at + size])
        peer.fin()

    async with raw_server(script) as server:
        try:
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=10.0)
            body = b""
            try:
                while chunk := await answer.chunk():
                    body += chunk
            finally:
                answer.close()
        except UpstreamProtocolError:
            return None
        return Answer(answer.status, list(answer.headers), body)


async def both(stream: bytes, size: int) -> tuple[Answer | None, Answer | None]:
    async with running_engine() as engine:
        return await ours(engine, stream, size), theirs(stream)


@settings(deadline=None)
@given(stream=answers(), size=st.integers(1, 200))
def test_good_answers_are_read_alike(stream: bytes, size: int) -> None:
    mine, reference = asyncio.run(both(stream, size))

    assert mine is not None
    assert mine == reference


@settings(deadline=None, max_examples=300)
@given(stream=damaged())
def test_what_we_take_of_a_damaged_answer_is_what_h11_takes(stream: bytes) -> None:
    mine, reference = asyncio.run(both(stream, 4096))

    assert mine is None or mine == reference


KEPT = answers().filter(lambda answer: b"connection: close" not in answer)


async def ours_in_turn(streams: list[bytes], size: int) -> tuple[list[Answer], int]:
    """What the engine reads of answers to one request after the other, and on how many connections."""

    async def script(peer: Peer) -> None:
        for stream in streams:
            await peer.request()
            for at in range(0, len(stream), size):
                await peer.send(stream[at : at + size])

    read = []
    async with running_engine() as engine, raw_server(script) as server:
        for _ in streams:
            answer = await engine.open(request_to(server.origin), TIMEOUTS, first_byte=10.0)
            body = b""
            while chunk := await answer.chunk():
                body += chunk
            answer.close()
            read.append(Answer(answer.status, list(answer.headers), body))
        return read, len(server.peers)


@settings(deadline=None)
@given(streams=st.lists(KEPT, min_size=2, max_size=4), size=st.integers(1, 200))
def test_answers_on_a_kept_connection_are_read_alike(streams: list[bytes], size: int) -> None:
    """One is over where the next begins, whatever its framing."""
    mine, connections = asyncio.run(ours_in_turn(streams, size))

    assert mine == [theirs(stream) for stream in streams]
    assert connections == 1
