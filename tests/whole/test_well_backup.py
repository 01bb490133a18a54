"""An idle gateway, a hundred clients at once, a primary that is ill and a backup that is well: nobody sees an error."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Behaviour, Server, Simulator
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
CLIENTS = 100
MAX_ATTEMPTS = 3
SICK = Behaviour(status=500, fail_rate=0.3)
HANGING = Behaviour(fault="stall")
DEAD = None
PRIMARIES = pytest.mark.parametrize("primary", [SICK, HANGING, DEAD], ids=["30 % sick", "hanging", "dead"])


@asynccontextmanager
async def calling(behaviour: Behaviour | None) -> AsyncIterator[tuple[httpx.AsyncClient, list[Server]]]:
    """A client of a gateway with both deployments, and their servers; without a behaviour nobody is at the first."""
    async with AsyncExitStack() as stack:
        primary, backup = [await stack.enter_async_context(Simulator().serve()) for _ in range(2)]
        nobody = stack.enter_context(socket.socket())  # which is bound and does not listen
        nobody.bind(("127.0.0.1", 0))
        address = primary.url if behaviour is not None else f"http://127.0.0.1:{nobody.getsockname()[1]}"
        primary.simulator.behave(behaviour or Behaviour())
        providers = {"backup": {"kind": "openai", "base_url": f"{backup.url}/v1", "api_key": "sk-backup"}}
        hurried = {"to": "openai/gpt", "timeouts": {"first_byte": 1.0, "answer": 1.0}}
        url = await stack.enter_async_context(
            gateway_for(
                address,
                GATEWAY_PROVIDERS=json.dumps(providers),
                GATEWAY_ROUTES=json.dumps({"fast": [hurried, "backup/gpt"]}),
                GATEWAY_MAX_ATTEMPTS=str(MAX_ATTEMPTS),
            )
        )
        limits, headers = httpx.Limits(max_connections=CLIENTS), {"authorization": f"Bearer {KEY}"}
        client = httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30, trust_env=False)
        yield await stack.enter_async_context(client), [primary, backup]


async def call(client: httpx.AsyncClient, number: int, *, is_stream: bool) -> tuple[int, bool, list[str]]:
    """Status, whether the answer is whole, and the attempts that were told."""
    prompt: Any = [{"role": "user", "content": f"hello {number}"}]
    body = {"model": "fast", "messages": prompt, "stream": is_stream}
    answer = await client.post("/v1/chat/completions", json=body)
    is_whole = b"data: [DONE]" in answer.content if is_stream else "choices" in answer.json()
    return answer.status_code, is_whole and b'"error"' not in answer.content, attempts_of(answer)


def attempts_of(answer: httpx.Response) -> list[str]:
    return [attempt.strip() for attempt in answer.headers["x-gateway-attempts"].split(",")]


@PRIMARIES
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_hundred_clients_at_once_see_no_error(primary: Behaviour | None, *, is_stream: bool) -> None:
    async with calling(primary) as (client, servers):
        answers = await asyncio.gather(*(call(client, number, is_stream=is_stream) for number in range(CLIENTS)))
        posts = [len(server.simulator.requests) for server in servers]

    assert [(status, is_whole) for status, is_whole, _ in answers] == [(200, True)] * CLIENTS
    assert max(posts) <= 1.2 * CLIENTS, "amplification on one deployment"
    assert max(len(attempts) for _, _, attempts in answers) <= MAX_ATTEMPTS
    told = [attempt for _, _, attempts in answers for attempt in attempts if "connect_error" not in attempt]
    assert len(told) == sum(posts), "every request that a provider got was told"
