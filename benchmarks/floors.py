"""The floors in Python: an ASGI app that only answers, and one that only relays with the gateway's own engine."""

from __future__ import annotations

import os
from typing import Any

from gateway_middleware.core.domain import Timeouts
from gateway_middleware.core.provider_api import Origin, UpstreamRequest, UpstreamTarget
from gateway_middleware.upstream.engine import Engine

ANSWER = b'{"id":"chatcmpl-1","choices":[{"message":{"role":"assistant","content":"%s"}}]}' % (b"word " * 160)


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def echo() -> Any:
    """Reads the body, answers 890 bytes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await _body(receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})

    return app


def relay() -> Any:
    """Forwards the body with the engine and relays what comes, no more."""
    engine = Engine()
    origin = Origin(host="127.0.0.1", port=int(os.environ["BENCH_UPSTREAM"]), is_tls=False)
    headers = ((b"authorization", b"Bearer sk-bench"), (b"content-type", b"application/json"))
    target = UpstreamTarget.build(origin, "/chat/v1/chat/completions", headers)
    timeouts = Timeouts()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = UpstreamRequest(target=target, body=await _body(receive))
        answer = await engine.open(request, timeouts, first_byte=60)
        headers = [(k, v) for k, v in answer.headers if k in (b"content-type", b"content-length")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        while chunk := await answer.chunk():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        answer.close()
        await send({"type": "http.response.body", "body": b""})

    return app
