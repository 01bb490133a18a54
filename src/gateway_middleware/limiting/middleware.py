"""Rate limits: everything a call may take is reserved before it and settled after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway_middleware.core.asgi import UntilDisconnect, Watchtower
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.limiting.headers import limit_headers
from gateway_middleware.limiting.per_key import KeyLimits, too_many_requests, with_headers
from gateway_middleware.limiting.reservation import LimitReachedError
from gateway_middleware.limiting.settlement import Ending, settlement_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Connection, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, ModelRequest, Tenant, Usage
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.limiting.counters import Tally
    from gateway_middleware.limiting.estimate import Estimate, Estimator
    from gateway_middleware.limiting.limit import Store
    from gateway_middleware.limiting.per_key import OnReject
    from gateway_middleware.limiting.queue.waiting import WaitingRoom
    from gateway_middleware.limiting.quota import Plan, Quotas
    from gateway_middleware.limiting.reservation import Limiter, Reservation
    from gateway_middleware.limiting.ticker import Ticker


class Pricing(Protocol):
    """What calls cost, in micro-dollars; None where no price is known."""

    def estimate(self, request: ModelRequest, *, input_tokens: int, output_tokens: int) -> int | None:
        """What a call would cost at its route's first deployment."""
        ...

    def cost(self, record: CallRecord, usage: Usage) -> int | None:
        """What a call has cost that was answered with this usage."""
        ...


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that limit model calls. `waiting_room` is where calls wait for a slot, if they may."""

    quotas: Quotas
    limiter: Limiter
    estimator: Estimator
    ticker: Ticker
    tally: Tally
    pricing: Pricing | None = None
    waiting_room: WaitingRoom | None = None


class RateLimitMiddleware:
    """Lets a call through when all its limits have room for it, and tells its client how they stand.

    In the gateway it gets `calls`: model calls (REQUEST in the scope) reserve requests, tokens, spend and a slot in one
    step, and are settled with what they have really used, whatever their end. Raises `LimitReachedError`.

    Alone on a foreign application it gets a `key`: requests with the same `key(scope)` share `limits` (`10/second;
    1000/hour`, the notation of `limits`) and at most `concurrency` of them run at a time. None as a key lets a
    request pass. `storage_uri` is `memory://` or `redis://...`, or give a `store` of your own. A refusal is answered
    with the status, headers and body that `on_reject` makes of it. Raises `ValueError` for limits that are none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        calls: CallLimits | None = None,
        key: Callable[[Scope], str | None] | None = None,
        limits: str = "",
        concurrency: int | None = None,
        storage_uri: str = "memory://",
        store: Store | None = None,
        on_reject: OnReject = too_many_requests,
        wall: Clock = time.time,
    ) -> None:
        self.app = app
        self._calls = calls
        self._wall = wall
        self._tower = Watchtower()
        self._foreign = None
        if key is not None:
            self._foreign = KeyLimits(
                key,
                limits=limits,
                concurrency=concurrency,
                storage_uri=storage_uri,
                store=store,
                on_reject=on_reject,
                wall=wall,
            )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        request = REQUEST.peek(scope)
        if request is not None and self._calls is not None:
            tenant = TENANT.get(scope)
            plan = self._calls.quotas.plan(tenant, request)
            if plan:
                return self._limited(
                    self._calls, plan, _Call(request, tenant, RECORD.get(scope)), (scope, receive, send)
                )
        elif self._foreign is not None:
            return self._foreign(self.app, scope, receive, send)
        return self.app(scope, receive, send)

    async def _limited(self, calls: CallLimits, plan: Plan, call: _Call, connection: Connection) -> None:
        scope, receive, send = connection
        calls.ticker.start()
        if plan.needs_estimate:
            call.estimate = calls.estimator.estimate(call.request, call.tenant.name)
        reservation = await self._reserve(calls, plan, call, receive)
        calls.tally.note(call.tenant.name, reservation.decision)
        headers = limit_headers(reservation.decision, call.record.dialect, self._wall())
        error: BaseException | None = None
        try:
            await self.app(scope, receive, with_headers(send, headers))
        except BaseException as raised:
            error = raised
            raise
        finally:
            await _settle(calls, reservation, call, error)

    async def _reserve(self, calls: CallLimits, plan: Plan, call: _Call, receive: Receive) -> Reservation:
        claims = plan.claims(call.estimate, _price(calls, plan, call))
        try:
            if calls.waiting_room is None:
                return await calls.limiter.reserve(claims)
            with UntilDisconnect(receive, self._tower):
                return await calls.waiting_room.reserve(claims, call.tenant.name, priority=plan.priority)
        except LimitReachedError as error:
            calls.tally.note(call.tenant.name, error.decision)
            error.limit_headers = limit_headers(error.decision, call.record.dialect, self._wall())
            raise


class _Call:
    """A model call on its way through the limits."""

    __slots__ = ("estimate", "record", "request", "tenant")

    def __init__(self, request: ModelRequest, tenant: Tenant, record: CallRecord) -> None:
        self.request = request
        self.tenant = tenant
        self.record = record
        self.estimate: Estimate | None = None


def _price(calls: CallLimits, plan: Plan, call: _Call) -> int | None:
    estimate = call.estimate
    if estimate is None or calls.pricing is None or not plan.needs_price:
        return None
    return calls.pricing.estimate(
        call.request, input_tokens=estimate.input_tokens, output_tokens=estimate.output_tokens
    )


async def _settle(calls: CallLimits, reservation: Reservation, call: _Call, error: BaseException | None) -> None:
    """Give back what was not used: everything where the provider failed, the rest where it answered."""
    found = settlement_of(call.record, call.estimate, error)
    usage = found.usage
    if found.ending is Ending.REFUND:
        await reservation.cancel()
    elif usage is None:
        await reservation.settle()
    else:
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        await reservation.settle(tokens=tokens, spend=_cost(calls, call, usage))
    if error is None and call.estimate is not None and call.record.usage is not None:
        calls.estimator.learn(call.request, call.tenant.name, call.estimate, call.record.usage)


def _cost(calls: CallLimits, call: _Call, usage: Usage) -> int | None:
    return None if calls.pricing is None else calls.pricing.cost(call.record, usage)
