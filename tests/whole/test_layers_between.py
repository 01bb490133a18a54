"""Any pure-ASGI layer works between two of ours: it sees the client's bytes above failover, one attempt below it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Router

from asgi_driver import Transcript, drive
from gateway_middleware.breaker.middleware import FailoverMiddleware
from gateway_middleware.composition.stack import Innermost, fold
from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
from gateway_middleware.core.errors import ProtocolFault, UpstreamProtocolError
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.core.scope import DEPLOYMENT
from rig import ASK, CHAT, GOOD, SSE, Rig, answering, failing, streaming
from running import KEY
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
CUT = UpstreamProtocolError("cut", fault=ProtocolFault.TRUNCATED)
EVENT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
BIG = json.dumps({"id": "c", "model": "m", "choices": [], "filler": "x" * 5000, "usage": {}}).encode()
LIMITED: dict[str, Any] = {
    "GATEWAY_DEFAULT_REQUESTS": "100000/minute",
    "GATEWAY_DEFAULT_TOKENS": "100000000/minute",
    "GATEWAY_DEFAULT_CONCURRENCY": "1",
}


class Seen:
    """One call as a layer saw it."""

    def __init__(self, deployment: str | None) -> None:
        self.deployment = deployment
        self.messages: list[Message] = []
        self.error: BaseException | None = None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_ended(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


class Recorder:
    """A foreign layer: knows ASGI and nothing else, and writes down what passes."""

    def __init__(self, app: ASGIApp, *, calls: list[Seen]) -> None:
        self.app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deployment = DEPLOYMENT.peek(scope)
        seen = Seen(None if deployment is None else deployment.key)
        self._calls.append(seen)

        def note(message: Message) -> Awaitable[None]:
            seen.messages.append(dict(message))
            return send(message)

        try:
            await self.app(scope, receive, note)
        except BaseException as error:
            seen.error = error
            raise


def layered(rig: Rig, position: int, *layers: Middleware) -> ASGIApp:
    """The gateway's own stack with foreign layers before the layer at this position (or innermost)."""
    gateway = rig.gateway
    stack = [*gateway.middleware[:position], *layers, *gateway.middleware[position:]]
    return fold(stack, Innermost(gateway.upstream.dispatch, Router(routes=gateway.routes)))


async def call(app: ASGIApp, *, stream: bool = False, path: str = CHAT, accept: str = "", **more: Any) -> Transcript:
    body = json.dumps({"model": "fast", "messages": ASK, "max_tokens": 9, "stream": stream, **more}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "accept-encoding": accept}
    return await drive(app, method="POST", path=path, headers=headers, body=body, catches=True)


class SlowAnswer(ScriptedAnswer):
    """Each chunk takes longer than a hedge waits: the race is one of real tasks."""

    async def chunk(self) -> bytes:
        await anyio.sleep(0.05)
        return await super().chunk()


def slow(request: UpstreamRequest) -> ScriptedAnswer:
    return SlowAnswer(200, SSE, [EVENT, DONE])


SHAPES: dict[str, Any] = {
    "whole": {"scripts": {"a": answering(GOOD)}},
    "stream": {"stream": True, "scripts": {"a": streaming(EVENT, DONE)}},
    "stream of one piece": {"stream": True, "scripts": {"a": streaming(EVENT + DONE)}},
    "error": {"scripts": {"a": failing(400, "bad_request")}},
    "error of both": {"scripts": {"a": failing(500), "b": failing(500)}},
    "failover": {"scripts": {"a": failing(500), "b": answering(GOOD)}},
    "failover of a stream": {"stream": True, "scripts": {"a": failing(500), "b": streaming(EVENT, DONE)}},
    "cut stream": {"stream": True, "scripts": {"a": streaming(EVENT, failure=CUT)}},
    "empty": {"scripts": {"a": answering(b""), "b": answering(b"")}},
    "hedged": {"stream": True, "hedge": 0.01, "scripts": {"a": slow, "b": streaming(EVENT, DONE)}},
}
POSITIONS = range(11)


def rig_of(shape: dict[str, Any], **extra: Any) -> Rig:
    route: Any = ["a/m", "b/m"]
    if "hedge" in shape:
        route = {"to": route, "hedge": shape["hedge"]}
    rig = Rig({"fast": route}, **extra)
    rig.scripts |= shape["scripts"]
    return rig


async def plain(shape: dict[str, Any]) -> Transcript:
    """The client's answer without a foreign layer."""
    return await call(rig_of(shape, **LIMITED).gateway, stream=shape.get("stream", False))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", SHAPES)
async def test_a_foreign_layer_sees_the_answer_and_changes_nothing(name: str, position: int, tmp_path: Path) -> None:
    shape = SHAPES[name]
    rig = rig_of(shape, **LIMITED, GATEWAY_JOURNAL=str(tmp_path / "journal.db"))
    classes: list[Any] = [layer.cls for layer in rig.gateway.middleware]
    assert len(classes) + 1 == len(POSITIONS), "a layer that this test does not stand beside"
    is_inside = position > classes.index(FailoverMiddleware)
    calls: list[Seen] = []
    answer = await call(layered(rig, position, Middleware(Recorder, calls=calls)), stream=shape.get("stream", False))
    expected = await plain(shape)
    await rig.gateway.aclose()

    assert (answer.status, answer.body) == (expected.status, expected.body)
    if is_inside:
        providers = [request.target.origin.host.partition(".")[0] for request in rig.exchange.requests]
        assert [seen.deployment for seen in calls] == [f"{provider}/m" for provider in providers]
    else:
        assert len(calls) == 1
    last = calls[-1]
    if last.error is None:
        assert (last.body, last.is_ended) == (answer.body, True)
    else:
        assert not last.is_ended
        assert answer.body.startswith(last.body)
        assert answer.body != last.body


@pytest.mark.parametrize("position", POSITIONS[2:])
async def test_compression_works_anywhere_inside(position: int) -> None:
    rig = Rig(**LIMITED)
    rig.scripts["a"] = answering(BIG)
    app = layered(rig, position, Middleware(GZipMiddleware, minimum_size=100))
    answer = await call(app, accept="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == BIG
    assert int(answer.headers["content-length"]) == len(answer.body) < len(BIG)

    rig.scripts["a"] = streaming(EVENT, DONE)
    answer = await call(app, accept="gzip", stream=True)
    assert (answer.headers.get("content-encoding"), answer.body) == (None, EVENT + DONE)


@pytest.mark.parametrize("layers", [(), (Middleware(GZipMiddleware, minimum_size=10),)])
async def test_a_client_that_has_seen_the_end_can_call_again(layers: tuple[Middleware, ...]) -> None:
    """Concurrency 1, one call after the other: everything a call took is back before its last message goes out."""
    rig = Rig(**LIMITED)
    rig.scripts["a"] = lambda request: (
        streaming(EVENT, DONE) if b'"stream": true' in request.body or b'"stream":true' in request.body else answering()
    )(request)
    app = layered(rig, 5, *layers)
    at_the_end: list[int] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if not message.get("more_body", message["type"] == "http.response.start"):
                at_the_end.append(rig.gateway.limits.calls.reservations.leased)
            await send(message)

        await app(scope, receive, note)

    answers = [(await call(watched, stream=number % 2 == 0)).status for number in range(1300)]
    assert answers == [200] * 1300
    assert at_the_end == [0] * 1300
