"""`serve` as a process of a test, with a configuration file of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from gateway_middleware.tenancy.keys import digest
from redis_process import free_port
from running import KEY

ADMIN, OTHER = "an-admin-token-of-some-length", "gw-tests-other-0123456789abcdef"
AT_ONCE = 30
"""Connections that are open at the same time, so that every worker takes some."""
ASK: Any = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}


class Server:
    """A `serve` of this test, with a configuration file of its own."""

    def __init__(self, folder: Path, upstream: str, *, journal: str | None = "journal.db", **extra: str) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "gateway.toml"
        self.log = folder / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_"))
        }
        self._environment = {
            **kept,
            "OPENAI_BASE_URL": f"{upstream}/v1",
            "OPENAI_API_KEY": "sk-simulated",
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_CONFIG_FILE": str(self.file),
            "GATEWAY_ADMIN_TOKEN": ADMIN,
            **({} if journal is None else {"GATEWAY_JOURNAL": str(folder / journal)}),
            **extra,
        }
        self.list_keys(KEY, OTHER)

    def list_keys(self, *keys: str) -> None:
        """One tenant for each key."""
        names = {KEY: "acme", OTHER: "other"}
        lines = [f'[tenants.{names[key]}]\nkeys = ["{digest(key.encode())}"]\n' for key in keys]
        draft = self.file.with_suffix(".draft")
        draft.write_text("".join(lines))
        draft.replace(self.file)

    @contextlib.contextmanager
    def run(self) -> Iterator[subprocess.Popen[bytes]]:
        """It runs until the end of the block; then it has ended by itself."""
        command = [sys.executable, "-m", "gateway_middleware", "serve"]
        with (
            self.log.open("ab") as log,
            subprocess.Popen(command, env=self._environment, stdout=log, start_new_session=True) as process,
        ):
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    async def ask(self, method: str, path: str, key: str = KEY, body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
            headers = {"authorization": f"Bearer {key}"}
            return await client.request(method, self.url + path, headers=headers, json=body)

    async def everywhere(self, method: str, path: str, key: str = KEY, body: Any = None) -> list[httpx.Response]:
        """The answers on many connections, which every worker takes some of."""
        async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
            headers = {"authorization": f"Bearer {key}"}
            asked = [client.request(method, self.url + path, headers=headers, json=body) for _ in range(AT_ONCE)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures:
            raise failures[0]
        return [answer for answer in answers if isinstance(answer, httpx.Response)]

    async def statuses(self, key: str = KEY, path: str = "/v1/chat/completions", body: Any = ASK) -> set[int]:
        return {answer.status_code for answer in await self.everywhere("POST", path, key, body)}

    async def workers(self) -> dict[int, list[int]]:
        """Of each worker that answered, the processes it knows; itself first."""
        found: dict[int, list[int]] = {}
        for answer in await self.everywhere("GET", "/v1/health"):
            pids = [row["pid"] for row in answer.json()["fleet"]["processes"]]
            found[pids[0]] = sorted(pids)
        return found

    async def is_ready(self) -> bool:
        """Whether it takes calls."""
        with contextlib.suppress(httpx.TransportError):
            return (await self.ask("GET", "/readyz")).status_code == 200
        return False

    async def wait_for(self, processes: int, *, workers: int = 1) -> None:
        """Until every worker takes calls and knows all processes."""

        async def all_know() -> bool:
            with contextlib.suppress(httpx.TransportError):
                await self.ask("GET", "/readyz")
                known = await self.workers()
                return len(known) == workers and all(len(pids) == processes for pids in known.values())
            return False

        await until(all_know, 90.0)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.1)
