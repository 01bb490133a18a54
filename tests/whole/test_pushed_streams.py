"""A stream that is passed on from the provider's connection goes through each layer as the task of the call does it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.routing import Router

import ways
from asgi_driver import Transcript, drive
from gateway_middleware import Settings
from gateway_middleware.composition.stack import Innermost, fold
from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
from rawserver import Peer, raw_server
from rig import ASK, CHAT
from running import KEY, environment

pytestmark = pytest.mark.anyio
CALLER = contextvars.ContextVar("CALLER", default="")
EVENTS = [
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word %d"}}]}\n\n' % number
    for number in range(8)
]
END = [
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def in_steps(peer: Peer) -> None:
    """Each event in a write of its own; the pause between them is for the sockets."""
    while await peer.request():
        await peer.send(HEAD)
        for event in (*EVENTS, *END):
            await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.003)
        await peer.send(b"0\r\n\r\n")


class Foreign:
    """A layer that knows ASGI only: its `send` may be used by the task of the call alone, and sometimes waits."""

    def __init__(self, app: ASGIApp, *, seen: list[Message], waits: bool) -> None:
        self.app = app
        self._seen = seen
        self._waits = waits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        task = asyncio.current_task()
        CALLER.set("this call")

        async def send_on(message: Message) -> None:
            assert (asyncio.current_task(), CALLER.get()) == (task, "this call")
            self._seen.append(dict(message))
            async with asyncio.timeout(10):
                if self._waits and len(self._seen) % 3 == 0:
                    await asyncio.sleep(0.01)
                await send(message)

        await self.app(scope, receive, send_on)


async def ask(app: ASGIApp) -> Transcript:
    body = json.dumps({"model": "openai/m", "messages": ASK, "stream": True}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    return await drive(app, method="POST", path=CHAT, headers=headers, body=body)


@pytest.mark.parametrize("waits", [False, True])
async def test_every_layer_sees_every_message_in_the_task_of_the_call(*, waits: bool) -> None:
    async with raw_server(in_steps) as server:
        gateway = ways.gateway(Settings.from_env(environment(server.url)), write_log=lambda _: None)
        async with gateway.lifespan():
            for position in range(len(gateway.middleware) + 1):
                seen: list[Message] = []
                layers: list[Any] = list(gateway.middleware)
                layers.insert(position, Middleware(Foreign, seen=seen, waits=waits))
                router = Router(routes=gateway.routes)
                answer = await ask(fold(layers, Innermost(gateway.upstream.dispatch, router)))
                assert answer.body == b"".join([*EVENTS, *END])
                assert b"".join(message.get("body", b"") for message in seen[1:]) == answer.body
                assert len(seen) > 3, "it was passed on as it came"


@pytest.mark.own_engine("httpx leaves cycles")
async def test_streams_leave_nothing_to_the_collector() -> None:
    async with raw_server(in_steps) as server:
        gateway = ways.gateway(Settings.from_env(environment(server.url)), write_log=lambda _: None)
        async with gateway.lifespan():
            await ask(gateway.app)
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    await ask(gateway.app)
                left = gc.collect()
            finally:
                gc.enable()
    assert left < 5, "less than one for each call: what there is belongs to the sockets of the test"
