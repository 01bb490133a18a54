"""The middleware alone, on an application that knows nothing of the gateway."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_driver import drive
from clock import Clock
from gateway_middleware import BreakerPolicy, CircuitBreakerMiddleware
from gateway_middleware.breaker.state.transitions import State, Transition
from gateway_middleware.core.asgi import Message, Receive, Scope, Send
from gateway_middleware.core.errors import ClientDisconnectedError

pytestmark = pytest.mark.anyio


class App:
    """Answers with a status; counts."""

    def __init__(self) -> None:
        self.status, self.calls = 200, 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.act: Callable[[Receive, Send], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if self.act is not None:
            await self.act(receive, send)
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"x"})


def guarded(**options: Any) -> tuple[App, CircuitBreakerMiddleware, Clock]:
    app, clock = App(), Clock()
    key = options.pop("key", lambda scope: scope["path"])
    layer = CircuitBreakerMiddleware(app, key=key, clock=clock, wall=clock.wall, **options)
    return app, layer, clock


async def test_five_failures_open_it_for_this_key_only() -> None:
    app, layer, clock = guarded()
    app.status = 503
    for _ in range(8):
        last = await drive(layer, path="/ill")
    app.status = 200

    assert app.calls == 5
    assert (last.status, last.json()["detail"]) == (503, "The circuit breaker /ill is open.")
    assert 8 <= int(last.headers["retry-after"]) <= 13
    assert (await drive(layer, path="/well")).status == 200
    clock.advance(13)
    assert (await drive(layer, path="/ill")).status == 200


async def test_what_the_application_asks_for_is_the_least_time() -> None:
    app, layer, clock = guarded()
    app.status, app.headers = 503, [(b"retry-after", b"60")]
    for _ in range(5):
        await drive(layer)
    clock.advance(59)
    await drive(layer)
    assert app.calls == 5


@pytest.mark.parametrize("status", [200, 301, 404, 422, 429, 501])
async def test_other_statuses_are_no_failure(status: int) -> None:
    app, layer, _ = guarded()
    app.status = status
    for _ in range(20):
        await drive(layer)
    assert layer.breakers.breaker("/").state is State.CLOSED


async def test_an_exception_counts_and_is_passed_on() -> None:
    app, layer, _ = guarded()

    async def explode(receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    app.act = explode
    for _ in range(5):
        assert isinstance((await drive(layer, catches=True)).error, ZeroDivisionError)
    assert layer.breakers.breaker("/").state is State.OPEN


async def test_an_answer_that_is_broken_off_counts() -> None:
    app, layer, _ = guarded()

    async def stop_early(receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app.act = stop_early
    for _ in range(5):
        await drive(layer)
    assert layer.breakers.breaker("/").state is State.OPEN


@pytest.mark.parametrize("kind", [ClientDisconnectedError, asyncio.CancelledError, RuntimeError])
async def test_a_client_that_left_counts_for_nothing(kind: type[BaseException]) -> None:
    app, layer, _ = guarded()

    async def notice(receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise kind

    app.act = notice
    for _ in range(9):
        try:
            await drive(layer, leave_after=0, catches=True)
        except asyncio.CancelledError:
            continue
    assert layer.breakers.breaker("/").state is State.CLOSED


async def test_no_key_no_guard_and_own_words_for_a_refusal() -> None:
    app, layer, _ = guarded(key=lambda _: None)
    app.status = 500
    for _ in range(9):
        await drive(layer)
    assert app.calls == 9

    app, layer, _ = guarded(
        key=lambda _: "all", on_reject=lambda error: (418, [], error.message.encode()), is_failure=lambda s: s == 404
    )
    app.status = 404
    for _ in range(5):
        await drive(layer)
    refused = await drive(layer)
    assert (refused.status, refused.body) == (418, b"The circuit breaker all is open.")


async def test_transitions_are_told_and_a_breaker_can_be_forced() -> None:
    told: list[Transition] = []
    _, layer, _ = guarded(key=lambda _: "k", on_transition=told.append, policy=BreakerPolicy(consecutive=1))
    layer.breakers.breaker("k").force_open(60)
    assert (await drive(layer)).status == 503
    layer.breakers.breaker("k").reset()
    assert (await drive(layer)).status == 200
    assert [t.after for t in told] == [State.FORCED_OPEN, State.CLOSED]
    assert layer.breakers.snapshot()["k"].state is State.CLOSED


async def test_keys_are_bounded_and_open_ones_stay() -> None:
    app, layer, _ = guarded()
    app.status = 500
    for _ in range(5):
        await drive(layer, path="/ill")
    app.status = 200
    for number in range(1500):
        await drive(layer, path=f"/{number}")
    assert 800 < len(layer.breakers.snapshot()) <= 1024
    assert layer.breakers.breaker("/ill").state is State.OPEN


async def test_websockets_and_lifespan_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        return {"type": "none"}

    async def send(message: Message) -> None:
        return None

    layer = CircuitBreakerMiddleware(app, key=lambda _: "k")
    for kind in ("lifespan", "websocket"):
        await layer({"type": kind}, receive, send)
    assert seen == ["lifespan", "websocket"]


async def test_the_example_runs() -> None:
    path = Path(__file__).parents[2] / "docs" / "examples" / "guarded_app.py"
    spec = importlib.util.spec_from_file_location("guarded_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for _ in range(5):
        assert (await drive(module.app, path="/reports", query=b"status=500")).status == 500
    assert (await drive(module.app, path="/reports")).status == 503
    assert (await drive(module.app, path="/")).status == 200


async def test_a_download_and_a_client_that_is_gone_count_for_nothing() -> None:
    app, layer, _ = guarded()

    async def download(receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/x"})

    async def lose(receive: Receive, send: Send) -> None:
        raise OSError

    app.act = download
    for _ in range(9):
        await layer({"type": "http", "path": "/", "headers": []}, _nothing, _take)
    app.act = lambda receive, send: send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(9):
        with pytest.raises(OSError):
            await layer({"type": "http", "path": "/", "headers": []}, _nothing, _broken)
    assert layer.breakers.breaker("/").state is State.CLOSED


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _take(message: Message) -> None:
    return None


async def _broken(message: Message) -> None:
    raise OSError


def test_without_a_key_it_is_not_built() -> None:
    with pytest.raises(TypeError, match="key"):
        Starlette(middleware=[Middleware(CircuitBreakerMiddleware)]).build_middleware_stack()  # type: ignore[call-arg]  # the point


async def test_what_is_no_http_call_passes() -> None:
    _, layer, _ = guarded(key=lambda scope: pytest.fail("asked for the key of a lifespan"))
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    layer.app = inner
    for kind in ("lifespan", "websocket"):
        await layer({"type": kind}, _unused, _unused)  # type: ignore[arg-type]  # neither is used

    assert seen == ["lifespan", "websocket"]


async def _unused() -> None:
    pytest.fail("used")


@pytest.mark.parametrize("has_left", [True, False])
async def test_an_answer_that_never_ends_counts_unless_its_client_left(has_left: bool) -> None:
    app, layer, _ = guarded(key=lambda _: "k", policy=BreakerPolicy(consecutive=1))

    async def breaks_off(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.trailers", "headers": []})
        if has_left:
            await receive()

    app.act = breaks_off
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        pass

    await layer({"type": "http", "path": "/"}, receive, send)

    assert layer.breakers.breaker("k").state is (State.CLOSED if has_left else State.OPEN)
