"""The layer that reads a model call: its body, the model it names, and the route that the model leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Dialect, ModelRequest, Surface, Translate
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.core.model_names import DEFAULT_MODELS
from gateway_middleware.core.scope import ENDPOINT, RECORD, REQUEST, TENANT
from gateway_middleware.intake.body import read_body
from gateway_middleware.intake.parsing import check_media_type, check_model, parse
from gateway_middleware.intake.tenant_bodies import MAX_TENANT_BODIES_BYTES, TenantBodies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.core.endpoints import Endpoint
    from gateway_middleware.intake.ownership import ResponseOwners
    from gateway_middleware.intake.parsing import ParsedBody
    from gateway_middleware.intake.routing import RouteTable
    from gateway_middleware.intake.tenant_bodies import Share

_FALSE = msgspec.Raw(b"false")
_STRICT = b"x-gateway-strict"
_TRACING = {b"traceparent": 128, b"tracestate": 512}
_OPENAI_HEADERS = {b"openai-beta": 256, **_TRACING}
_ANTHROPIC_HEADERS = {b"anthropic-version": 32, b"anthropic-beta": 1024, **_TRACING}
"""Client headers that go upstream, with the longest value that is taken."""


class IntakeMiddleware:
    """Sets REQUEST for model calls; every other endpoint passes.

    `table` gives the route table of the moment, so that it can be swapped while calls are in flight. `owners`
    checks ids of stored provider resources, and sends a continued response back to its deployment. The bodies of one
    tenant's calls that have not ended may hold `max_tenant_bodies_bytes`. Raises `InvalidRequestError`,
    `RateLimitedError`, `RequestTooLargeError`, `UnsupportedMediaTypeError`, `UnknownModelError`, and
    `UnavailableError` while nobody can say whose a stored resource is.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        table: Callable[[], RouteTable],
        max_body_bytes: int,
        owners: ResponseOwners,
        max_tenant_bodies_bytes: int = MAX_TENANT_BODIES_BYTES,
    ) -> None:
        self.app = app
        self._table = table
        self._max_body_bytes = max_body_bytes
        self._owners = owners
        self._bodies = TenantBodies(max_tenant_bodies_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINT.peek(scope) if scope["type"] == "http" else None
        if endpoint is None or endpoint.surface is None:
            await self.app(scope, receive, send)
            return
        share = self._bodies.share_of(TENANT.get(scope).name)
        try:
            request, body = await self._take_in(scope, receive, endpoint, endpoint.surface, share)
            REQUEST.set(scope, request)
            try:
                await self.app(scope, _Replay(body, receive), send)
            finally:
                # A client that leaves has its response id as well, and may continue from it.
                self._remember(scope, request)
        finally:
            share.close()

    async def _take_in(
        self, scope: Scope, receive: Receive, endpoint: Endpoint, surface: Surface, share: Share
    ) -> tuple[ModelRequest, bytes]:
        headers = dict(scope["headers"])
        content_type = check_media_type(headers.get(b"content-type"), headers.get(b"content-encoding"), surface)
        limit = min(self._max_body_bytes, self._bodies.max_bytes)
        body = await read_body(headers.get(b"content-length"), receive, limit=limit, on_bytes=share.add)
        request, references = self._read(scope, endpoint, surface, content_type, body)
        if references:
            request = await self._stick(request, references, TENANT.get(scope))
        return request, body

    def _read(
        self, scope: Scope, endpoint: Endpoint, surface: Surface, content_type: bytes, body: bytes
    ) -> tuple[ModelRequest, Mapping[str, str]]:
        """The request, and the ids of stored things that it names."""
        tenant, record = TENANT.get(scope), RECORD.get(scope)
        record.bytes_in = len(body)
        parsed = parse(body, content_type, surface)
        model = record.model = _model_of(endpoint, surface, parsed)
        record.is_stream = parsed.is_stream
        route = self._table().resolve(model, surface=surface, dialect=endpoint.dialect, tenant=tenant)
        record.route = route.name
        references = self._owners.references(surface, parsed, route)
        request = ModelRequest(
            surface=surface,
            dialect=endpoint.dialect,
            model=model,
            route=route,
            body=body,
            fields=parsed.fields,
            content_type=content_type,
            is_stream=parsed.is_stream,
            wants_stream_usage=parsed.wants_stream_usage,
            output_cap=parsed.output_cap,
            choices=parsed.choices,
            is_strict=route.translate is Translate.STRICT or _asks_strictness(scope),
            headers=_allowed_headers(scope, endpoint.dialect),
        )
        return request, references

    async def _stick(self, request: ModelRequest, references: Mapping[str, str], tenant: Tenant) -> ModelRequest:
        """The request with its route narrowed to the one deployment that holds what it goes on from."""
        key = await self._owners.holder(references, tenant)
        route = request.route
        holders = tuple(d for d in route.deployments if d.key == key) if key is not None else ()
        if not holders:
            return request
        return msgspec.structs.replace(request, route=msgspec.structs.replace(route, deployments=holders))

    def _remember(self, scope: Scope, request: ModelRequest) -> None:
        if request.surface is not Surface.RESPONSES or request.fields.get("store") == _FALSE:
            return
        attempt = RECORD.get(scope).answered_by
        if attempt is not None and attempt.response_id is not None and attempt.translation is None:
            ids = (attempt.response_id, *attempt.item_ids)
            self._owners.remember(ids, TENANT.get(scope), attempt.deployment.key)


class _Replay:
    """The body once more for a layer inside that reads it, then the client itself."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _model_of(endpoint: Endpoint, surface: Surface, parsed: ParsedBody) -> str:
    """Azure's paths name the deployment, and the body may say what it likes."""
    if endpoint.argument is not None:
        return check_model(endpoint.argument)
    if parsed.model is None and surface in DEFAULT_MODELS:
        return DEFAULT_MODELS[surface]
    if parsed.model is None:
        raise InvalidRequestError("You must provide a model parameter.", param="model")
    return check_model(parsed.model)


def _asks_strictness(scope: Scope) -> bool:
    """Whether a loss in translation is an error for this client. Raises `InvalidRequestError`."""
    value = next((value for name, value in scope["headers"] if name == _STRICT), b"false").strip().lower()
    if value not in {b"true", b"false"}:
        raise InvalidRequestError("The header x-gateway-strict must be true or false.", param="x-gateway-strict")
    return bool(value == b"true")


def _allowed_headers(scope: Scope, dialect: Dialect) -> tuple[tuple[bytes, bytes], ...]:
    allowed = _ANTHROPIC_HEADERS if dialect is Dialect.ANTHROPIC else _OPENAI_HEADERS
    headers = tuple([pair for pair in scope["headers"] if pair[0] in allowed])
    for name, value in headers:
        if len(value) > allowed[name] or not value.isascii() or any(c < 32 or c == 127 for c in value):
            raise InvalidRequestError(f"The header {name.decode()} is not valid.", param=name.decode())
    return headers
