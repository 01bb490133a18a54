"""Keys of requests: addresses and headers, also where there are none."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_driver import drive
from gateway_middleware import CircuitBreakerMiddleware, RateLimitMiddleware, client_address, header
from running import serving_on

pytestmark = pytest.mark.anyio


def scope_of(*headers: tuple[bytes, bytes], client: Any = ("10.0.0.7", 4711)) -> dict[str, Any]:
    return {"type": "http", "headers": list(headers), "client": client}


@pytest.mark.parametrize(
    ("client", "address"),
    [(("10.0.0.7", 1), "10.0.0.7"), (["::1", 2], "::1"), (None, "local"), (("", 0), "local")],
)
def test_an_address_without_its_port(client: Any, address: str) -> None:
    assert client_address(scope_of(client=client)) == address


def test_a_scope_without_a_client_is_local() -> None:
    assert client_address({"type": "http", "headers": []}) == "local"


def test_a_header_is_a_key_that_does_not_tell_its_value() -> None:
    key = header("X-Api-Key")
    one, same = key(scope_of((b"x-api-key", b"sk-1"))), key(scope_of((b"x-api-key", b"sk-1"), client=None))
    assert one == same
    assert one != key(scope_of((b"x-api-key", b"sk-2")))
    assert one is not None
    assert "sk-1" not in one
    assert one.startswith("x-api-key:")


def test_whoever_leaves_the_header_out_has_a_key_all_the_same() -> None:
    assert header("x-api-key")(scope_of()) == "10.0.0.7"
    assert header("x-api-key")(scope_of((b"x-api-key", b""))) == "10.0.0.7"
    assert header("x-api-key", missing=lambda _: None)(scope_of()) is None


@contextlib.asynccontextmanager
async def on_a_unix_socket(app: Any, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        async with serving_on(listener, app):
            async with httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://host"
            ) as client:
                yield client


async def test_a_limit_by_address_works_on_a_unix_socket(tmp_path: Path) -> None:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    limited = Middleware(RateLimitMiddleware, key=client_address, limits="2/minute")
    app = Starlette(routes=[Route("/", hello)], middleware=[limited])
    with anyio.fail_after(20):
        async with on_a_unix_socket(app, tmp_path / "s") as client:
            assert [(await client.get("/")).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("key", [7, b"bytes", ("a", "b"), False])
@pytest.mark.parametrize("kind", [RateLimitMiddleware, CircuitBreakerMiddleware])
async def test_a_key_that_is_no_text_is_said_to_be_none(kind: Any, key: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not get through")

    options = {"limits": "1/minute"} if kind is RateLimitMiddleware else {}
    layer = kind(app, key=lambda _: key, **options)
    with pytest.raises(TypeError, match=f"expected a function that gives text or None, not {type(key).__name__}"):
        await drive(layer)
