"""The gateway as an application of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from gateway_middleware.gateway import Gateway
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway_middleware.core.asgi import Receive, Scope, Send


class GatewayApplication(Starlette):
    """A Starlette application whose HTTP calls go straight to the gateway's stack."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(routes=gateway.routes, lifespan=_lifespan)
        self.gateway = gateway
        self._stack = gateway.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._stack(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    if not isinstance(app, GatewayApplication):
        raise TypeError("this lifespan belongs to a GatewayApplication")
    async with app.gateway.lifespan():
        _settle_the_heap()
        with _reload_on_hangup(app.gateway):
            yield


@contextlib.contextmanager
def _reload_on_hangup(gateway: Gateway) -> Iterator[None]:
    """SIGHUP reads the configuration again, where this process may have signal handlers at all."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGHUP, gateway.operations.reload_on_signal)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _settle_the_heap() -> None:
    """Take what start-up made out of the collector's sight: a full pass over it is a pause that callers feel."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def create_app(settings: Settings | None = None) -> GatewayApplication:
    """The standalone application, as in `uvicorn --factory gateway_middleware:create_app`.

    Without settings they are read from the environment. Raises `SettingsError`.
    """
    if settings is not None:
        return GatewayApplication(Gateway(settings))
    return GatewayApplication(Gateway(Settings.from_env(), reread=Settings.from_env))
