"""Counts the tokens of a prompt where the provider cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import TranslationError, UpstreamStatusError
from gateway_middleware.core.scope import REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest

COUNTED_SURFACES = {Surface.COUNT_TOKENS: Surface.MESSAGES, Surface.INPUT_TOKENS: Surface.RESPONSES}
"""The surfaces that count a prompt, and the surface whose requests each of them takes."""
_WITHOUT_ENDPOINT = frozenset({404, 405, 501})
_ABOUT_THE_MODEL = (b"model", b"deployment")
_STORED = ("previous_response_id", "conversation", "prompt")
_encode = msgspec.json.Encoder().encode


class TokenCountMiddleware:
    """Answers `messages/count_tokens` and `responses/input_tokens` by an estimate where no deployment has the endpoint.

    That is so where no provider of the route speaks the surface, and where one that should answers 404, 405 or 501 for
    another reason than the model. The answer then carries `x-gateway-estimated: input_tokens`. `is_native` says whether
    a provider (by name) speaks a surface itself; `count` gives the tokens of a request's prompt. Raises
    `TranslationError` for a prompt of which a part is stored at a provider.
    """

    def __init__(
        self, app: ASGIApp, *, is_native: Callable[[str, Surface], bool], count: Callable[[ModelRequest], int]
    ) -> None:
        self.app = app
        self._is_native = is_native
        self._count = count

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope)
        if request is None or (
            request.surface is not Surface.COUNT_TOKENS and request.surface is not Surface.INPUT_TOKENS
        ):
            return self.app(scope, receive, send)
        if any(self._is_native(deployment.provider, request.surface) for deployment in request.route.deployments):
            return self._ask(request, scope, receive, send)
        return self._estimate(request, send)

    async def _ask(self, request: ModelRequest, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except UpstreamStatusError as error:
            if error.upstream_status not in _WITHOUT_ENDPOINT or _is_about_the_model(error):
                raise
            await self._estimate(request, send)

    async def _estimate(self, request: ModelRequest, send: Send) -> None:
        _check_whole(request)
        prompt = msgspec.structs.replace(request, surface=COUNTED_SURFACES[request.surface])
        await _answer(send, _encode(_counted(request.surface, self._count(prompt))))


def _is_about_the_model(error: UpstreamStatusError) -> bool:
    body = error.body.lower()
    return any(word in body for word in _ABOUT_THE_MODEL)


def _check_whole(request: ModelRequest) -> None:
    """Raises `TranslationError` where a part of the prompt is not in the request."""
    if request.surface is Surface.COUNT_TOKENS:
        return
    for name in _STORED:
        if bytes(request.fields.get(name, b"null")) != b"null":
            reason = "names what only its provider has stored, and no provider of this model counts tokens"
            raise TranslationError(f"The field `{name}` {reason}.", param=name)


def _counted(surface: Surface, tokens: int) -> dict[str, Any]:
    if surface is Surface.COUNT_TOKENS:
        return {"input_tokens": tokens}
    return {"object": "response.input_tokens", "input_tokens": tokens}


async def _answer(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-gateway-estimated", b"input_tokens"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
