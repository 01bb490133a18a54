"""Endpoints that are read: each a plain ASGI app around a function that makes its document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from gateway_middleware.core.asgi import header
from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.errors import PathNotFoundError, UnavailableError, UnknownModelError
from gateway_middleware.core.scope import ENDPOINT, TENANT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import HeaderList, Route, Tenant

_JSON = msgspec.json.Encoder()
_EPOCH = "1970-01-01T00:00:00Z"


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


class ModelIndex(Protocol):
    """What a tenant may call, by name."""

    def visible(self, tenant: Tenant, dialect: Dialect) -> tuple[Route, ...]:
        """What this tenant may call, as far as it has names."""
        ...

    def find(self, model: str, tenant: Tenant, dialect: Dialect) -> Route | None:
        """The route of one name, or None when it does not exist for this tenant."""
        ...


class Models:
    """`/v1/models` and `/v1/models/{id}` in OpenAI's or Anthropic's shape."""

    def __init__(self, index: Callable[[], ModelIndex]) -> None:
        self._index = index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint, tenant = ENDPOINT.get(scope), TENANT.get(scope)
        is_anthropic = endpoint.dialect is Dialect.ANTHROPIC or header(scope, b"anthropic-version") is not None
        shape = _anthropic_model if is_anthropic else _openai_model
        if endpoint.argument is None:
            models = [shape(route) for route in self._index().visible(tenant, endpoint.dialect)]
            document = _anthropic_page(models) if is_anthropic else {"object": "list", "data": models}
        else:
            document = shape(self._one(endpoint.argument, tenant, endpoint.dialect))
        await answer(send, _JSON.encode(document))

    def _one(self, model: str, tenant: Tenant, dialect: Dialect) -> Route:
        route = self._index().find(model, tenant, dialect)
        if route is None:
            raise UnknownModelError(
                f"The model `{model}` does not exist or you do not have access to it.", param="model"
            )
        return route


def _openai_model(route: Route) -> dict[str, Any]:
    return {"id": route.name, "object": "model", "created": 0, "owned_by": route.deployments[0].provider}


def _anthropic_model(route: Route) -> dict[str, Any]:
    return {"type": "model", "id": route.name, "display_name": route.name, "created_at": _EPOCH}


def _anthropic_page(models: list[dict[str, Any]]) -> dict[str, Any]:
    ids = [model["id"] for model in models] or [None]
    return {"data": models, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}


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
    """`GET /v1/usage`: what a tenant has used and what remains to it, and to `?end_user=` of it."""

    def __init__(self, make: Callable[[Tenant, str | None], Awaitable[dict[str, Any]]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        await answer(send, _JSON.encode(await self._make(TENANT.get(scope), query.get("end_user"))))
