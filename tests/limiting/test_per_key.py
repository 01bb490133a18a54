"""`RateLimitMiddleware` and `Limiter` on an application that has nothing else of the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from limits import RateLimitItemPerHour, RateLimitItemPerMinute, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.storage import storage_from_string
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_driver import Transcript, drive
from gateway_middleware import GatewayError, Limiter, RateLimitMiddleware, client_address
from gateway_middleware.core.asgi import Receive, Scope, Send
from limit_cases import fresh
from redis_process import RedisProcess, free_port

pytestmark = pytest.mark.anyio


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def caller_of(scope: Scope) -> str | None:
    return dict(scope["headers"]).get(b"x-caller", b"").decode() or None


async def ask(app: Any, caller: str = "a") -> Transcript:
    return await drive(app, headers={"x-caller": caller})


@pytest.mark.parametrize(
    "limits", ["2/minute;3/hour", [RateLimitItemPerMinute(2), RateLimitItemPerHour(3)], parse("2/minute")]
)
async def test_text_and_items_mean_the_same(limits: Any) -> None:
    app = RateLimitMiddleware(hello, key=caller_of, limits=limits)

    assert [(await ask(app)).status for _ in range(3)] == [200, 200, 429]
    refused = await ask(app)
    assert refused.headers["retry-after"] in {"60", "61"}
    assert refused.json()["detail"].startswith("Rate limit reached: 2 requests per minute")
    assert (await ask(app, "b")).headers["x-ratelimit-remaining-requests"] == "1"
    assert {(await ask(app, "")).status for _ in range(9)} == {200}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, TypeError),
        ({"key": caller_of}, TypeError),
        ({"limits": "1/minute"}, TypeError),
        ({"key": caller_of, "limits": None}, TypeError),
        ({"key": "x-api-key", "limits": "1/minute"}, TypeError),
        ({"key": caller_of, "limits": [5]}, TypeError),
        ({"key": caller_of, "limits": ""}, ValueError),
        ({"key": caller_of, "limits": "lots"}, ValueError),
        ({"key": caller_of, "limits": Limiter("1/minute"), "concurrency": 2}, ValueError),
        ({"key": caller_of, "limits": "1/minute", "storage_uri": "memory://"}, TypeError),
    ],
)
def test_a_layer_that_would_not_limit_is_not_built(options: Any, error: type[Exception]) -> None:
    app = Starlette(middleware=[Middleware(RateLimitMiddleware, **options)])

    with pytest.raises(error):
        app.build_middleware_stack()


@pytest.mark.parametrize("storage", ["mysql://x", "async+mysql://x", "redis://:secret@h:port", "memory"])
def test_storages_that_are_none(storage: str) -> None:
    with pytest.raises(ValueError, match=r"storage|expected|scheme") as caught:
        Limiter("1/minute", storage=storage)

    assert "secret" not in str(caught.value)


async def test_slots_are_held_for_as_long_as_the_answer_lasts() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await leave.wait()
        await hello(scope, receive, send)

    app = RateLimitMiddleware(slow, key=caller_of, limits="", concurrency=1)
    first = asyncio.create_task(ask(app))
    await entered.wait()
    assert (await ask(app)).status == 429
    leave.set()
    assert (await first).status == 200
    assert (await ask(app)).status == 200


async def test_a_refusal_in_the_words_of_the_host() -> None:
    def reject(error: GatewayError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        return 503, [(b"x-mine", b"1")], json.dumps({"wait": error.retry_after}).encode()

    app = RateLimitMiddleware(hello, key=caller_of, limits="1/minute", on_reject=reject)
    await ask(app)
    refused = await ask(app)

    assert refused.status == 503
    assert refused.headers["x-mine"] == "1"
    assert 0 < refused.json()["wait"] <= 61


async def receive_nothing() -> dict[str, Any]:
    return {"type": "lifespan.startup"}


async def send_nothing(message: Any) -> None:
    raise AssertionError(message)


def housekeepers() -> int:
    return sum("_keep_house" in repr(task) for task in asyncio.all_tasks())


def test_the_lifespan_that_passes_starts_and_ends_what_the_layer_made() -> None:
    counts: list[int] = []

    async def count(_: Request) -> PlainTextResponse:
        counts.append(housekeepers())
        return PlainTextResponse("")

    middleware = [Middleware(RateLimitMiddleware, key=client_address, limits="100/minute")]
    app = Starlette(routes=[Route("/", count)], middleware=middleware)
    for _ in range(2):  # a second life works as the first
        with TestClient(app) as client:
            assert client.get("/").headers["x-ratelimit-limit-requests"] == "100"

    assert counts == [1, 1]


async def test_the_end_of_the_lifespan_leaves_no_task_behind() -> None:
    is_over = asyncio.Event()

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await is_over.wait()

    app = RateLimitMiddleware(inner, key=caller_of, limits="1/minute")

    async def live() -> None:
        await app({"type": "lifespan"}, receive_nothing, send_nothing)

    living = asyncio.create_task(live())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert housekeepers() == 1
    is_over.set()
    await living

    assert housekeepers() == 0


async def test_a_limiter_shares_its_counts_and_closes_its_connection(shared_redis: RedisProcess) -> None:
    limiters = [Limiter("10/minute", storage=shared_redis.uri) for _ in range(2)]
    apps = [RateLimitMiddleware(hello, key=caller_of, limits=limiter) for limiter in limiters]
    caller = fresh()
    for _ in range(2):
        async with limiters[0], limiters[1]:
            statuses = [(await ask(apps[number % 2], caller)).status for number in range(8)]
    clients = shared_redis.command("CLIENT", "LIST")

    assert statuses == [200] * 2 + [429] * 6
    assert clients.count(b"id=") <= 1
    assert housekeepers() == 0


async def test_a_dead_redis_fails_no_request() -> None:
    async with Limiter("3/minute", concurrency=9, storage=f"redis://127.0.0.1:{free_port()}") as limiter:
        app = RateLimitMiddleware(hello, key=caller_of, limits=limiter)

        assert [(await ask(app)).status for _ in range(5)] == [200] * 3 + [429] * 2


@pytest.mark.parametrize("storage", ["async+memory://", "async+window+memory://", "instance"])
async def test_storages_of_limits_are_taken(storage: str) -> None:
    given: str | Storage = MemoryStorage() if storage == "instance" else storage
    async with Limiter("3/minute;100/hour", storage=given) as limiter:
        app = RateLimitMiddleware(hello, key=caller_of, limits=limiter)
        answers = [await ask(app) for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 3 + [429] * 2
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "2"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61
    assert 0 < float(answers[0].headers["ratelimit"].partition("t=")[2].partition(",")[0]) <= 122


async def test_our_window_in_redis_as_a_storage_of_limits(shared_redis: RedisProcess) -> None:
    storage = storage_from_string(f"async+window+{shared_redis.uri}")
    assert isinstance(storage, Storage)
    async with Limiter("3/minute", concurrency=2, storage=storage) as limiter:
        app = RateLimitMiddleware(hello, key=caller_of, limits=limiter)
        caller = fresh()

        assert [(await ask(app, caller)).status for _ in range(5)] == [200] * 3 + [429] * 2


def test_a_storage_without_slots_refuses_concurrency() -> None:
    with pytest.raises(ValueError, match="slots"):
        Limiter("3/minute", concurrency=2, storage=MemoryStorage())


class BrokenStorage(MemoryStorage):
    STORAGE_SCHEME = ["async+broken"]  # noqa: RUF012  # the interface of `limits`

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        raise ConnectionError("away")


async def test_a_storage_that_fails_is_replaced_by_this_process(caplog: pytest.LogCaptureFixture) -> None:
    async with Limiter("3/minute", storage=BrokenStorage()) as limiter:
        app = RateLimitMiddleware(hello, key=caller_of, limits=limiter)

        assert [(await ask(app)).status for _ in range(5)] == [200] * 3 + [429] * 2
    assert caplog.text.count("The storage of limits fails") == 1
