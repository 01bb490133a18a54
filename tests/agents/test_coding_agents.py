"""Coding agents that go their whole way: a model calls one of their tools, they do it and tell the model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agents.programs import binary, run
from agents.tool_calls import calling
from gateway_middleware.simulator import Simulator
from running import KEY, LogLines, gateway_for

pytestmark = pytest.mark.anyio
NOTE = "the-note-says-marmalade"
READS = {"cmd": "cat note.txt"}
PATCH = f"*** Begin Patch\n*** Add File: made.txt\n+{NOTE}\n*** End Patch\n"
SCRIPT = 'const it = await tools.exec_command({cmd: "cat note.txt"});\ntext(JSON.stringify(it));\n'
CHAT, RESPONSES, MESSAGES = "chat/completions", "responses", "messages"
ANTHROPIC, OPENAI, AZURE = "anthropic/claude-sonnet-4-5", "openai/gpt-5-mini", "azure/gpt-5-mini"
TARGETS: dict[str, tuple[Any, str]] = {
    "anthropic": (ANTHROPIC, MESSAGES),
    "openai-chat": ({"to": "lean/gpt-4o"}, CHAT),
    "openai-responses": ({"to": OPENAI, "speak": "responses"}, RESPONSES),
    "azure-chat": ({"to": AZURE, "speak": "chat"}, CHAT),
    "azure-responses": ({"to": AZURE, "speak": "responses"}, RESPONSES),
    "mistral": ({"to": "mistral/mistral-large"}, CHAT),
    "gemini": ({"to": "gemini/gemini-3.6-flash"}, CHAT),
}
"""Where the model is, and the surface that it is then asked on."""


class Rig(NamedTuple):
    """A gateway with one route."""

    url: str
    simulator: Simulator
    log: LogLines
    surface: str

    def calls(self, name: str, arguments: Any, *, namespace: str | None = None) -> None:
        """The model calls a tool at the first request and talks after that."""
        self.simulator.replay(calling(self.surface, name, arguments, namespace=namespace), path=f"*/{self.surface}")

    @property
    def told(self) -> str:
        """All that the models behind the gateway were asked."""
        return "".join(request.body.decode() for request in self.simulator.requests)

    @property
    def statuses(self) -> list[tuple[str, int]]:
        """Method and status of each call, once the gateway has left: the log is written in batches."""
        lines = [json.loads(line) for line in self.log.raw.splitlines()]
        return [(line["method"], line["status"]) for line in lines if line["event"] == "call"]


@contextlib.asynccontextmanager
async def route(model: str, target: str) -> AsyncIterator[Rig]:
    to, surface = TARGETS[target]
    log = LogLines()
    async with Simulator().serve() as server:
        places = {"lean": "/v1", "mistral": "/as/mistral/v1", "gemini": "/as/gemini/v1beta/openai"}
        chat_only = {"kind": "openai", "api_key": "sk-upstream-0123456789", "surfaces": ["chat"]}
        providers: dict[str, dict[str, Any]] = {
            name: {**chat_only, "base_url": server.url + path} for name, path in places.items()
        }
        providers["mistral"]["stream_options"] = False
        environment = {"GATEWAY_ROUTES": json.dumps({model: [to]}), "GATEWAY_PROVIDERS": json.dumps(providers)}
        async with gateway_for(server.url, {"write_log": log}, **environment) as url:
            yield Rig(url, server.simulator, log, surface)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an agent works; it has a note."""
    (tmp_path / "note.txt").write_text(NOTE, "utf-8")
    return tmp_path


