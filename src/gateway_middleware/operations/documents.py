"""Endpoints that are read: each a plain ASGI app around a function that makes its document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from gateway_middleware.core.errors import PathNotFoundError, UnavailableError
from gateway_middleware.core.scope import ENDPOINT, TENANT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import HeaderList, Tenant

_JSON = msgspec.json.Encoder()


async def answer(send: Send, body: bytes, *, content_type: bytes = b"application/json", status: int = 200) -> None:
    """Send one whole response."""
    headers: HeaderList = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Document:
    """Serves the JSON document that a function makes of the call's scope."""

    def __init__(self, make: Callable[[Scope], Any]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, _JSON.encode(self._make(scope)))


class Liveness:
    """`/healthz`: the process answers. Touches nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b'{"status":"ok"}')


class Readiness:
    """`/readyz`: 503 with the reason while the gateway should get no traffic."""

    def __init__(self, reason_not_ready: Callable[[], str | None]) -> None:
        self._reason = reason_not_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._reason()
        if reason is not None:
            raise UnavailableError(f"Not ready: {reason}.", retry_after=1.0)
        await answer(send, b'{"status":"ready"}')


class ProviderStatus:
    """`/v1/providers/{provider}/status`."""

    def __init__(self, make: Callable[[str], dict[str, Any] | None]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = ENDPOINT.get(scope).argument or ""
        document = self._make(name)
        if document is None:
            raise PathNotFoundError(f"No provider `{name}` is configured.", code="unknown_provider")
        await answer(send, _JSON.encode(document))


class CallUsage:
    """`GET /v1/usage/{request_id}`: what one call has used; of a tenant one of its own, of an operator any."""

    def __init__(self, make: Callable[[Tenant | None, str], Awaitable[dict[str, Any]]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        document = await self._make(TENANT.peek(scope), ENDPOINT.get(scope).argument or "")
        await answer(send, _JSON.encode(document))


class TenantUsage:
    """`GET /v1/usage`: what a tenant has used and what remains to it; the query says what else it asks."""

    def __init__(self, make: Callable[[Tenant, Mapping[str, str]], Awaitable[dict[str, Any]]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        await answer(send, _JSON.encode(await self._make(TENANT.get(scope), query)))
