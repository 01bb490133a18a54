"""Both ends of the stack, and how its layers become one application."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from starlette.routing import Route

from gateway_middleware.core.endpoints import ENDPOINTS
from gateway_middleware.core.errors import GatewayNotStartedError, UnavailableError
from gateway_middleware.core.scope import REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from starlette.middleware import Middleware

    from gateway_middleware.composition.life import Life
    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send


class LateStart:
    """Starts a gateway whose host forgot its lifespan, at the first call.

    Raises `UnavailableError` where it cannot be started, or was closed.
    """

    def __init__(self, app: ASGIApp, *, life: Life) -> None:
        self.app = app
        self._life = life

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self._life.is_started or scope["type"] != "http":
            return self.app(scope, receive, send)
        return self._start(scope, receive, send)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._life.start_late()
        except GatewayNotStartedError as error:
            raise UnavailableError("The gateway is not running.", code="not_running", retry_after=1.0) from error
        await self.app(scope, receive, send)


class Innermost:
    """Model calls go straight to dispatch, the rest to Starlette's router."""

    def __init__(self, dispatch: ASGIApp, router: ASGIApp) -> None:
        self._dispatch = dispatch
        self._router = router

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        inner: ASGIApp = self._router if REQUEST.peek(scope) is None else self._dispatch
        return inner(scope, receive, send)


def fold(layers: Sequence[Middleware], innermost: ASGIApp) -> ASGIApp:
    """One application of layers, outermost first, around the innermost one."""
    return reduce(lambda app, layer: layer.cls(app, *layer.args, **layer.kwargs), reversed(layers), innermost)


def make_routes(served: Mapping[str, ASGIApp], dispatch: ASGIApp) -> list[Route]:
    """Every endpoint as a Starlette route: those of `served` by label, model calls to `dispatch`."""
    return [
        Route(e.path, endpoint=served[e.label] if e.surface is None else dispatch, methods=list(e.methods))
        for e in ENDPOINTS
    ]
