"""Both ends of the staircase: what starts the gateway, and what stands at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway_middleware.core.scope import REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send


class Startable(Protocol):
    """A gateway."""

    is_started: bool

    def start_late(self) -> None:
        """Start at the first call."""
        ...


class StartGuard:
    """Starts a gateway whose host forgot its lifespan."""

    def __init__(self, app: ASGIApp, *, gateway: Startable) -> None:
        self.app = app
        self._gateway = gateway

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if not self._gateway.is_started and scope["type"] == "http":
            self._gateway.start_late()
        return self.app(scope, receive, send)


class Innermost:
    """Model calls go straight to dispatch, the rest to Starlette's router."""

    def __init__(self, dispatch: ASGIApp, router: ASGIApp) -> None:
        self._dispatch = dispatch
        self._router = router

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        inner: ASGIApp = self._router if REQUEST.peek(scope) is None else self._dispatch
        return inner(scope, receive, send)
