"""Rate limits: everything a call may take is reserved before it and settled after it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway_middleware.core.asgi import UntilDisconnect, Watchtower, with_headers
from gateway_middleware.core.errors import RateLimitedError
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.limiting.actual_use import UseKind, actual_use
from gateway_middleware.limiting.headers import limit_headers
from gateway_middleware.limiting.reservation import LimitReachedError
from gateway_middleware.limiting.spend import quote

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.asgi import ASGIApp, Connection, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, Deployment, ModelRequest, Tenant, Usage
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.limiting.counters import DecisionCounters
    from gateway_middleware.limiting.estimate import Estimate, Estimator
    from gateway_middleware.limiting.queue.waiting import WaitingRoom
    from gateway_middleware.limiting.quota import Plan, Quotas
    from gateway_middleware.limiting.reservation import Reservation, Reservations
    from gateway_middleware.limiting.spend import Quote

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

    Requests, tokens, spend and a slot are reserved in one step; the answer tells how the limits stand. Everything that
    is no model call (no REQUEST in the scope) passes. Under a limit on spend, what the call may cost at the dearest
    deployment is reserved, and deployments without a known price are not asked. Raises `LimitReachedError` and
    `UnpricedModelError`.
    """

    def __init__(self, app: ASGIApp, *, limits: CallLimits, wall: Clock) -> None:
        self.app = app
        self._limits = limits
        self._wall = wall
        self._tower = Watchtower()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope)
        if request is None:
            return self.app(scope, receive, send)
        tenant = TENANT.get(scope)
        plan = self._limits.quotas.plan(tenant, request)
        if not plan:
            return self.app(scope, receive, send)
        return self._limited(plan, _Call(request, tenant, RECORD.get(scope)), (scope, receive, send))

    async def _limited(self, plan: Plan, call: _Call, connection: Connection) -> None:
        scope, receive, send = connection
        limits = self._limits
        limits.reservations.start_late()
        call.needs_price, call.allows_unpriced = plan.needs_price, plan.allows_unpriced
        if plan.needs_estimate and call.request.surface.uses_tokens:
            call.estimate = limits.estimator.estimate(call.request, call.tenant.name)
        price = _quote(limits, plan, call)
        if price is not None and price.route is not call.request.route:
            scope = REQUEST.child(scope, msgspec.structs.replace(call.request, route=price.route))
        reservation = await self._reserve(limits, plan, call, price, receive)
        limits.counters.note(call.tenant.name, reservation.decision)
        headers = limit_headers(reservation.decision, call.record.dialect, self._wall())
        error: BaseException | None = None
        try:
            await self.app(scope, receive, with_headers(send, headers))
        except BaseException as raised:
            error = raised
            raise
        finally:
            await _settle(limits, reservation, call, error)

    async def _reserve(
        self, limits: CallLimits, plan: Plan, call: _Call, price: Quote | None, receive: Receive, /
    ) -> Reservation:
        claims = plan.claims(call.estimate, None if price is None else price.micro_dollars)
        try:
            if limits.waiting_room is None:
                return await limits.reservations.reserve(claims)
            with UntilDisconnect(receive, self._tower):
                return await limits.waiting_room.reserve(claims, call.tenant.name, priority=plan.priority)
        except LimitReachedError as error:
            limits.counters.note(call.tenant.name, error.decision)
            call.record.refused_by = error.limit_status.claim.limit.name
            error.limit_headers = limit_headers(error.decision, call.record.dialect, self._wall())
            raise
        except RateLimitedError:
            call.record.refused_by = QUEUE
            raise


class _Call:
    """A model call on its way through the limits."""

    __slots__ = ("allows_unpriced", "estimate", "needs_price", "record", "request", "tenant")

    def __init__(self, request: ModelRequest, tenant: Tenant, record: CallRecord) -> None:
        self.request = request
        self.tenant = tenant
        self.record = record
        self.estimate: Estimate | None = None
        self.needs_price = self.allows_unpriced = False


def _quote(limits: CallLimits, plan: Plan, call: _Call) -> Quote | None:
    """What the call may cost, None where nothing asks. Raises `UnpricedModelError`."""
    estimate = call.estimate
    if estimate is None or limits.pricing is None or not plan.needs_price:
        return None
    price = partial(limits.pricing.estimate, input_tokens=estimate.input_tokens, output_tokens=estimate.output_tokens)
    return quote(call.request.route, price, allows_unpriced=plan.allows_unpriced)


async def _settle(limits: CallLimits, reservation: Reservation, call: _Call, error: BaseException | None) -> None:
    """Give back what was not used: everything where the provider failed, the rest where it answered."""
    use = actual_use(call.record, call.estimate, error)
    usage = use.usage
    if use.kind is UseKind.REFUND:
        await reservation.cancel()
    elif usage is None:
        await reservation.settle()
    else:
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        await reservation.settle(tokens=tokens, spend=_cost(limits, call, usage) if call.needs_price else None)
    if error is None and call.estimate is not None and call.record.usage is not None:
        limits.estimator.learn(call.request, call.tenant.name, call.estimate, call.record.usage)


def _cost(limits: CallLimits, call: _Call, usage: Usage) -> int | None:
    """Micro-dollars. Of an answer without a known price: what was reserved (None), or nothing where that may pass."""
    cost = None if limits.pricing is None else limits.pricing.cost(call.record, usage)
    return 0 if cost is None and call.allows_unpriced else cost
