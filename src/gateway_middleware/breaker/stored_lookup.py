"""Asks for what a provider has stored: at one deployment, whatever the state of its breaker, and tells it nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.breaker.affinity import key_affinity
from gateway_middleware.breaker.credentials import CallCredentials
from gateway_middleware.breaker.failure.rules import Retry, judge, judged_for_client
from gateway_middleware.breaker.hedge import correct_outcome
from gateway_middleware.core.errors import UpstreamError, UpstreamStatusError
from gateway_middleware.core.scope import DEPLOYMENT, RECORD

if TYPE_CHECKING:
    from gateway_middleware.breaker.failover import Failover
    from gateway_middleware.core.asgi import ASGIApp, Connection
    from gateway_middleware.core.domain import Deployment, ModelRequest

_NOT_FOUND = 404


class StoredLookup:
    """One call about something that is stored. An operator who has forced the breakers open is obeyed.

    Of a provider with several keys the one is asked that has made it, and no other. Where that is not known, each is
    asked in turn until one says neither that there is no such thing nor that it may not; the first is that which other
    calls of its kind prefer.
    """

    __slots__ = ("_app", "_connection", "_failover", "_record", "_refusals", "_request")

    def __init__(self, app: ASGIApp, failover: Failover, request: ModelRequest, connection: Connection) -> None:
        self._app = app
        self._failover = failover
        self._request = request
        self._connection = connection
        self._record = RECORD.get(connection[0])
        self._refusals: list[UpstreamStatusError] = []
        """Of earlier keys. One is taken out when it is raised: its frames hold this object."""

    async def run(self) -> None:
        """Raises `CircuitOpenError`, and what the provider has said: rather why it may be there than that it is not."""
        self._failover.check_forced(self._request.route)
        *others, last = self._candidates()
        for deployment in others:
            if not await self._is_refused(deployment):
                return
        if not self._refusals:
            await self._ask(last)
        elif await self._is_refused(last):
            raise self._most_telling()

    def _candidates(self) -> list[Deployment]:
        """The one deployment, with each of its keys that may have stored it; at least one."""
        deployment, pools = self._request.route.deployments[0], self._failover.pools
        if not pools:
            return [deployment]
        affinity = key_affinity(self._connection[0], self._request, self._record)
        return CallCredentials(pools, affinity=affinity)([deployment])

    async def _is_refused(self, deployment: Deployment) -> bool:
        """Whether the provider has said what it may say otherwise to another key."""
        try:
            await self._ask(deployment)
        except UpstreamStatusError as error:
            is_of_key = judge(error, wall=self._failover.wall()).is_of_credential
            if error.upstream_status != _NOT_FOUND and not is_of_key:
                raise
            error.__traceback__ = None
            self._refusals.append(error)
            return True
        return False

    def _most_telling(self) -> UpstreamStatusError:
        refusals, self._refusals = self._refusals, []
        return next((each for each in refusals if each.upstream_status != _NOT_FOUND), refusals[0])

    async def _ask(self, deployment: Deployment) -> None:
        """One inner call; once more where a kept connection had been closed."""
        if await self._is_stale(deployment, may_repeat=True):
            await self._is_stale(deployment, may_repeat=False)

    async def _is_stale(self, deployment: Deployment, *, may_repeat: bool) -> bool:
        """One inner call. Whether it only found a connection that had been closed, and is to be repeated."""
        scope, receive, send = self._connection
        try:
            await self._app({**scope, DEPLOYMENT.slot: deployment}, receive, send)
        except UpstreamError as error:
            judgement = judge(error, wall=self._failover.wall())
            if self._request.client_credential is not None:
                judgement = judged_for_client(judgement)
            error.outcome = judgement.outcome
            correct_outcome(self._record, error)
            if may_repeat and judgement.retry is Retry.AT_ONCE and self._record.first_byte is None:
                return True
            raise
        return False
