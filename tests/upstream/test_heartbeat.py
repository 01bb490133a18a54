"""Signs of life stand between events, never inside one that is on its way in pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_middleware.core.asgi import UntilDisconnect, Watchtower
from gateway_middleware.core.domain import Dialect
from gateway_middleware.upstream.heartbeat import Heartbeat

pytestmark = pytest.mark.anyio
SECONDS = 0.01


async def never() -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_no_ping_inside_of_an_event(end: bytes) -> None:
    pings = asyncio.Queue[bytes]()

    async def send(message: Any) -> None:
        pings.put_nowait(message["body"])

    with UntilDisconnect(never, Watchtower()) as watch:
        heart = Heartbeat(send, watch, SECONDS, Dialect.OPENAI)
        heart.passed = b'data: {"choices":[{"delta":{"content":"a large'
        await asyncio.sleep(10 * SECONDS)
        assert pings.empty()
        heart.passed = b' text"}}]}' + end
        async with asyncio.timeout(5):
            assert await pings.get() == b": ping\n\n"
        heart.stop()
