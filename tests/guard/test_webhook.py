"""A guard behind HTTP, over a socket: verdicts, and everything that is none."""

from __future__ import annotations

import json

import pytest

from gateway_middleware.core.fetch import FetchError
from gateway_middleware.core.secret import Secret
from gateway_middleware.guard.port import Guarded, Part, Stage, Verdict
from gateway_middleware.guard.webhook import WebhookGuard
from gateway_middleware.upstream.engine_transport import EngineTransport
from gateway_middleware.upstream.side_client import SideClient
from rawserver import Script, plain, raw_server, respond

pytestmark = pytest.mark.anyio
PROMPT = Guarded(
    stage=Stage.STREAM,
    part=Part.TEXT,
    content="a b",
    tenant="acme",
    model="m",
    surface="chat",
    dialect="openai",
    request_id="r",
)


async def verdict(script: Script, *, deadline: float = 5.0, max_bytes: int = 1000) -> tuple[Verdict, bytes]:
    engine = EngineTransport()
    try:
        async with raw_server(script) as server:
            guard = WebhookGuard(
                server.url, fetch=SideClient(engine), deadline=deadline, max_bytes=max_bytes, token=Secret("hush-hush")
            )
            return await guard(PROMPT), server.requests[0]
    finally:
        await engine.aclose()


async def test_a_verdict_is_asked_for_with_what_is_shown() -> None:
    given, request = await verdict(respond(plain(b'{"action":"replace","content":"x","more":1}')))

    assert given == Verdict(action="replace", content="x")
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"authorization: Bearer hush-hush" in head
    assert json.loads(body) == {
        "stage": "stream", "part": "text", "content": "a b", "tenant": "acme", "model": "m", "surface": "chat",
        "dialect": "openai", "request_id": "r",
    }  # fmt: skip


@pytest.mark.parametrize(
    "script",
    [
        respond(plain(b"{}", status=b"500 No")),
        respond(plain(b"no json")),
        respond(plain(b'{"action":"maybe"}')),
        respond(plain(b'{"action":"replace","content":5}')),
        respond(plain(b"x" * 5000)),
        respond(b"", then="reset"),
        respond(plain(b"{}", status=b"302 Found", extra=b"location: http://127.0.0.1:1/\r\n")),
    ],
)
async def test_what_is_no_verdict_is_a_failure(script: Script) -> None:
    with pytest.raises(FetchError) as caught:
        await verdict(script)
    assert "hush-hush" not in str(caught.value)


async def test_a_guard_that_sleeps_is_left_at_its_deadline() -> None:
    with pytest.raises(FetchError):
        await verdict(respond(b"", then="stall"), deadline=0.05)
