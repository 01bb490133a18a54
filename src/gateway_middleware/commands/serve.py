"""`serve`: the gateway on its own, under uvicorn."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from gateway_middleware.commands.extras import require_serve
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import uvicorn

    from gateway_middleware.core.asgi import ASGIApp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes none: everything comes from the environment."""


def server_options(*, drain_seconds: float, keep_alive: int = 75) -> dict[str, object]:
    """How uvicorn serves the gateway: the fast parser and loop, and nothing that costs without being used.

    The keep-alive is longer than the 60 s of common ingresses, so that it is never the gateway that closes first.
    """
    return {
        "http": "httptools",
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "log_level": "warning",
        "timeout_keep_alive": keep_alive,
        "timeout_graceful_shutdown": round(drain_seconds) + 5,
    }


def make_server(app: ASGIApp, *, host: str, port: int, drain_seconds: float) -> uvicorn.Server:
    """A uvicorn server for one process."""
    import uvicorn

    options = server_options(drain_seconds=drain_seconds)
    return uvicorn.Server(uvicorn.Config(app, host=host, port=port, **options))  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Serve until SIGTERM or SIGINT."""
    require_serve("serve")
    settings = Settings.from_env()
    options = server_options(drain_seconds=settings.drain_seconds)
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
