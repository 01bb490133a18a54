"""The gateway without the extra `serve`: it mounts and answers, and commands that need the extra say so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BLOCK = "import sys; sys.modules['uvicorn'] = sys.modules['uvloop'] = None\n"
MOUNT = """
import asyncio, contextlib
import httpx
from starlette.applications import Starlette
from gateway_middleware import Gateway, Settings, mount

gateway = Gateway(
    Settings.from_env({"OPENAI_API_KEY": "sk-x", "GATEWAY_OPEN": "true", "GATEWAY_JOURNAL": "off"}),
    transport=httpx.MockTransport(lambda request: httpx.Response(200, json={"object": "list", "data": []})),
)

@contextlib.asynccontextmanager
async def lifespan(app):
    async with gateway.lifespan():
        yield

app = Starlette(lifespan=lifespan)
mount(app, "/llm", gateway)

async def main():
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client:
        health = await client.get("/llm/v1/health")
        embedded = await client.post("/llm/v1/embeddings", json={"model": "openai/small", "input": "x"})
    print("health", health.status_code, "call", embedded.status_code)

asyncio.run(main())
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_"))}
    environment = {**clean, "OPENAI_API_KEY": "sk-x", "GATEWAY_OPEN": "true"}
    command = [sys.executable, "-c", BLOCK + program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_mounting_needs_neither_uvicorn_nor_uvloop() -> None:
    done = run(MOUNT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "health 200 call 200"


@pytest.mark.parametrize("arguments", [["serve"], ["demo", "--once"]])
def test_commands_that_serve_name_the_extra(arguments: list[str]) -> None:
    done = run(f"from gateway_middleware.__main__ import main; sys.exit(main({arguments!r}))")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{arguments[0]}: uvicorn and uvloop not installed. "
        "HINT: install the extra `serve`: pip install 'gateway-middleware[serve]'\n"
    )


def test_the_simulator_runs_on_asyncio_where_uvloop_is_missing() -> None:
    done = run(
        "from gateway_middleware.simulator.event_loop import loop_factory\n"
        "import asyncio; print(loop_factory('auto') is asyncio.new_event_loop)"
    )
    assert done.stdout == "True\n", done.stderr
