"""Failover as a layer of the gateway: model calls over the deployments of their route."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway_middleware.breaker.affinity import affinity_of, key_affinity
from gateway_middleware.breaker.credentials import CallCredentials
from gateway_middleware.breaker.hedge import attempt_scope, correct_outcome
from gateway_middleware.breaker.stored_lookup import StoredLookup
from gateway_middleware.core.asgi import UntilDisconnect, Watchtower
from gateway_middleware.core.domain import Balance
from gateway_middleware.core.scope import RECORD, REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.breaker.credentials import WithCredentials
    from gateway_middleware.breaker.failover import AttemptSequence, Failover, PlannedAttempt
    from gateway_middleware.breaker.hedge import Hedge
    from gateway_middleware.core.asgi import ASGIApp, Connection, Receive, Scope, Send
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.record import CallRecord


class FailoverMiddleware:
    """Tries a model call at one deployment of its route after another, until one has answered.

    One inner call for each attempt, for as long as nothing has been sent to the client. Everything that is no model
    call (no REQUEST in the scope) passes. What is stored at a provider is asked for whatever the state of its breakers,
    unless an operator has forced them open, and tells them nothing: it says little of how models answer. `sleep` waits
    before the same deployment is asked again. Raises `CircuitOpenError`, `CoolingDownError`, and what the last attempt
    raised.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        failover: Failover,
        hedge: Hedge,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.app = app
        self._failover = failover
        self._hedge = hedge
        self._sleep = sleep
        self._tower = Watchtower()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope)
        if request is None:
            return self.app(scope, receive, send)
        if request.stored is not None:
            return StoredLookup(self.app, self._failover, request, (scope, receive, send)).run()
        return self._call(request, (scope, receive, send))

    async def _call(self, request: ModelRequest, connection: Connection) -> None:
        scope, route = connection[0], request.route
        record = RECORD.known(scope)
        affinity = affinity_of(scope, request, record) if route.balance is Balance.AFFINITY else None
        pools, own = self._failover.pools, request.client_credential
        credentials: WithCredentials = list
        if pools or own is not None:
            credentials = CallCredentials(pools, affinity=key_affinity(scope, request, record), client=own)
        sequence = self._failover.begin(
            route, body=request.body, started=record.started, affinity=affinity, credentials=credentials
        )
        planned = sequence.first()
        if route.hedge_after is not None:
            following = await self._hedge.first(self.app, sequence, planned, connection)
        else:
            following = await self._attempt(sequence, planned, record, connection)
        while following is not None:
            following = await self._attempt(sequence, following, record, connection)

    async def _attempt(
        self, sequence: AttemptSequence, planned: PlannedAttempt, record: CallRecord, connection: Connection
    ) -> PlannedAttempt | None:
        """One inner call. Returns the next attempt, or None when the call has its answer."""
        scope, receive, send = connection
        try:
            if planned.wait > 0:
                with UntilDisconnect(receive, self._tower):
                    await self._sleep(planned.wait)
            await self.app(attempt_scope(planned, scope), receive, send)
        except BaseException as error:
            following = sequence.failed(planned, error, can_move=record.first_byte is None)
            correct_outcome(record, error)
            if following is None:
                sequence.raise_cause(error)
                raise
            # Its frames hold this one: with them it would be a cycle.
            error.__traceback__ = None
            return following
        sequence.succeeded(planned, record.attempts[-1] if record.attempts else None)
        return None
