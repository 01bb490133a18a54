"""A `serve` of its own process, for the length of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from gateway_middleware.tenancy.keys import digest
from redis_process import free_port
from running import KEY

FOREIGN = ("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_")


class Served:
    """A running `serve` and what it has written."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.log = b""

    async def read(self) -> None:
        assert self.process.stdout is not None
        while chunk := await self.process.stdout.read(65536):
            self.log += chunk

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log.splitlines() if line.startswith(b"{")]
        return [line for line in found if line.get("event") == event]

    @property
    def workers(self) -> list[psutil.Process]:
        """Without the keeper, which has the command line of another program."""
        parent = psutil.Process(self.process.pid)
        return [child for child in parent.children() if child.cmdline() == parent.cmdline()]

    @property
    def keeper(self) -> psutil.Process | None:
        """The process that keeps the journal, while there is one."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that was killed may not have been waited for
                if "keeper_main" in " ".join(child.cmdline()):
                    return child
        return None

    async def only(self, count: int) -> None:
        """Wait until no child has the command line of a worker but the workers: others begin as copies of this one."""
        while len(self.workers) > count:
            await asyncio.sleep(0.01)

    async def exit(self, seconds: float = 90.0) -> int:
        """Its status. Fails when it does not leave."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def serve(
    folder: Path, /, *, _is_ready: bool = True, _prefix: Sequence[str] = (), **extra: Any
) -> AsyncIterator[Served]:
    """`_prefix` is a command that executes what follows it."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
        "GATEWAY_TENANTS": json.dumps({"acme": {"keys": [digest(KEY.encode())]}}),
        "GATEWAY_PORT": str(port),
        "GATEWAY_JOURNAL": str(folder / "journal.db"),
        "OPENAI_API_KEY": "sk-simulated",
        "ANTHROPIC_API_KEY": "sk-simulated",
        **extra,
    }
    process = await asyncio.create_subprocess_exec(
        *_prefix, sys.executable, "-m", "gateway_middleware", "serve", env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    served = Served(process, f"http://127.0.0.1:{environment['GATEWAY_PORT']}")
    reader = asyncio.create_task(served.read())
    try:
        if _is_ready:
            await healthy(served.url)
            await served.only(int(environment.get("GATEWAY_WORKERS", 1)))
        yield served
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reader


async def healthy(url: str, seconds: float = 90.0) -> None:
    """Wait for the first answer. Liveness: nobody is to watch readiness but the tests that say so."""
    async with asyncio.timeout(seconds), httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


def upstream(simulator: Any) -> dict[str, Any]:
    return {"OPENAI_BASE_URL": f"{simulator.url}/v1", "ANTHROPIC_BASE_URL": simulator.url}
