"""The server of `python -m benchmarks soak`: the gateway as `serve` runs it, in one process that tells its size.

`GET /size` answers JSON: resident MiB, open descriptors, threads, and tasks of the event loop, after a collection of
garbage, so that what is left is held by somebody.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import msgspec
import psutil
import uvloop

from gateway_middleware import Gateway, Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.commands.serve import door_limits, make_server
from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send


class SizeMiddleware:
    """Answers `GET /size`, and lets everything else through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/size":
            await self._app(scope, receive, send)
            return
        body = msgspec.json.encode(size())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def size() -> dict[str, float]:
    """What this process holds."""
    gc.collect()
    me = psutil.Process()
    return {
        "rss_mb": me.memory_info().rss / 2**20,
        "descriptors": me.num_fds(),
        "threads": me.num_threads(),
        "tasks": len(asyncio.all_tasks()),
    }


def write_log(lines: bytes) -> None:
    sys.stdout.buffer.write(lines)


async def serve() -> None:
    settings = Settings.from_env()
    gateway = Gateway(settings, write_log=write_log)
    server = make_server(
        SizeMiddleware(GatewayApplication(gateway)),
        host=settings.host,
        port=settings.port,
        limits=door_limits(settings),
        drain_seconds=settings.drain_seconds,
        outbox=gateway.outbox,
    )
    await server.serve()


if __name__ == "__main__":
    uvloop.run(serve())
