"""Rate limits: everything a call may take is reserved before it and settled after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from gateway_middleware.core.asgi import UntilDisconnect, Watchtower
from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.errors import RateLimitedError
from gateway_middleware.core.plan import CallPlan, PlanPart
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.limiting.actual_use import UseKind, actual_use
from gateway_middleware.limiting.headers import PreparedHeaders, limit_headers
from gateway_middleware.limiting.reservation import LimitReachedError
from gateway_middleware.limiting.spend import UnpricedModelError, quote
from gateway_middleware.limiting.step_down import is_reached, lowered, refuses_spend

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.asgi import ASGIApp, Connection, Receive, Scope, Send
    from gateway_middleware.core.domain import BudgetStep, Clock, Deployment, HeaderList, ModelRequest, Tenant, Usage
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.limiting.counters import DecisionCounters, Tally
    from gateway_middleware.limiting.estimate import Estimate, Estimator
    from gateway_middleware.limiting.queue.waiting import WaitingRoom
    from gateway_middleware.limiting.quota import Plan, Quotas
    from gateway_middleware.limiting.reservation import Reservation, Reservations
    from gateway_middleware.limiting.spend import Quote
    from gateway_middleware.limiting.store.cells import Cells

QUEUE = "queue"
"""What the log names where no limit has refused a call, but the tenant's share of the queue."""


