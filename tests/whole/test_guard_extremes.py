"""Guards at their limits, behind HTTP: the smallest windows, answers that come late or never end, and a late no."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector, CollectorServer
from gateway_middleware.tenancy.keys import digest
from running import KEY, gateway_for, serving
from server_process import until

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "hello"}]
HEADERS = {"authorization": f"Bearer {KEY}"}
MODEL = "openai/sim-length-40"


class Webhook:
    """A guard behind HTTP. `verdict` makes each answer of what is shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.verdict: Callable[[dict[str, Any]], Awaitable[Response]] = self.passing

    async def passing(self, _: dict[str, Any]) -> Response:
        return JSONResponse({"action": "pass"})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        shown = await Request(scope, receive).json()
        self.shown.append(shown)
        response = await self.verdict(shown)
        await response(scope, receive, send)


class Guarded:
    """A gateway with one guard, its webhook, and where its usage goes."""

    def __init__(self, webhook: Webhook, url: str, sink: CollectorServer) -> None:
        self.webhook = webhook
        self.url = url
        self.sink = sink
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)

    async def text(self, model: str = MODEL) -> str:
        """What a stream brings its client."""
        pieces = []
        async for chunk in await self.client.chat.completions.create(model=model, messages=ASK, stream=True):
            pieces += [choice.delta.content or "" for choice in chunk.choices]
        return "".join(pieces)

    async def get(self, path: str) -> Any:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, headers=HEADERS) as client:
            return (await client.get(path)).json()

    async def events(self, count: int) -> list[dict[str, Any]]:
        async def arrived() -> bool:
            return len(self.sink.collector.events) >= count

        await until(arrived, 20.0)
        return [stored.document["data"] for stored in self.sink.collector.events]


@contextlib.asynccontextmanager
async def guarded(folder: Path, **options: Any) -> AsyncIterator[Guarded]:
    webhook = Webhook()
    tenants = {"acme": {"keys": [digest(KEY.encode())], "concurrency": 1, "tokens": "100000/hour"}}
    async with (
        Simulator().serve() as simulator,
        Collector().serve() as sink,
        serving(webhook, lifespan="off") as guard_url,
    ):
        extra = {
            "GATEWAY_GUARDS": json.dumps({"dlp": {"url": guard_url, "stages": ["stream"], "deadline": 20} | options}),
            "GATEWAY_TENANTS": json.dumps(tenants),
            "GATEWAY_JOURNAL": str(folder / "journal.db"),
            "GATEWAY_MAX_ANSWER_BYTES": "1048576",
            "GATEWAY_USAGE_METERING_URL": f"{sink.url}/events",
        }
        async with gateway_for(simulator.url, **extra) as url:
            made = Guarded(webhook, url, sink)
            async with made.client:
                yield made


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (1, 1), (1, 500), (7, 7), (100_000, 100_000)])
async def test_every_window_brings_the_same_text(window: int, overlap: int, tmp_path: Path) -> None:
    async with guarded(tmp_path, window=100, overlap=0) as usual:
        expected = await usual.text()
    async with guarded(tmp_path, window=window, overlap=overlap) as odd:
        assert await odd.text() == expected
        assert "".join(shown["content"] for shown in odd.webhook.shown if not overlap) == ("" if overlap else expected)
        assert max(len(shown["content"]) for shown in odd.webhook.shown) <= window + overlap + len(expected)


async def test_a_no_in_the_middle_of_a_stream_costs_what_was_used_once_and_blames_nobody(tmp_path: Path) -> None:
    async with guarded(tmp_path, window=20, overlap=5) as gateway:

        async def third_is_refused(_: dict[str, Any]) -> Response:
            is_third = len(gateway.webhook.shown) % 3 == 0
            return JSONResponse({"action": "refuse", "reason": "enough"} if is_third else {"action": "pass"})

        gateway.webhook.verdict = third_is_refused
        for _ in range(10):  # ten failures in a row would open a breaker, ten slots that are kept would leave none
            with pytest.raises(openai.APIError, match="enough"):
                await gateway.text("openai/sim-gap-5:length-200")
        gateway.webhook.verdict = gateway.webhook.passing
        assert await gateway.text()
        events = await gateway.events(11)
        assert len(events) == 11
        assert len({(event["request_id"], event["attempt"]) for event in events}) == 11
        assert all(event["output_tokens"] > 0 for event in events)
        refused = [event["outcome"] for event in events if event["outcome"] != "success"]
        assert len(refused) == 10
        health = await gateway.get("/v1/health")
        assert {row["state"] for row in health["circuit_breakers"].values()} == {"closed"}
        used = sum(event["input_tokens"] + event["output_tokens"] for event in events)
        limits = (await gateway.get("/v1/usage"))["limits"]
        assert [(row["unit"], row["used"]) for row in limits] == [("tokens", used), ("concurrency", 0)]


async def silent(_: dict[str, Any]) -> Response:
    await asyncio.sleep(30)
    return JSONResponse({"action": "pass"})


async def endless(_: dict[str, Any]) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"action": "pass", "reason": "'
        for _ in range(160):
            yield b"x" * 65536
        yield b'"}'

    return StreamingResponse(body(), media_type="application/json")


@pytest.mark.parametrize("verdict", [silent, endless])
@pytest.mark.parametrize("on_failure", ["refuse", "pass"])
async def test_an_answer_that_is_late_or_too_long_is_no_answer(verdict: Any, on_failure: str, tmp_path: Path) -> None:
    async with guarded(tmp_path, deadline=0.3, on_failure=on_failure, window=100_000) as gateway:
        gateway.webhook.verdict = verdict
        if on_failure == "pass":
            assert await gateway.text()
        else:
            with pytest.raises(openai.APIError):
                await gateway.text()
        assert len(await gateway.events(1)) == 1
        gateway.webhook.verdict = gateway.webhook.passing
        assert await gateway.text(), "the slot has been given back"
        assert (await gateway.get("/v1/health"))["circuit_breakers"]["openai"]["state"] == "closed"
