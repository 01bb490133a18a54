"""Broken requests by the thousand: never an unhandled exception, never a connection that hangs, never another request
than llhttp sees, and every byte of a body where it belongs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httptools
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from door_rig import PATIENCE, Recorder, answers, listening, read_all
from gateway_middleware.serving.http.limits import DoorLimits, HalfClose

Requests: TypeAlias = "list[tuple[str, bytes, bytes]]"
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
FUZZ = settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
LIMITS = DoorLimits(half_close=HalfClose.ALLOW)

HEADERS = [
    b"host: x",
    b"Host: y",
    b"content-length: 3",
    b"content-length: 4",
    b"Content-Length: 03",
    b"content-length: 3, 3",
    b"transfer-encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding : chunked",
    b"connection: close",
    b"connection: keep-alive",
    b"x: y\r\n z",
    b"a: b",
    b"\xff: c",
    b": d",
    b"e",
]
BODIES = [b"", b"abc", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"3;x\r\nabc\r\n0\r\na: b\r\n\r\n", b"0\r\n\r\n", b"\0\0\0"]
SIGNS = [b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b"0", b"3", b"f", b",", b"\x80", b"HTTP/1.0"]


@st.composite
def built(draw: st.DrawFn) -> bytes:
    """A request of parts that may not go together."""
    lines = draw(st.lists(st.sampled_from(HEADERS), max_size=4))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"]))
    head = b"\r\n".join(
        [b"POST /%d " % draw(st.integers(0, 9)) + version, *draw(st.permutations([b"host: x", *lines]))]
    )
    return head + b"\r\n\r\n" + draw(st.sampled_from(BODIES))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A pipeline of valid requests with some of their bytes replaced, removed or doubled."""
    sized = b"POST /s HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\nhello, world"
    chunks = b"PUT /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n"
    plain = b"GET /g HTTP/1.1\r\nhost: x\r\n\r\n"
    data = b"".join(draw(st.lists(st.sampled_from([sized, chunks, plain]), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = at + draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from([*SIGNS, data[at:until] * 2])) + data[until:]
    return data


class Loud(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def no_errors() -> Iterator[None]:
    """Nothing may be logged as an error: neither by the server nor, as an unhandled exception, by the loop."""
    loud = Loud()
    logging.getLogger().addHandler(loud)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(loud)
    assert loud.lines == []


def served(app: Recorder) -> Requests:
    return [(s["method"], s["raw_path"], b) for s, b in zip(app.scopes, app.bodies, strict=False)]


async def by_us(data: bytes, cuts: list[int]) -> tuple[Requests, list[int]]:
    app = Recorder()
    marks = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    async with listening(app, limits=LIMITS) as listener:
        reader, writer = await listener.connect()
        reading = asyncio.ensure_future(read_all(reader))
        for a, b in itertools.pairwise(marks):
            if not writer.is_closing():
                writer.write(data[a:b])
            for _ in range(4):
                await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            if not writer.is_closing():
                writer.write_eof()
        received = await reading  # raises TimeoutError when the connection hangs
        writer.close()
        await asyncio.wait_for(listener.settled(), PATIENCE)
    assert len(app.scopes) == len(app.bodies) + app.disconnects
    assert listener.door.body_bytes == 0
    return served(app), [a.status for a in answers(received)]


class Messages:
    """What llhttp, which stock uvicorn asks as well, takes for whole requests."""

    def __init__(self, data: bytes) -> None:
        self.whole: Requests = []
        self._target = self._body = b""
        self._parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserError):
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.whole.append((self._parser.get_method().decode(), self._target, self._body))


def check(run: Callable[[Any], Any], data: bytes, cuts: list[int]) -> None:
    with no_errors():
        ours, statuses = run(by_us(data, cuts))
    by_llhttp = Messages(data).whole
    assert ours == by_llhttp[: len(ours)]
    assert [status for status in statuses if status < 400] == [200] * len(ours)
    is_refused = any(status >= 400 for status in statuses)
    assert is_refused or len(ours) == len(by_llhttp) or re.search(rb"close|HTTP/1\.0", data)
    assert sum(status >= 400 for status in statuses) <= 1


CUTS = st.lists(st.integers(0, 1000), max_size=5)


@LOOPS
@given(data=st.lists(built(), min_size=1, max_size=3).map(b"".join), cuts=CUTS)
@FUZZ
def test_parts_that_do_not_go_together(run: Callable[[Any], Any], data: bytes, cuts: list[int]) -> None:
    check(run, data, cuts)


@LOOPS
@given(data=mutated(), cuts=CUTS)
@FUZZ
def test_mutated_pipelines(run: Callable[[Any], Any], data: bytes, cuts: list[int]) -> None:
    check(run, data, cuts)


@LOOPS
@given(data=st.binary(max_size=200), cuts=CUTS)
@FUZZ
def test_noise(run: Callable[[Any], Any], data: bytes, cuts: list[int]) -> None:
    check(run, data, cuts)
