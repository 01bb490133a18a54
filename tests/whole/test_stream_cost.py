"""`x-gateway-stream-cost: true`: a stream says what it has cost, to the digit; without it not a byte is another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.simulator import Simulator
from rig import MESSAGES, RESPONSES, Rig, chat_events, streaming
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
ASKING = {"x-gateway-stream-cost": "true"}
MODELS = {"chat": "openai/gpt-4o-mini", "claude": "anthropic/claude-haiku-4-5"}
SAID: Any = [{"role": "user", "content": "Good morning"}]


@asynccontextmanager
async def url_of(folder: Path) -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        prices = {model: {"input": "1.37", "output": "11.1", "cached_input": "0.1"} for model in MODELS.values()}
        chosen = {"GATEWAY_JOURNAL": str(folder / "journal.db"), "GATEWAY_PRICES": json.dumps(prices)}
        async with gateway_for(simulator.url, **chosen) as url:
            yield url


def events(folder: Path) -> dict[str, UsageEvent]:
    with sqlite3.connect(folder / "journal.db") as db:
        rows = db.execute("SELECT body FROM events").fetchall()
    made = [msgspec.json.decode(body, type=UsageEvent) for (body,) in rows]
    return {event.request_id: event for event in made}


def cost_in(usage: Any) -> Any:
    """A member that the SDK does not know."""
    return usage.model_extra["cost"]


async def chat_cost(url: str, model: str, name: str) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=model, messages=SAID, stream=True, extra_headers={**ASKING, "x-request-id": name}
        )
        chunks = [chunk async for chunk in stream]
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks)
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage is not None]
    return cost_in(usage)


async def responses_cost(url: str, model: str, name: str) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.responses.create(
            model=model, input="Good morning", stream=True, extra_headers={**ASKING, "x-request-id": name}
        )
        last = [event async for event in stream][-1]
    assert last.type == "response.completed"
    return cost_in(last.response.usage)


async def messages_cost(url: str, model: str, name: str) -> Any:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        headers = {**ASKING, "x-request-id": name}
        async with client.messages.stream(model=model, messages=SAID, max_tokens=50, extra_headers=headers) as stream:
            deltas = [event async for event in stream if event.type == "message_delta"]
    return cost_in(deltas[-1].usage)


async def test_every_sdk_gets_the_figure_of_the_event_natively_and_translated(tmp_path: Path) -> None:
    costs: dict[str, Any] = {}
    async with url_of(tmp_path) as url:
        for kind, model in MODELS.items():
            for ask in (chat_cost, responses_cost, messages_cost):
                name = f"{kind}-{ask.__name__}"
                costs[name] = await ask(url, model, name)
    kept = events(tmp_path)
    assert len(kept) == 6
    for name, event in kept.items():
        assert event.cost is not None
        assert costs[name] == float(event.cost)


async def exchanged(rig: Rig, **more: Any) -> bytes:
    return (await rig.call(stream=True, **more)).body


async def test_the_digits_are_those_of_event_and_settlement(tmp_path: Path) -> None:
    rig = Rig({"fast": ["a/m"]}, GATEWAY_JOURNAL=str(tmp_path / "journal.db"),
              GATEWAY_PRICES=json.dumps({"a/m": {"input": "1.2345678", "output": "10"}}),
              GATEWAY_DEFAULT_SPEND="100/month")  # fmt: skip
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
    *texts, done = chat_events("hello")
    rig.scripts["a"] = streaming(*texts, usage, done)
    async with rig.gateway.lifespan():
        body = await exchanged(rig, headers=ASKING, stream_options={"include_usage": True})
        (spent,) = [row["used"] for row in (await rig.get("/v1/usage"))["limits"] if row["unit"] == "spend"]
    (event,) = events(tmp_path).values()
    assert f'"cost":{event.cost}}}'.encode() in body
    assert event.cost == "0.0000386419746"
    assert spent == pytest.approx(0.000039)


async def test_without_the_header_not_a_byte_is_another() -> None:
    usage = b'data: {"id":"c","choices":[],  "usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
    *texts, done = chat_events("hello")
    rig = Rig({"fast": ["a/m"]})
    rig.scripts["a"] = streaming(*texts, usage, done)
    for headers in ({}, {"x-gateway-stream-cost": "false"}):
        body = await exchanged(rig, headers=headers, stream_options={"include_usage": True})
        assert body == b"".join([*texts, usage, done])
    refused = await rig.call(stream=True, headers={"x-gateway-stream-cost": "yes"})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "x-gateway-stream-cost")
    assert b"x-gateway-stream-cost" not in rig.exchange.requests[-1].target.head
    assert all(name != b"x-gateway-stream-cost" for name, _ in rig.exchange.requests[-1].headers)


async def test_a_whole_answer_and_an_unknown_price() -> None:
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
    *texts, done = chat_events("hello")
    rig = Rig({"fast": ["a/m"]})
    plain = await rig.call(headers=ASKING)
    assert "cost" not in plain.json()["usage"]
    rig.scripts["a"] = streaming(*texts, usage, done)
    assert b'"completion_tokens":3,"cost":null}' in await exchanged(rig, headers=ASKING)


async def test_a_stream_that_breaks_is_ended_as_without_it() -> None:
    *texts, _ = chat_events("hello")
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
    rig = Rig({"fast": ["a/m"]})
    rig.scripts["a"] = streaming(*texts, usage)
    asked = {"stream_options": {"include_usage": True}}
    plain, costed = await exchanged(rig, **asked), await exchanged(rig, headers=ASKING, **asked)
    assert costed.startswith(b"".join(texts) + usage)
    assert b'"error"' in costed
    assert len(costed) == len(plain)


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_other_dialects_pass_without_a_price(path: str) -> None:
    rig = Rig({"fast": ["x/m"] if path == MESSAGES else ["a/m"]})
    event = {
        MESSAGES: b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":2}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        RESPONSES: b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r",'
        b'"usage":{"input_tokens":1,"output_tokens":2}}}\n\n',
    }[path]
    rig.scripts["a"] = rig.scripts["x"] = streaming(event)
    assert b'"output_tokens":2,"cost":null}' in await exchanged(rig, path=path, headers=ASKING)
