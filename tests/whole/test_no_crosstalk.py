"""SE28: fifty tenants at once, with clients that leave and a provider that fails: nobody gets what is another's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway_middleware.simulator.collector import Collector
from gateway_middleware.tenancy.keys import digest
from running import gateway_for, serving
from server_process import until

pytestmark = pytest.mark.anyio
TENANTS = [f"tenant-{number}" for number in range(50)]
CALLS = 20
ROOM = httpx.Limits(max_connections=50)
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A provider that says what it was asked; one call in ten fails."""
    asked = json.loads(await Request(scope, receive).body())
    nonce = asked["messages"][0]["content"]
    number = int(nonce.rpartition("/")[2])
    answer: Response
    if number % 10 == 3:
        answer = JSONResponse({"error": {"message": f"no, {nonce}", "code": "invalid_prompt"}}, 400)
    elif asked.get("stream"):
        answer = StreamingResponse(events(nonce), media_type="text/event-stream")
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": nonce}, "finish_reason": "stop"}
        answer = JSONResponse({"id": nonce, "model": "m", "choices": [choice], "usage": USAGE})
    await answer(scope, receive, send)


async def events(nonce: str) -> Any:
    for piece in [*nonce, None]:
        delta = {"content": piece} if piece else {}
        choice = {"index": 0, "delta": delta, "finish_reason": None if piece else "stop"}
        yield b"data: " + json.dumps({"id": nonce, "choices": [choice]}).encode() + b"\n\n"
        await asyncio.sleep(0)
    yield b"data: " + json.dumps({"id": nonce, "choices": [], "usage": USAGE}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def text_of(stream: str) -> str:
    documents = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for document in documents for c in document["choices"])


async def test_se28_no_body_no_header_and_no_event_crosses_from_tenant_to_tenant(tmp_path: Path) -> None:
    chance = random.Random(28)
    tenants = {name: {"keys": [digest(name.encode())], "requests": "1000/minute"} for name in TENANTS}
    async with serving(echo, lifespan="off") as upstream, Collector().serve() as sink:
        extra = {
            "GATEWAY_TENANTS": json.dumps(tenants),
            "GATEWAY_JOURNAL": str(tmp_path / "journal.db"),
            "GATEWAY_USAGE_METERING_URL": f"{sink.url}/events",
        }
        answered: dict[str, str] = {}
        few = asyncio.Semaphore(50)
        used: Counter[str] = Counter()
        async with (
            gateway_for(upstream, **extra) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=90, limits=ROOM) as client,
        ):

            async def call(tenant: str, number: int) -> None:
                nonce, is_stream = f"nonce/{tenant}/{number}", chance.random() < 0.5
                body = {"model": "openai/m", "messages": [{"role": "user", "content": nonce}], "stream": is_stream}
                sent = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {tenant}"})
                async with few:
                    if chance.random() < 0.1:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(chance.random() / 20):
                                await sent
                        return
                    answer = await sent
                assert int(answer.headers["x-ratelimit-limit-requests"]) == 1000
                if answer.status_code == 200:
                    said = text_of(answer.text) if is_stream else answer.json()["choices"][0]["message"]["content"]
                    assert said == nonce
                    answered[answer.headers["x-request-id"]] = tenant
                else:
                    assert (answer.status_code, nonce in answer.text, number % 10) == (400, True, 3)
                used[tenant] += 1

            orders = [(tenant, number) for tenant in TENANTS for number in range(CALLS)]
            chance.shuffle(orders)
            await asyncio.gather(*(call(*order) for order in orders))
            for tenant in TENANTS[:5]:
                headers = {"authorization": f"Bearer {tenant}"}
                limits = (await client.get("/v1/usage", headers=headers)).json()["limits"]
                assert used[tenant] <= limits[0]["used"] <= CALLS

            async def all_are_metered() -> bool:
                return answered.keys() <= metered().keys()

            def metered() -> dict[str, str]:
                return {s.document["data"]["request_id"]: s.document["subject"] for s in sink.collector.events}

            await until(all_are_metered, 30.0)
            assert answered == {request_id: metered()[request_id] for request_id in answered}
