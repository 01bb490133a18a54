"""Agents and frameworks that people use, across the dialects, with their own settings, on the simulator."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway_middleware.simulator import Behaviour, Simulator
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
MODULES = Path(os.environ["AGENTS_NODE_MODULES"]).resolve()
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


async def run(command: list[str], *, cwd: Path, **environ: str) -> str:
    """The output of a command, which must succeed."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), **environ}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, (out.decode()[-2000:], err.decode()[-2000:])
    return out.decode()


def binary(name: str) -> str:
    path = MODULES / ".bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed in {MODULES}")
    return str(path)


@pytest.mark.parametrize(
    ("kind", "model"),
    [("chat", "claude"), ("responses", "claude"), ("messages", SONNET), ("messages", OPUS), ("messages", HAIKU)],
)
async def test_vercel_ai_sdk(url: str, tmp_path: Path, kind: str, model: str) -> None:
    if not (MODULES / "ai").exists():
        pytest.skip(f"the npm package ai is not installed in {MODULES}")
    (tmp_path / "node_modules").symlink_to(MODULES)
    script = tmp_path / "vercel.mjs"
    script.write_text((HERE / "vercel.mjs").read_text("utf-8"), "utf-8")
    result = json.loads(await run(["node", str(script), url, KEY, kind, model], cwd=tmp_path))
    assert "Good morning" in result["text"]
    assert result["streamed"] == result["text"]
    assert set(result["object"]) == {"name", "size"}
    assert (result["finish"], result["usage"] > 0) == ("stop", True)


@pytest.mark.parametrize("model", [SONNET, OPUS, HAIKU])
async def test_claude_code(url: str, tmp_path: Path, model: str) -> None:
    output = await run(
        [binary("claude"), "-p", "Good morning", "--output-format", "json", "--model", model],
        cwd=tmp_path, ANTHROPIC_BASE_URL=url, ANTHROPIC_AUTH_TOKEN=KEY, ANTHROPIC_SMALL_FAST_MODEL=model,
        DISABLE_AUTOUPDATER="1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )  # fmt: skip
    result = json.loads(output)
    assert (result["subtype"], result["is_error"]) == ("success", False)
    assert result["result"].startswith("You said")  # it goes on with what Claude Code itself says


async def test_codex(url: str, tmp_path: Path) -> None:
    settings = {
        "model": "claude",
        "model_provider": "gateway",
        "web_search": "disabled",
        "model_providers.gateway.name": "gateway",
        "model_providers.gateway.base_url": f"{url}/v1",
        "model_providers.gateway.env_key": "GATEWAY_KEY",
        "model_providers.gateway.wire_api": "responses",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    command = [binary("codex"), "exec", "--skip-git-repo-check", "--json", *options, "Good morning"]
    output = await run(command, cwd=tmp_path, GATEWAY_KEY=KEY, CODEX_HOME=str(tmp_path))
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    said = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
    assert said
    assert "turn.completed" in {event["type"] for event in events}


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
async def test_pydantic_ai(url: str, kind: str, model: str) -> None:
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
    native = await agents.Agent(chosen, output_type=agents.NativeOutput(City)).run("Good morning")
    assert isinstance(native.output, City)