class Pricing(Protocol):
    """What calls cost, in micro-dollars; None where no price is known."""

    def estimate(self, deployment: Deployment, *, input_tokens: int, output_tokens: int) -> int | None:
        """What a call would cost at this deployment."""
        ...

    def cost(self, record: CallRecord, usage: Usage) -> int | None:
        """What a call has cost that was answered with this usage."""
        ...


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that limit model limits. `waiting_room` is where calls wait for a slot, if they may."""

    quotas: Quotas
    reservations: Reservations
    estimator: Estimator
    counters: DecisionCounters
    pricing: Pricing | None = None
    waiting_room: WaitingRoom | None = None


class CallLimitMiddleware:
    """Reserves what a model call may take before it, and settles with what it has really used, whatever its end.

    Requests, tokens, spend and a slot are reserved in one step; what the answer tells of how the limits stand is in the
    record. Everything that is no model call (no REQUEST in the scope) passes. Under a limit on spend, what the call may
    cost at the dearest deployment is reserved, and deployments without a known price are not asked. Where a limit on
    spend is reached, a call goes on with the cheaper route of its `on_budget`, if that fits. Raises
    `LimitReachedError` and `UnpricedModelError`.
    """

    def __init__(self, app: ASGIApp, *, limits: CallLimits, wall: Clock) -> None:
        self.app = app
        self._limits = limits
        self._wall = wall
        self._tower = Watchtower()
        self._kind = PlanPart(self._kind_of)
        self._cheaper = PlanPart(CallPlan)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope)
        if request is None:
            return self.app(scope, receive, send)
        tenant = TENANT.known(scope)
        kind = self._kind.of(request.plan, tenant, request)
        if not kind.plan.is_limited:
            return self.app(scope, receive, send)
        return self._limited(_Call(kind, request, tenant, RECORD.known(scope)), (scope, receive, send))

    def _kind_of(self, tenant: Tenant, request: ModelRequest) -> _Kind:
        wall = self._wall if request.dialect is Dialect.ANTHROPIC else None
        return _Kind(self._limits, self._limits.quotas.plan(tenant, request), tenant, request, wall=wall)

    async def _limited(self, call: _Call, connection: Connection) -> None:
        scope, receive, send = connection
        limits = self._limits
        limits.reservations.start_late()
        needs = _needs(limits, call)
        request, reservation = needs.request, self._planned(call, needs)
        if reservation is None:
            try:
                call, request, reservation = await self._decided(call, needs, receive)
            except RateLimitedError as refusal:
                self._note_refusal(call, refusal)
                raise
        if request is not call.request:
            scope = REQUEST.child(scope, request)
        call.record.limit_headers = self._told(call, reservation)
        error: BaseException | None = None
        try:
            await self.app(scope, receive, send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            sent = _settle(limits, reservation, call, error)
            if sent is not None:
                await sent

    def _planned(self, call: _Call, needs: _Needs) -> Reservation | None:
        """Reserve in the cells of the plan; None where it has none, not all fits, or others wait for their turn."""
        cells, room = call.kind.cells, self._limits.waiting_room
        if cells is None or (room is not None and room.is_busy):
            return None
        tokens, spend = call.plan.costs(call.estimate, needs.micro_dollars)
        return self._limits.reservations.take_planned(cells, tokens, spend)

    async def _decided(self, call: _Call, needs: _Needs, receive: Receive) -> tuple[_Call, ModelRequest, Reservation]:
        """Reserve by the claims of this call, which may wait or be refused."""
        if needs.request.route.on_budget is not None:
            return await self._within_budget(call, needs, needs.request.route.on_budget, receive)
        return call, needs.request, await self._reserved(call, needs, receive)

    async def _within_budget(
        self, call: _Call, needs: _Needs, step: BudgetStep, receive: Receive
    ) -> tuple[_Call, ModelRequest, Reservation]:
        """Reserve for the route that was asked for or, where the budget has come so far, for the cheaper one.

        Raises what refuses the route that was asked for, where the cheaper one does not fit either.
        """
        try:
            reservation = await self._reserved(call, needs, receive)
        except LimitReachedError as refusal:
            stepped = await self._stepped_down(call, step, receive) if refuses_spend(refusal.decision) else None
            if stepped is None:
                raise
            return stepped
        if is_reached(reservation.decision, step.percent):
            await reservation.cancel()
            stepped = await self._stepped_down(call, step, receive)
            if stepped is not None:
                return stepped
            reservation = await self._reserved(call, needs, receive)
        return call, needs.request, reservation

    async def _stepped_down(
        self, call: _Call, step: BudgetStep, receive: Receive
    ) -> tuple[_Call, ModelRequest, Reservation] | None:
        """The call on the cheaper route; None where that does not fit either."""
        record, tenant = call.record, call.tenant
        request = lowered(call.request, step, self._cheaper.of(call.request.plan))
        cheaper = _Call(self._kind.of(request.plan, tenant, request), request, tenant, record)
        try:
            needs = _needs(self._limits, cheaper)
            reservation = await self._reserved(cheaper, needs, receive)
        except (RateLimitedError, UnpricedModelError):
            return None
        self._limits.counters.note_step(tenant.name, step.route.name)
        record.stepped_down, record.route, record.retirement = step.route, step.route.name, step.route.retirement
        return cheaper, msgspec.structs.replace(needs.request, model=call.request.model), reservation

    async def _reserved(self, call: _Call, needs: _Needs, receive: Receive) -> Reservation:
        limits, claims = self._limits, call.plan.claims(call.estimate, needs.micro_dollars, call.end_user)
        if limits.waiting_room is None:
            return await limits.reservations.reserve(claims)
        with UntilDisconnect(receive, self._tower):
            return await limits.waiting_room.reserve(claims, call.tenant.name, priority=call.plan.priority)

    def _told(self, call: _Call, reservation: Reservation) -> HeaderList:
        """Count a call that was admitted, and say what the client is told of its limits."""
        kind = call.kind
        if kind.tally is not None and not reservation.is_degraded:
            kind.tally.note(reservation)
        else:
            self._limits.counters.note(call.tenant.name, reservation.decision)
        if kind.headers is not None:
            return kind.headers.headers(reservation.standing)
        return limit_headers(reservation.decision, call.record.dialect, self._wall())

    def _note_refusal(self, call: _Call, error: RateLimitedError) -> None:
        call.record.refused_by = QUEUE
        if isinstance(error, LimitReachedError):
            self._limits.counters.note(call.tenant.name, error.decision)
            call.record.refused_by = error.limit_status.claim.limit.name
            error.limit_headers = limit_headers(error.decision, call.record.dialect, self._wall())


class _Kind:
    """What is the same for all calls of one plan. `cells` are there where nothing but a refusal can come in between."""

    __slots__ = ("cells", "headers", "plan", "tally")

    def __init__(
        self, calls: CallLimits, plan: Plan, tenant: Tenant, request: ModelRequest, *, wall: Clock | None
    ) -> None:
        self.plan = plan
        self.cells: Cells | None = None
        self.headers: PreparedHeaders | None = None
        self.tally: Tally | None = None
        claims = plan.planned(is_estimated=plan.needs_estimate and request.surface.uses_tokens)
        if not claims:
            return
        limits = [claim.limit for claim in claims]
        self.headers = PreparedHeaders.of(limits, wall)
        if not any(limit.is_shadow for limit in limits):
            self.tally = calls.counters.tally(tenant.name, limits)
            if request.route.on_budget is None:
                self.cells = calls.reservations.cells(claims)


class _Call:
    """A model call on its way through the limits."""

    __slots__ = ("estimate", "kind", "plan", "record", "request", "tenant")

    def __init__(self, kind: _Kind, request: ModelRequest, tenant: Tenant, record: CallRecord) -> None:
        self.kind = kind
        self.plan = kind.plan
        self.request = request
        self.tenant = tenant
        self.record = record
        self.estimate: Estimate | None = None

    @property
    def end_user(self) -> str | None:
        """Who uses the tenant's application, where the call says so."""
        return None if self.record.attribution is None else self.record.attribution.end_user


