"""An incident to look at: two worker processes of `serve` before a simulator that misbehaves, with traffic.

As a program it makes the pictures of docs/console.md: `PYTHONPATH=src:tests python -m console_scene docs/pictures 600`
(a folder, and for how many seconds traffic runs before they are taken).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

from browser import Browser, browser
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import free_port

ADMIN = "an-admin-token-of-some-length"
KEYS = {"checkout": "gw-checkout", "search": "gw-search", "support-bot": "gw-support"}
SIZES = {"phone": (390, 844), "laptop": (1280, 800), "wide": (1920, 1080)}
_LIMITS: dict[str, dict[str, Any]] = {
    "checkout": {"requests": "600/minute", "tokens": "200000/minute", "concurrency": 20, "spend": "100/month"},
    "search": {"requests": "120/minute", "tokens": "40000/minute"},
    "support-bot": {"requests": "40/minute", "spend": "5/day"},
}
_ROUTES = {
    "fast": ["openai/gpt-5-mini", "azure/gpt5mini"],
    "careful": ["anthropic/claude-sonnet-4-5", "openai/gpt-5"],
    "eu": ["azure/gpt5mini"],
}
_PRICES = {
    name: {"input": 1.25, "output": 10}
    for name in ("openai/gpt-5-mini", "openai/gpt-5", "azure/gpt5mini", "anthropic/claude-sonnet-4-5")
}
_RULES: list[dict[str, Any]] = [
    {
        "match": {"provider": "azure"},
        "behaviour": {"status": 503, "error_message": "The engine is overloaded, try again later"},
    },
    {"match": {"provider": "anthropic"}, "behaviour": {"ttft": 0.6, "fail_rate": 0.06}},
    {"match": {"model": "gpt-5"}, "behaviour": {"ttft": 0.3}},
    {"match": {"model": "gpt-5-mini"}, "behaviour": {"ttft": 0.12, "fail_rate": 0.01}},
]


def _environment(simulator: str, folder: Path, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "OPENAI_"))}
    listed = {name: {"keys": [digest(key.encode())], **_LIMITS[name]} for name, key in KEYS.items()}
    return {
        **kept,
        "OPENAI_API_KEY": "sk-simulated", "OPENAI_BASE_URL": f"{simulator}/v1",
        "ANTHROPIC_API_KEY": "sk-simulated", "ANTHROPIC_BASE_URL": simulator,
        "AZURE_OPENAI_API_KEY": "simulated", "AZURE_OPENAI_ENDPOINT": simulator,
        "GATEWAY_ROUTES": json.dumps(_ROUTES), "GATEWAY_PRICES": json.dumps(_PRICES),
        "GATEWAY_TENANTS": json.dumps(listed), "GATEWAY_ADMIN_TOKEN": ADMIN,
        "GATEWAY_WORKERS": "2", "GATEWAY_JOURNAL": str(folder / "journal.db"), **extra,
    }  # fmt: skip


@contextlib.contextmanager
def _serve(environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "gateway_middleware", "serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(400):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
    raise AssertionError("the gateway does not become ready")


@contextlib.asynccontextmanager
async def incident(folder: Path, **extra: str) -> AsyncIterator[str]:
    """The gateway's URL. Azure is down, Anthropic is slow and fails now and then, a tenant is over its limit."""
    port = free_port()
    async with Simulator().serve() as simulator:
        async with httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client:
            for rule in _RULES:
                (await client.post("/control/behaviour", json=rule)).raise_for_status()
        with _serve(_environment(simulator.url, folder, GATEWAY_PORT=str(port), **extra)):
            url = f"http://127.0.0.1:{port}"
            await _ready(url)
            await asyncio.gather(*(_call(url, KEYS["checkout"], "eu") for _ in range(40)))
            work = [asyncio.create_task(_traffic(url, tenant, key)) for tenant, key in KEYS.items()]
            try:
                yield url
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)


async def _traffic(url: str, tenant: str, key: str) -> None:
    """Calls of one tenant, for ever."""
    pause = {"checkout": 0.25, "search": 0.6}.get(tenant, 1.1)
    while True:
        for route in ("fast", "careful", "fast", "eu"):
            await _call(url, key, route)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))


async def _call(url: str, key: str, route: str) -> None:
    """On a connection of its own, which any worker may take."""
    # Each another question: the same one again is no news of a deployment that fails it.
    ask = {"model": route, "messages": [{"role": "user", "content": f"hello {random.random()}"}], "max_tokens": 300}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        with contextlib.suppress(httpx.TransportError):
            await client.post("/v1/chat/completions", json=ask, headers={"authorization": f"Bearer {key}"})


def unlock(window: Browser, url: str, token: str = ADMIN) -> None:
    """Open the console and type the token in."""
    window.open(f"{url}/console")
    window.type("#token", token)
    window.click("#unlock button")


def _take(window: Browser, folder: Path) -> None:
    for size, (width, height) in SIZES.items():
        for theme in ("light", "dark"):
            window.look(width=width, height=height, dark=theme == "dark")
            window.screenshot(folder / f"console-{size}-{theme}.png", whole=size == "phone")


async def _main(folder: Path, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        async with incident(Path(scratch)) as url:
            await asyncio.sleep(seconds)
            with browser(Path(scratch) / "profile") as window:
                window.look(width=1280, height=800)
                await asyncio.to_thread(unlock, window, url)
                await asyncio.to_thread(window.wait_for, "live")
                await asyncio.to_thread(_take, window, folder)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), float(sys.argv[2])))
