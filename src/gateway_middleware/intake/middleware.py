"""The layer that reads a model call: its body, the model it names, and the route that the model leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import ModelRequest, Surface, Translate
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.core.model_names import DEFAULT_MODELS
from gateway_middleware.core.plan import CallPlan, PlanPart, Plans
from gateway_middleware.core.scope import ENDPOINT, RECORD, REQUEST, TENANT
from gateway_middleware.intake.attribution import attribution_of
from gateway_middleware.intake.body import read_body
from gateway_middleware.intake.client_headers import allowed_headers, asks
from gateway_middleware.intake.ownership import NOT_STORED
from gateway_middleware.intake.paced_receive import BodyPaces, PacedReceive
from gateway_middleware.intake.parsing import check_media_type, check_model, parse
from gateway_middleware.intake.stored_calls import StoredCalls
from gateway_middleware.intake.stored_responses import StoredResponses
from gateway_middleware.intake.tenant_bodies import MAX_TENANT_BODIES_BYTES, TenantBodies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway_middleware.core.client_credential import ClientCredential
    from gateway_middleware.core.domain import HeaderList, Route, Tenant
    from gateway_middleware.core.endpoints import Endpoint
    from gateway_middleware.core.plan import CallKind
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.intake.ownership import ResponseOwners
    from gateway_middleware.intake.parsing import ParsedBody
    from gateway_middleware.intake.routing import RouteTable
    from gateway_middleware.intake.tenant_bodies import Share

_FALSE = msgspec.Raw(b"false")
_STRICT, _STREAM_COST = b"x-gateway-strict", b"x-gateway-stream-cost"


class IntakeMiddleware:
    """Sets REQUEST for model calls; every other endpoint passes.

    `table` gives the route table of the moment, so that it can be swapped while calls are in flight. `owners`
    checks ids of stored provider resources, and sends a continued response back to its deployment. The bodies of one
    tenant's calls that have not ended may hold `max_tenant_bodies_bytes`, and large ones are read in turn. One that
    does not move is given up by `paces`, whatever the server does. `plans` are those of the gateway: whoever changes
    what they go by drops them. `end_user_header` alone says who a tenant's end user is, if it is given.
    `client_credential` reads the caller's own credential for a provider, of calls that need one, or raises
    `AuthenticationError`. Raises `InvalidRequestError`, `RateLimitedError`, `RequestTimeoutError`,
    `RequestTooLargeError`, `UnsupportedMediaTypeError`, `UnknownModelError`, and `UnavailableError` while nobody can
    say whose a stored resource is.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        table: Callable[[], RouteTable],
        max_body_bytes: int,
        owners: ResponseOwners,
        max_tenant_bodies_bytes: int = MAX_TENANT_BODIES_BYTES,
        paces: BodyPaces | None = None,
        plans: Plans | None = None,
        end_user_header: str | None = None,
        client_credential: Callable[[HeaderList], ClientCredential | None] = lambda _: None,
    ) -> None:
        self.app = app
        self._table = table
        self._max_bytes = min(max_body_bytes, max_tenant_bodies_bytes)
        self._owners = owners
        self._paces = paces or BodyPaces()
        # Longer than a body that has stopped may hold its turn.
        self._bodies = TenantBodies(max_tenant_bodies_bytes, max_wait=2 * self._paces.seconds)
        self._plans = Plans() if plans is None else plans
        self._end_user_header = None if end_user_header is None else end_user_header.lower().encode()
        self._client_credential = client_credential
        self._route = PlanPart(self._resolve)
        self._stored = StoredCalls(
            app,
            responses=StoredResponses(owners, table),
            read=self._read,
            with_credential=self._with_credential,
            end_user_header=self._end_user_header,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINT.peek(scope) if scope["type"] == "http" else None
        if endpoint is None or endpoint.surface is None:
            await self.app(scope, receive, send)
            return
        tenant, record, surface = TENANT.get(scope), RECORD.get(scope), endpoint.surface
        share = self._bodies.share_of(tenant.name)
        try:
            headers = dict(scope["headers"])
            if surface is Surface.STORED:
                await self._stored(scope, receive, send, headers=headers, share=share)
                return
            content_type = check_media_type(headers.get(b"content-type"), headers.get(b"content-encoding"), surface)
            body = await self._read(headers.get(b"content-length"), receive, share)
            share.end_turn()
            record.bytes_in = len(body)
            parsed = parse(body, content_type, surface)
            request = self._asked(parsed, body, endpoint, surface, scope, headers=headers)
            references = self._owners.references(surface, parsed, request.route)
            if references:
                request = await self._stick(request, references, tenant)
            REQUEST.set(scope, request)
            try:
                await self.app(scope, _Replay(body, receive), send)
            finally:
                if surface is Surface.RESPONSES:
                    # A client that leaves has its response id as well, and may continue from it.
                    self._remember(scope, request)
        finally:
            share.close()

    def _asked(
        self,
        parsed: ParsedBody,
        body: bytes,
        endpoint: Endpoint,
        surface: Surface,
        scope: Scope,
        *,
        headers: Mapping[bytes, bytes],
    ) -> ModelRequest:
        """What the call asks for; `headers` are those of the scope once more, by name."""
        sent, record = scope["headers"], RECORD.known(scope)
        record.attribution = attribution_of(headers, sent, parsed.fields, end_user_header=self._end_user_header)
        request = self._request(
            parsed,
            body,
            endpoint,
            surface,
            tenant=TENANT.known(scope),
            record=record,
            is_strict=_STRICT in headers and asks(sent, _STRICT),
            shows_cost=_STREAM_COST in headers and asks(sent, _STREAM_COST),
            headers=allowed_headers(sent, headers.keys(), endpoint.dialect),
        )
        return self._with_credential(request, sent)

    def _with_credential(self, request: ModelRequest, sent: HeaderList) -> ModelRequest:
        """With the caller's own credential, where one of the providers of the call takes that."""
        if not request.route.takes_client_credential:
            return request
        return msgspec.structs.replace(request, client_credential=self._client_credential(sent))

    def _read(self, declared: bytes | None, receive: Receive, share: Share) -> Awaitable[bytes]:
        paced = PacedReceive(receive, self._paces)
        return read_body(declared, paced, limit=self._max_bytes, on_bytes=share.add, take_turn=share.take_turn)

    def _request(
        self,
        parsed: ParsedBody,
        body: bytes,
        endpoint: Endpoint,
        surface: Surface,
        *,
        tenant: Tenant,
        record: CallRecord,
        is_strict: bool,
        shows_cost: bool,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> ModelRequest:
        model = _model_of(endpoint, surface, parsed)
        kind = (tenant, endpoint.path, model, is_strict)
        plan = self._plans.find(kind)
        if plan is None:
            check_model(model)
        record.model, record.is_stream = model, parsed.is_stream
        if plan is None:
            plan = self._plan(kind, model, endpoint, surface, tenant)
        route = self._route.of(plan, model, endpoint, surface, tenant)
        record.route, record.retirement = route.name, route.retirement
        # With one argument more Python makes a dictionary of them first.
        request = ModelRequest(
            surface=surface,
            dialect=endpoint.dialect,
            model=model,
            route=route,
            body=body,
            fields=parsed.fields,
            content_type=parsed.content_type,
            is_stream=parsed.is_stream,
            wants_stream_usage=parsed.wants_stream_usage,
            output_cap=parsed.output_cap,
            choices=parsed.choices,
            is_strict=is_strict or route.translate is Translate.STRICT,
            headers=headers,
            tenant=tenant.name,
            plan=plan,
        )
        if shows_cost and parsed.is_stream:
            return msgspec.structs.replace(request, shows_cost=True)
        return request

    def _plan(self, kind: CallKind, model: str, endpoint: Endpoint, surface: Surface, tenant: Tenant) -> CallPlan:
        """The first call of its kind makes a plan, if the model may be called."""
        plan = CallPlan()
        self._route.of(plan, model, endpoint, surface, tenant)
        self._plans.add(kind, plan)
        return plan

    def _resolve(self, model: str, endpoint: Endpoint, surface: Surface, tenant: Tenant) -> Route:
        """Where such calls lead."""
        return self._table().resolve(model, surface=surface, dialect=endpoint.dialect, tenant=tenant)

    async def _stick(self, request: ModelRequest, references: Mapping[str, str], tenant: Tenant) -> ModelRequest:
        """The request with its route narrowed to the one deployment that holds what it goes on from."""
        place = await self._owners.holder(references, tenant)
        narrowed = request.route if place is None else self._table().narrowed(request.route, place)
        if narrowed is request.route:
            return request
        return msgspec.structs.replace(request, route=narrowed, plan=CallPlan())

    def _remember(self, scope: Scope, request: ModelRequest) -> None:
        if request.fields.get("store") == _FALSE:
            return
        attempt = RECORD.get(scope).answered_by
        if attempt is None or attempt.response_id is None:
            return
        if attempt.translation is not None:
            self._owners.remember([attempt.translation.answer_id(attempt.response_id)], TENANT.get(scope), NOT_STORED)
        else:
            ids = (attempt.response_id, *attempt.item_ids)
            self._owners.remember(ids, TENANT.get(scope), attempt.deployment.place)


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
        return endpoint.argument
    if parsed.model is None and surface in DEFAULT_MODELS:
        return DEFAULT_MODELS[surface]
    if parsed.model is None:
        raise InvalidRequestError("You must provide a model parameter.", param="model")
    return parsed.model