class _Needs(NamedTuple):
    """What a call may cost, and the request with those deployments only that it may be sent to."""

    request: ModelRequest
    micro_dollars: int | None = None


def _needs(limits: CallLimits, call: _Call) -> _Needs:
    """What the call may take. Raises `UnpricedModelError`."""
    plan, request = call.plan, call.request
    if not plan.needs_estimate or not request.surface.uses_tokens:
        return _Needs(request)
    call.estimate = estimate = limits.estimator.estimate(request, call.tenant.name)
    if limits.pricing is None or not plan.needs_price:
        return _Needs(request)
    price = _quote(limits.pricing, plan, request, estimate)
    if price.route is not request.route:
        request = msgspec.structs.replace(request, route=price.route, plan=CallPlan())
    return _Needs(request, price.micro_dollars)


def _quote(pricing: Pricing, plan: Plan, request: ModelRequest, estimate: Estimate) -> Quote:
    """What the call may cost. Raises `UnpricedModelError`."""

    def price(deployment: Deployment) -> int | None:
        return pricing.estimate(deployment, input_tokens=estimate.input_tokens, output_tokens=estimate.output_tokens)

    return quote(request.route, price, allows_unpriced=plan.allows_unpriced)


def _settle(
    limits: CallLimits, reservation: Reservation, call: _Call, error: BaseException | None
) -> Awaitable[object] | None:
    """Give back what was not used: everything where the provider failed, the rest where it answered.

    What is returned has to be waited for.
    """
    use = actual_use(call.record, call.estimate, error)
    usage = use.usage
    if use.kind is UseKind.REFUND:
        sent = reservation.end(requests=0, tokens=0, spend=0)
    elif usage is None:
        sent = reservation.end()
    else:
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        sent = reservation.end(tokens=tokens, spend=_cost(limits, call, usage) if call.plan.needs_price else None)
    known = call.record.usage if error is None else None
    if known is not None and call.estimate is not None:
        limits.estimator.learn(call.request, call.tenant.name, call.estimate, known)
    return sent


def _cost(limits: CallLimits, call: _Call, usage: Usage) -> int | None:
    """Micro-dollars. Of an answer without a known price: what was reserved (None), or nothing where that may pass."""
    cost = None if limits.pricing is None else limits.pricing.cost(call.record, usage)
    return 0 if cost is None and call.plan.allows_unpriced else cost
