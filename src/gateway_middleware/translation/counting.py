"""Counts the tokens of a prompt where the provider cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.scope import REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest

_encode = msgspec.json.Encoder().encode


class TokenCountMiddleware:
    """Answers `messages/count_tokens` by an estimate where no deployment of the route has such an endpoint.

    The answer then carries `x-gateway-estimated: input_tokens`. `is_native` says whether a provider (by name) speaks a
    surface itself; `count` gives the tokens of a request's prompt.
    """

    def __init__(
        self, app: ASGIApp, *, is_native: Callable[[str, Surface], bool], count: Callable[[ModelRequest], int]
    ) -> None:
        self.app = app
        self._is_native = is_native
        self._count = count

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope)
        if request is None or request.surface is not Surface.COUNT_TOKENS:
            return self.app(scope, receive, send)
        if any(self._is_native(deployment.provider, request.surface) for deployment in request.route.deployments):
            return self.app(scope, receive, send)
        return _answer(send, _encode({"input_tokens": self._count(request)}))


async def _answer(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-gateway-estimated", b"input_tokens"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
