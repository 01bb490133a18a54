"""The gateway as an application of its own."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from gateway_middleware.gateway import Gateway
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway_middleware.asgi import Receive, Scope, Send


class GatewayApplication(Starlette):
    """A Starlette application whose HTTP calls go straight to the gateway's staircase."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(routes=gateway.routes, lifespan=_lifespan)
        self.gateway = gateway
        self._staircase = gateway.staircase

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._staircase(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    if not isinstance(app, GatewayApplication):
        raise TypeError("this lifespan belongs to a GatewayApplication")
    async with app.gateway.lifespan():
        _settle_the_heap()
        yield


def _settle_the_heap() -> None:
    """Take what start-up made out of the collector's sight: a full pass over it is a pause that callers feel."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def create_app(settings: Settings | None = None) -> GatewayApplication:
    """The standalone application, as in `uvicorn --factory gateway_middleware:create_app`.

    Without settings they are read from the environment. Raises `SettingsError`.
    """
    return GatewayApplication(Gateway(settings if settings is not None else Settings.from_env()))