async def claude(rig: Rig, folder: Path, model: str) -> dict[str, Any]:
    command = [binary("claude"), "-p", "What does the note say?", "--model", model, "--allowedTools", "Read,Bash"]
    output, _ = await run(
        [*command, "--output-format", "json"], cwd=folder, ANTHROPIC_BASE_URL=rig.url, ANTHROPIC_AUTH_TOKEN=KEY,
        ANTHROPIC_SMALL_FAST_MODEL=model, DISABLE_AUTOUPDATER="1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )  # fmt: skip
    result: dict[str, Any] = json.loads(output)
    return result


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("tool", ["Read", "Bash"])
async def test_claude_code_uses_its_tools_on_every_kind_of_provider(folder: Path, target: str, tool: str) -> None:
    async with route("claude-sonnet-5", target) as rig:
        rig.calls(tool, {"file_path": str(folder / "note.txt")} if tool == "Read" else {"command": "cat note.txt"})
        result = await claude(rig, folder, "claude-sonnet-5")
        assert (result["subtype"], result["is_error"], result["num_turns"]) == ("success", False, 2)
        assert NOTE in rig.told
    assert {status for _, status in rig.statuses} == {200}


def codex(rig: Rig, model: str, *words: str, **settings: Any) -> list[str]:
    chosen = {
        "model": model,
        "model_provider": "gateway",
        "web_search": "disabled",
        "model_providers.gateway.name": "gateway",
        "model_providers.gateway.base_url": f"{rig.url}/v1",
        "model_providers.gateway.env_key": "GATEWAY_KEY",
        "model_providers.gateway.wire_api": "responses",
        **{f"model_providers.gateway.{name}": value for name, value in settings.items()},
    }
    options = [word for name, value in chosen.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    unguarded = "--dangerously-bypass-approvals-and-sandbox"
    return [binary("codex"), "exec", "--skip-git-repo-check", unguarded, *words, *options, "What does the note say?"]


async def run_codex(rig: Rig, folder: Path, model: str) -> list[dict[str, Any]]:
    output, _ = await run(codex(rig, model, "--json"), cwd=folder, GATEWAY_KEY=KEY, CODEX_HOME=str(folder))
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


CODEX_TARGETS = ["anthropic", "openai-chat", "openai-responses", "azure-responses", "mistral", "gemini"]


@pytest.mark.parametrize("target", CODEX_TARGETS)
@pytest.mark.parametrize(
    ("model", "tool", "namespace", "arguments"),
    [
        ("of-our-own", "exec_command", None, READS),
        ("gpt-5.5", "exec_command", None, READS),
        ("gpt-6.2-sol", "exec", "functions", SCRIPT),
    ],
)
async def test_codex_uses_its_tools_on_every_kind_of_provider(
    folder: Path, target: str, model: str, tool: str, namespace: str | None, arguments: Any
) -> None:
    """Models that Codex knows have other tools: a search for tools, and tools that the conversation offers."""
    async with route(model, target) as rig:
        rig.calls(tool, arguments, namespace=namespace)
        events = await run_codex(rig, folder, model)
        assert events[-1]["type"] == "turn.completed", events
        assert NOTE in rig.told
    assert {status for _, status in rig.statuses} == {200}


@pytest.mark.parametrize("target", CODEX_TARGETS)
async def test_codex_writes_by_its_free_form_tool_on_every_kind_of_provider(folder: Path, target: str) -> None:
    async with route("gpt-5.5", target) as rig:
        rig.calls("apply_patch", PATCH)
        events = await run_codex(rig, folder, "gpt-5.5")
        assert events[-1]["type"] == "turn.completed", events
        assert (folder / "made.txt").read_text("utf-8").strip() == NOTE


async def test_codex_falls_back_from_its_websocket_without_a_word_to_its_user(folder: Path) -> None:
    """It tries one where the provider is said to take it, as OpenAI's own is; the line in its log is its own."""
    async with route("of-our-own", "openai-responses") as rig:
        command = codex(rig, "of-our-own", "--json", supports_websockets=True)
        output, errors = await run(command, cwd=folder, GATEWAY_KEY=KEY, CODEX_HOME=str(folder))
    assert rig.statuses == [("GET", 426), ("POST", 200)]
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [event["item"]["type"] for event in events if event["type"] == "item.completed"][-1] == "agent_message"
    assert "websocket" not in output.lower()
    assert "falling back" not in (output + errors).lower()
    assert "reconnecting" not in (output + errors).lower()


CHAT_TARGETS = ["anthropic", "openai-chat", "azure-chat"]


@pytest.mark.parametrize("target", CHAT_TARGETS)
async def test_qwen_code_uses_its_tools_on_every_kind_of_provider(folder: Path, target: str) -> None:
    async with route("smart", target) as rig:
        rig.calls("read_file", {"file_path": str(folder / "note.txt")})
        await run(
            [binary("qwen"), "-p", "What does the note say?", "--yolo"], cwd=folder, OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=f"{rig.url}/v1", OPENAI_MODEL="smart",
        )  # fmt: skip
        assert NOTE in rig.told
    assert {status for _, status in rig.statuses} == {200}


@pytest.mark.parametrize("target", CHAT_TARGETS)
async def test_opencode_uses_its_tools_on_every_kind_of_provider(folder: Path, target: str) -> None:
    async with route("smart", target) as rig:
        options = {"baseURL": f"{rig.url}/v1", "apiKey": KEY}
        gateway = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"smart": {}}}
        settings = {"provider": {"gateway": gateway}, "agent": {"title": {"disable": True}}, "autoupdate": False}
        (folder / "opencode.json").write_text(json.dumps(settings), "utf-8")
        rig.calls("read", {"filePath": str(folder / "note.txt")})
        await run([binary("opencode"), "run", "-m", "gateway/smart", "What does the note say?"], cwd=folder)
        assert NOTE in rig.told
    assert {status for _, status in rig.statuses} == {200}
