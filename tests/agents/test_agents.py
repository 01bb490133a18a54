"""Agents and frameworks that people use, across the dialects, with their own settings, on the simulator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agents.programs import MODULES, run
from gateway_middleware.simulator import Behaviour, Simulator
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
ROUTES = {
    "claude": "anthropic/claude-sonnet-4-5",
    "claude-sonnet-5": "openai/gpt-4o",
    "claude-opus-4-8": [{"to": "openai/gpt-5-mini", "speak": "responses"}],
    "claude-haiku-4-5": "azure/gpt-4o",
}
"""Clients of Messages believe in a Claude that has structured output, and get a model of OpenAI's."""
SONNET, OPUS, HAIKU = "claude-sonnet-5", "claude-opus-4-8", "claude-haiku-4-5"


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


@pytest.mark.parametrize(
    ("kind", "model"),
    [("chat", "claude"), ("responses", "claude"), ("messages", SONNET), ("messages", OPUS), ("messages", HAIKU)],
)
async def test_vercel_ai_sdk(url: str, simulator: Any, tmp_path: Path, kind: str, model: str) -> None:
    simulator.simulator.behave(Behaviour(tool_calls=1))
    (tmp_path / "node_modules").symlink_to(MODULES)
    script = tmp_path / "vercel.mjs"
    script.write_text((HERE / "vercel.mjs").read_text("utf-8"), "utf-8")
    output, _ = await run(["node", str(script), url, KEY, kind, model], cwd=tmp_path)
    result = json.loads(output)
    assert "Good morning" in result["text"]
    assert result["streamed"] == result["text"]
    assert set(result["object"]) == {"name", "size"}
    assert (result["finish"], result["usage"] > 0) == ("stop", True)
    assert (result["cities"], result["steps"], result["last"]) == (["sample"], 2, "stop")


@pytest.mark.parametrize(("kind", "model"), [("openai", "claude"), ("anthropic", SONNET), ("anthropic", HAIKU)])
async def test_langchain(url: str, simulator: Any, kind: str, model: str) -> None:
    module = pytest.importorskip(f"langchain_{kind}")
    if kind == "openai":
        chat = module.ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    else:
        chat = module.ChatAnthropic(model=model, base_url=url, api_key=KEY, max_retries=0, max_tokens=256)
    answer = await chat.ainvoke("Good morning")
    assert "Good morning" in answer.content
    assert answer.usage_metadata["total_tokens"] > 0
    assert "".join([str(chunk.text) async for chunk in chat.astream("Good morning")]) == answer.content
    typed = await chat.with_structured_output(City, method="json_schema").ainvoke("Good morning")
    assert isinstance(typed, City)
    simulator.simulator.behave(Behaviour(tool_calls=2))
    tool = {"name": "weather", "description": "The weather", "parameters": City.model_json_schema()}
    called = await chat.bind_tools([{"type": "function", "function": tool}]).ainvoke("Good morning")
    assert [call["name"] for call in called.tool_calls] == ["weather", "weather"]


@pytest.mark.parametrize(("kind", "model"), [("chat", "claude"), ("responses", "claude"), ("messages", SONNET)])
async def test_pydantic_ai(url: str, simulator: Any, kind: str, model: str) -> None:
    agents = pytest.importorskip("pydantic_ai")
    if kind == "messages":
        models = pytest.importorskip("pydantic_ai.models.anthropic")
        providers = pytest.importorskip("pydantic_ai.providers.anthropic")
        chosen = models.AnthropicModel(model, provider=providers.AnthropicProvider(api_key=KEY, base_url=url))
    else:
        models = pytest.importorskip("pydantic_ai.models.openai")
        providers = pytest.importorskip("pydantic_ai.providers.openai")
        provider = providers.OpenAIProvider(api_key=KEY, base_url=f"{url}/v1")
        factory = models.OpenAIResponsesModel if kind == "responses" else models.OpenAIChatModel
        chosen = factory(model, provider=provider)
    result = await agents.Agent(chosen).run("Good morning")
    assert "Good morning" in result.output
    cities = list[str]()

    def weather(city: str) -> str:
        cities.append(city)
        return "sunny"

    simulator.simulator.behave(Behaviour(tool_calls=1), times=1)
    await agents.Agent(chosen, tools=[weather]).run("Good morning")
    assert cities == ["sample"]
    assert b"sunny" in simulator.simulator.requests[-1].body
    native = await agents.Agent(chosen, output_type=agents.NativeOutput(City)).run("Good morning")
    assert isinstance(native.output, City)
