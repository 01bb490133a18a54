"""Circuit breaking: of a model call over the deployments of its route, and of any ASGI application by status."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway_middleware.breaker.hedge import attempt_scope, correct_outcome
from gateway_middleware.breaker.per_key import KeyGuard, is_server_failure, service_unavailable
from gateway_middleware.breaker.selection import affinity_key
from gateway_middleware.core.asgi import UntilDisconnect, Watchtower
from gateway_middleware.core.domain import Balance
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.breaker.failover import Failover, Leg, Walk
    from gateway_middleware.breaker.hedge import Hedge
    from gateway_middleware.breaker.per_key import OnReject
    from gateway_middleware.breaker.state.policy import BreakerPolicy
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.asgi import ASGIApp, Connection, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, ModelRequest
    from gateway_middleware.core.record import CallRecord

_PROMPTS = ("instructions", "system", "tools", "messages", "input", "prompt")


class CircuitBreakerMiddleware:
    """Lets a call through to where it is likely to be answered, and learns from how that ends.

    In the gateway it gets a `failover`: model calls (REQUEST in the scope) are tried at one deployment of their route
    after another, one inner call for each attempt, for as long as nothing has been sent to the client. Raises
    `CircuitOpenError`, `CoolingDownError`, and what the last attempt raised.

    Alone on a foreign application it gets a `key`: calls are guarded by one breaker for each `key(scope)`, judged by
    the status of their answers (see `KeyGuard`, which `guard` gives for looking, resetting and forcing). A key of None
    lets the call pass. A refusal is answered with the status, headers and body that `on_reject` makes of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        failover: Failover | None = None,
        hedge: Hedge | None = None,
        key: Callable[[Scope], str | None] | None = None,
        on_reject: OnReject = service_unavailable,
        policy: BreakerPolicy | None = None,
        is_failure: Callable[[int], bool] = is_server_failure,
        on_transition: Callable[[Transition], None] | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self.app = app
        self._failover = failover
        self._hedge = hedge
        self._tower = Watchtower()
        self.guard = KeyGuard(
            key or (lambda _: None),
            policy=policy,
            on_reject=on_reject,
            is_failure=is_failure,
            on_transition=on_transition,
            clock=clock,
            wall=wall,
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        request = REQUEST.peek(scope)
        if request is None or self._failover is None:
            return self.guard(self.app, scope, receive, send)
        return self._call(self._failover, request, (scope, receive, send))

    async def _call(self, failover: Failover, request: ModelRequest, connection: Connection) -> None:
        scope, route = connection[0], request.route
        record = RECORD.get(scope)
        affinity = _affinity(scope, request) if route.balance is Balance.AFFINITY else None
        walk = failover.begin(route, started=record.started, affinity=affinity)
        leg = walk.first()
        if self._hedge is not None and route.hedge_after is not None:
            following = await self._hedge.first(self.app, walk, leg, connection)
        else:
            following = await self._attempt(walk, leg, record, connection)
        while following is not None:
            following = await self._attempt(walk, following, record, connection)

    async def _attempt(self, walk: Walk, leg: Leg, record: CallRecord, connection: Connection) -> Leg | None:
        """One inner call. Returns the next leg, or None when the call has its answer."""
        scope, receive, send = connection
        try:
            if leg.wait > 0:
                with UntilDisconnect(receive, self._tower):
                    await asyncio.sleep(leg.wait)
            await self.app(attempt_scope(leg, scope), receive, send)
        except BaseException as error:
            following = walk.failed(leg, error, can_move=record.first_byte is None)
            correct_outcome(record, error)
            if following is None:
                raise
            # Its frames hold this one: with them it would be a cycle.
            error.__traceback__ = None
            return following
        walk.succeeded(leg, record.attempts[-1] if record.attempts else None)
        return None


def _affinity(scope: Scope, request: ModelRequest) -> bytes:
    tenant, fields = TENANT.peek(scope), request.fields
    cache_key = fields.get("prompt_cache_key")
    prompt = b"".join(bytes(fields[name])[:1024] for name in _PROMPTS if name in fields)
    return affinity_key(
        "" if tenant is None else tenant.name,
        cache_key=None if cache_key is None else bytes(cache_key),
        prompt=prompt or request.body,
        prefix=4096,
    )
