"""The gateway's own calls: bounded in time and size, no redirects, no address in an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from gateway_middleware.core.fetch import FetchError
from gateway_middleware.upstream.side_client import SideClient

pytestmark = pytest.mark.anyio
URL = "https://secret-user.test/path"
Answer = Callable[[httpx.Request], httpx.Response]


async def fetch(answer: Answer, *, max_bytes: int = 1000, deadline: float = 5.0) -> tuple[int, bytes]:
    client = SideClient(httpx.MockTransport(answer))
    fetched = await client("POST", URL, headers={"x-a": "1"}, body=b"in", deadline=deadline, max_bytes=max_bytes)
    return fetched.status, fetched.body


async def test_one_request_one_answer() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url), request.content) == ("POST", URL, b"in")
        assert (request.headers["x-a"], request.headers["accept-encoding"]) == ("1", "identity")
        return httpx.Response(200, content=b"out")

    assert await fetch(answer) == (200, b"out")


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    assert (await fetch(answer))[0] == 302
    assert len(calls) == 1


class Endless(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100

    async def aclose(self) -> None:
        self.is_closed = True


async def test_an_answer_without_end_is_left() -> None:
    stream = Endless()
    with pytest.raises(FetchError, match="more than 1000 bytes"):
        await fetch(lambda _: httpx.Response(200, stream=stream))
    assert stream.is_closed


class Silent(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError


async def test_silence_has_a_deadline() -> None:
    with pytest.raises(FetchError, match="no answer in time"):
        await SideClient(Silent())("GET", URL, deadline=0.01, max_bytes=10)


@pytest.mark.parametrize("error", [httpx.ConnectError("to secret-user.test"), OSError("secret-user.test")])
async def test_a_failure_names_no_address(error: Exception) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(FetchError) as caught:
        await fetch(answer)
    assert "secret-user" not in str(caught.value)
