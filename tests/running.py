"""A gateway (or any ASGI app) that runs for the length of a test: real uvicorn, real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import uvicorn

import ways
from gateway_middleware import Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.commands.serve import server_options
from gateway_middleware.serving.http.limits import DoorLimits
from gateway_middleware.tenancy.keys import digest

NO_PORTS: Mapping[str, Any] = MappingProxyType({})
KEY = "gw-tests-0123456789abcdef0123456789abcdef"


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, which belong to the test runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def environment(upstream: str, **extra: str) -> dict[str, str]:
    """Three providers at one upstream, one tenant with `KEY`."""
    return {
        "OPENAI_API_KEY": "sk-upstream-openai",
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "ANTHROPIC_API_KEY": "sk-upstream-anthropic",
        "ANTHROPIC_BASE_URL": upstream,
        "AZURE_OPENAI_API_KEY": "upstream-azure",
        "AZURE_OPENAI_ENDPOINT": upstream,
        "GATEWAY_JOURNAL": "off",
        "GATEWAY_TENANTS": '{"acme": {"keys": ["' + digest(KEY.encode()) + '"]}}',
        **extra,
    }


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # asyncio does this only for sockets that it has made itself; accepted ones inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with serving_on(listener, app, **options):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def serving_on(listener: socket.socket, app: Any, **options: Any) -> AsyncIterator[None]:
    """Serve an ASGI app on a bound socket."""
    chosen = {**_options(app), "lifespan": "on", "timeout_graceful_shutdown": 1, **options}
    server = QuietServer(uvicorn.Config(app, **chosen))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.001)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _options(app: Any) -> dict[str, Any]:
    if ways.Ways.server == "uvicorn":
        return {"log_config": None}
    gateway = app.gateway if isinstance(app, GatewayApplication) else None
    own: dict[str, Any] = {} if gateway is None else {"outbox": gateway.outbox, "refused": gateway.stats.refused}
    return server_options(limits=DoorLimits(linger_bytes=16_000_000), drain_seconds=0, **own)


class LogLines:
    """Collects the lines of the access log."""

    def __init__(self) -> None:
        self.raw = b""

    def __call__(self, lines: bytes) -> None:
        self.raw += lines


@contextlib.asynccontextmanager
async def gateway_for(upstream: str, ports: Mapping[str, Any] = NO_PORTS, /, **extra: str) -> AsyncIterator[str]:
    """A gateway in front of an upstream; yields its URL. `ports` go to `Gateway`, the rest is environment."""
    chosen = {"write_log": LogLines(), **ports}
    gateway = ways.gateway(Settings.from_env(environment(upstream, **extra)), **chosen)
    async with serving(GatewayApplication(gateway)) as url:
        yield url
