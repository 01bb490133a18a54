"""The stage of a drill: it starts the players as real processes, and takes them away at the end."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from gateway_middleware.commands.drill.gateway import ADMIN, RunningGateway
from gateway_middleware.commands.drill.processes import (
    Program,
    UnplayableError,
    free_port,
    running,
    start,
    start_module,
)
from gateway_middleware.commands.drill.story import Story
from gateway_middleware.tenancy.keys import digest

KEYS = {"acme": "gw-acme-key-of-the-drill", "beta": "gw-beta-key-of-the-drill"}
ROUTES = {"fast": ["openai/gpt-5", "azure/gpt5"], "alone": ["openai/gpt-5-mini"]}
SHORT_BREAKER = {"open_base": 1, "open_cap": 8}
"""Seconds: 10 and 300 outside of drills."""


class Provider:
    """A simulated provider in a process of its own, and what it is told to do."""

    def __init__(self, program: Program, url: str, client: httpx.AsyncClient) -> None:
        self.program = program
        self.url = url
        self._client = client

    async def behave(self, **behaviour: Any) -> None:
        """From now on: fields of `simulator.Behaviour`."""
        await self.recover()
        answer = await self._client.post(f"{self.url}/control/behaviour", json={"behaviour": behaviour})
        answer.raise_for_status()

    async def recover(self) -> None:
        """Be well again."""
        await self._client.delete(f"{self.url}/control/behaviour")

    async def counters(self) -> dict[str, int]:
        """`requests`, `max_in_flight` and more."""
        counters: dict[str, int] = (await self._client.get(f"{self.url}/control/requests")).json()["counters"]
        return counters


class Stage:
    """To be entered. Everything that it starts ends with it, its files too."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="model-gateway-drill-")))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        client = httpx.AsyncClient(trust_env=False, timeout=30, limits=limits)
        self.client = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def provider(self, *arguments: str) -> Provider:
        """A simulated provider."""
        program = await self._run("gateway_middleware.simulator", "--port", "0", *arguments)
        line = await program.line("listening on")
        return Provider(program, line.split()[-1], self.client)

    async def usage_metering(self) -> str:
        """A simulated `usage-metering`; its URL."""
        program = await self._run("gateway_middleware.simulator.collector", "--port", "0")
        return (await program.line("listening on")).split()[-1]

    async def redis(self) -> tuple[Program, str]:
        """A Redis and its URI. Raises `UnplayableError` where `redis-server` is not installed."""
        binary, port = shutil.which("redis-server"), free_port()
        if binary is None:
            raise UnplayableError("redis-server is not installed")
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        program = await self._stack.enter_async_context(running(await start(command)))
        await program.line("Ready to accept connections")
        return program, f"redis://127.0.0.1:{port}"

    async def gateway(self, *providers: Provider, config: str | None = None, **settings: str) -> RunningGateway:
        """`serve` in front of one or two providers, `openai` and `azure`, once it takes calls.

        `settings` are variables of its environment.
        """
        file = self.folder / f"gateway-{len(list(self.folder.glob('*.toml')))}.toml"
        file.write_text(config or document(), "utf-8")
        port = settings.get("GATEWAY_PORT", "0")
        environment = self._environment(file, providers[0], providers[-1]) | settings | {"GATEWAY_PORT": port}
        program = await self._run("gateway_middleware", "serve", environment=environment)
        url = json.loads(await program.line('"event":"start"'))["url"]
        await program.line('"event":"serving"')
        return RunningGateway(program, url, keys=KEYS, config=file, client=self.client, story=self.story)

    def _environment(self, file: Path, primary: Provider, backup: Provider) -> dict[str, str]:
        openai = {
            "kind": "openai",
            "base_url": f"{primary.url}/v1",
            "api_key": "sk-of-openai",
            "breaker": SHORT_BREAKER,
        }
        azure = {"kind": "azure_openai", "base_url": backup.url, "api_key": "key-of-azure", "breaker": SHORT_BREAKER}
        return {
            "GATEWAY_PROVIDERS": json.dumps({"openai": openai, "azure": azure}),
            "GATEWAY_CONFIG_FILE": str(file),
            "GATEWAY_WATCH_SECONDS": "0.2",
            "GATEWAY_ADMIN_TOKEN": ADMIN,
            "GATEWAY_JOURNAL": str(file.with_suffix(".db")),
            "GATEWAY_DRAIN_LAG_SECONDS": "0.5",
            "GATEWAY_LOG_FORMAT": "json",
        }

    async def _run(self, module: str, *arguments: str, environment: dict[str, str] | None = None) -> Program:
        program = await start_module(module, *arguments, environment=environment)
        return await self._stack.enter_async_context(running(program))


def document(
    *, routes: dict[str, list[str]] | None = None, tenants: dict[str, dict[str, Any]] | None = None, top: str = ""
) -> str:
    """A TOML file: `top` comes first; tenants have the drill's keys unless they name others."""
    listed = {"acme": {}, "beta": {}} if tenants is None else tenants
    lines = [top, "[routes]", *(f"{name} = {json.dumps(targets)}" for name, targets in (routes or ROUTES).items())]
    for name, members in listed.items():
        own = {"keys": [digest(KEYS[name].encode())], **members}
        lines += [f"[tenants.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in own.items())]
    return "\n".join([*lines, ""])
