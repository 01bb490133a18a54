"""`serve`: the gateway on its own, under uvicorn."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from gateway_middleware.commands.extras import require_serve
from gateway_middleware.serving.http.limits import DoorLimits, HalfClose
from gateway_middleware.settings import Settings

_MOST_LINGERED = 16 * 1024 * 1024  # of a request that was answered before it was read

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import uvicorn

    from gateway_middleware.core.asgi import ASGIApp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes none: everything comes from the environment."""


def door_limits(settings: Settings) -> DoorLimits:
    """What clients may send and hold, as the settings say."""
    return DoorLimits(
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        idle_seconds=settings.idle_seconds,
        linger_bytes=min(settings.max_body_bytes, _MOST_LINGERED) + 64 * 1024,
        max_head_bytes=settings.max_head_bytes,
        max_headers=settings.max_headers,
        max_connections=settings.max_connections,
        max_bodies_bytes=settings.max_bodies_bytes,
        half_close=HalfClose(settings.half_close),
    )


def server_options(*, limits: DoorLimits, drain_seconds: float) -> dict[str, object]:
    """How uvicorn serves the gateway: our protocol, the fast loop, and nothing that costs without being used.

    They are for one server: the protocol in them counts its connections.
    """
    from gateway_middleware.serving.http.protocol import http_protocol
    from gateway_middleware.serving.refusals import refuse_in_dialect

    return {
        "http": http_protocol(limits, refuse=refuse_in_dialect),
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "log_level": "warning",
        "timeout_graceful_shutdown": round(drain_seconds) + 5,
    }


def make_server(app: ASGIApp, *, host: str, port: int, limits: DoorLimits, drain_seconds: float) -> uvicorn.Server:
    """A uvicorn server for one process."""
    import uvicorn

    options = server_options(limits=limits, drain_seconds=drain_seconds)
    return uvicorn.Server(uvicorn.Config(app, host=host, port=port, **options))  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Serve until SIGTERM or SIGINT."""
    require_serve("serve")
    settings = Settings.from_env()
    options = server_options(limits=door_limits(settings), drain_seconds=settings.drain_seconds)
    for line in settings.warnings():
        print(f"WARNING: {line}", file=sys.stderr)
    with _metrics_directory(settings.workers), _fleet_directory(settings):
        _serve(settings, options)
    return 0


@contextlib.contextmanager
def _metrics_directory(workers: int) -> Iterator[None]:
    """A place of this server's own in which its workers add up their metrics."""
    if workers == 1 or "GATEWAY_METRICS_DIRECTORY" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="model-gateway-metrics-") as folder:
        os.environ["GATEWAY_METRICS_DIRECTORY"] = folder
        yield


@contextlib.contextmanager
def _fleet_directory(settings: Settings) -> Iterator[None]:
    """A place in which workers tell each other what all must know, where there is no journal beside which to put it."""
    if settings.workers == 1 or settings.fleet_path is not None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="model-gateway-fleet-") as folder:
        os.environ["GATEWAY_FLEET_DIRECTORY"] = folder
        yield


def _serve(settings: Settings, options: dict[str, object]) -> None:
    import uvicorn

    uvicorn.run(
        "gateway_middleware:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers if settings.workers > 1 else None,
        **options,  # type: ignore[arg-type]
    )
