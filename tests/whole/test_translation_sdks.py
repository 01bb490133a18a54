"""The official SDKs across the dialects, over sockets, on the simulator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from openai.lib.streaming.chat import ChunkEvent
from pydantic import BaseModel

from gateway_middleware.simulator import Behaviour, Simulator
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "Good morning"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
CLAUDE_TOOL: Any = {"name": "weather", "input_schema": WEATHER}
ROUTES = {"claude": "anthropic/claude-sonnet-4-5", "gpt": "openai/gpt-4o", "azure": "azure/gpt-4o",
          "gpt-r": [{"to": "openai/gpt-5-mini", "speak": "responses"}]}  # fmt: skip


class City(BaseModel):
    name: str
    size: int


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


@pytest.fixture
async def url(simulator: Any) -> AsyncIterator[str]:
    async with gateway_for(simulator.url, GATEWAY_ROUTES=json.dumps(ROUTES)) as url:
        yield url


@pytest.fixture
async def oai(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


async def test_an_openai_client_on_claude(oai: openai.AsyncOpenAI) -> None:
    answer = await oai.chat.completions.create(model="claude", messages=ASK)
    assert "Good morning" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    response = await oai.responses.create(model="claude", input="Good morning")
    assert response.output_text == answer.choices[0].message.content
    assert response.status == "completed"


async def test_streams_of_claude_through_the_openai_sdk(oai: openai.AsyncOpenAI) -> None:
    async with oai.chat.completions.stream(model="claude", messages=ASK) as stream:
        texts = [event.chunk.choices[0].delta.content or "" async for event in stream if isinstance(event, ChunkEvent)]
        whole = await stream.get_final_completion()
    assert "".join(texts) == whole.choices[0].message.content
    async with oai.responses.stream(model="claude", input="Good morning") as events:
        kinds = [event.type async for event in events]
        response = await events.get_final_response()
    assert kinds[-1] == "response.completed"
    assert response.output_text == whole.choices[0].message.content


async def test_tools_of_an_openai_client_on_claude(oai: openai.AsyncOpenAI, simulator: Any) -> None:
    simulator.simulator.behave(Behaviour(tool_calls=2))
    first = await oai.chat.completions.create(model="claude", messages=ASK, tools=[CHAT_TOOL])
    calls: Any = first.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "sample"}] * 2
    assert first.choices[0].finish_reason == "tool_calls"
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in reversed(calls)]
    said: Any = first.choices[0].message.model_dump(exclude_none=True)
    second = await oai.chat.completions.create(model="claude", messages=[*ASK, said, *results], tools=[CHAT_TOOL])
    assert second.choices[0].finish_reason == "stop"


async def test_typed_output_of_an_openai_client_on_claude(oai: openai.AsyncOpenAI) -> None:
    parsed = await oai.chat.completions.parse(model="claude", messages=ASK, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="sample", size=1)
    response = await oai.responses.parse(model="claude", input="x", text_format=City)
    assert response.output_parsed == City(name="sample", size=1)


@pytest.mark.parametrize("model", ["gpt", "azure", "gpt-r"])
async def test_an_anthropic_client_on_openai(claude: anthropic.AsyncAnthropic, model: str) -> None:
    answer = await claude.messages.create(model=model, max_tokens=64, messages=ASK)
    (block,) = answer.content
    assert block.type == "text"
    assert "Good morning" in block.text
    assert answer.usage.input_tokens > 0
    async with claude.messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
        assert "".join([text async for text in stream.text_stream]) == block.text
        final = await stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", answer.usage.output_tokens)


@pytest.mark.parametrize("model", ["gpt", "azure", "gpt-r"])
async def test_tools_of_an_anthropic_client_on_openai(
    claude: anthropic.AsyncAnthropic, simulator: Any, model: str
) -> None:
    simulator.simulator.behave(Behaviour(tool_calls=2))
    async with claude.messages.stream(model=model, max_tokens=64, messages=ASK, tools=[CLAUDE_TOOL]) as stream:
        first = await stream.get_final_message()
    used: Any = [block for block in first.content if block.type == "tool_use"]
    assert [block.input for block in used] == [{"city": "sample"}] * 2
    assert first.stop_reason == "tool_use"
    results: Any = [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"} for block in used]
    turns: Any = [*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = await claude.messages.create(model=model, max_tokens=64, messages=turns, tools=[CLAUDE_TOOL])
    assert second.stop_reason == "end_turn"
    counted = await claude.messages.count_tokens(model=model, messages=ASK)
    assert counted.input_tokens > 0


@pytest.mark.parametrize("model", ["gpt-r", "claude"])
async def test_tokens_of_a_responses_client(oai: openai.AsyncOpenAI, model: str) -> None:
    short = await oai.responses.input_tokens.count(model=model, input="Good morning")
    long = await oai.responses.input_tokens.count(model=model, input="Good morning" * 100)
    assert (short.object, long.input_tokens > short.input_tokens + 200) == ("response.input_tokens", True)


async def test_errors_are_those_of_the_clients_sdk(
    oai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, simulator: Any
) -> None:
    with pytest.raises(openai.BadRequestError, match="`n`"):
        await oai.chat.completions.create(model="claude", messages=ASK, n=2)
    simulator.simulator.behave(Behaviour(status=429, retry_after=7))
    with pytest.raises(openai.RateLimitError) as limited:
        await oai.chat.completions.create(model="claude", messages=ASK)
    assert limited.value.response.headers["retry-after"] == "7"
    simulator.simulator.behave(Behaviour(error_after=2))
    with pytest.raises(anthropic.APIStatusError):
        async with claude.messages.stream(model="gpt-r", max_tokens=64, messages=ASK) as stream:
            await stream.get_final_message()
