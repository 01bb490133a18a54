"""The gateway as an application of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from gateway_middleware.gateway import Gateway
from gateway_middleware.serving.heap import settle_heap
from gateway_middleware.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import FrameType

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
        settle_heap()
        with _reload_on_hangup(app.gateway), _drain_on_term(app.gateway):
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


@contextlib.contextmanager
def _drain_on_term(gateway: Gateway) -> Iterator[None]:
    """Flip readiness as soon as the server is asked to go: its own handler is called after that.

    Without effect where the server's handlers are not those of `signal.signal`, or this is no main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}

    def leave(number: int, frame: FrameType | None) -> None:
        gateway.drain()
        handlers[signal.Signals(number)](number, frame)

    for number in handlers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def create_app(settings: Settings | None = None) -> GatewayApplication:
    """The standalone application, as in `uvicorn --factory gateway_middleware:create_app`.

    Without settings they are read from the environment. Raises `SettingsError`.
    """
    if settings is not None:
        return GatewayApplication(Gateway(settings))
    return GatewayApplication(Gateway(Settings.from_env(), reread=Settings.from_env))
