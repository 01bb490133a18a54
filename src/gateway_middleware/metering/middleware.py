"""Metering: every attempt is on disk before its provider is asked, and ends in one usage event, whatever happens."""

from __future__ import annotations

import secrets
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway_middleware.core.scope import METER, RECORD, REQUEST, TENANT
from gateway_middleware.metering.closing import event_of
from gateway_middleware.metering.usage_event import OpenCall

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, ModelRequest, Tenant
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.metering.closing import Appraise
    from gateway_middleware.metering.usage_event import UsageEvent
    from gateway_middleware.metering.usage_reader import UsageReader


_BYTES_A_TOKEN = 4
"""For calls whose end nobody sees: whatever is estimated closer is estimated at the end."""


class CallJournal(Protocol):
    """Where calls are written down."""

    def open(self, entry: OpenCall) -> None:
        """Before the provider is asked. Raises `UnavailableError`: then it must not be."""
        ...

    def close(self, event: UsageEvent) -> None:
        """What was used. Never raises."""
        ...

    def void(self, call_id: str) -> None:
        """Nothing that anybody bills. Never raises."""
        ...


class MeteringMiddleware:
    """Sets METER, through which dispatch announces each attempt, and closes what was opened when the call has ended.

    `appraise` puts a price on an event; `estimate_input` says how many tokens a request is, where the provider does not
    come to say; `is_stopping` whether the gateway ends calls itself; `on_event` is shown each event.

    Alone on a foreign OpenAI- or Anthropic-compatible application it gets `tenant_of`: who pays for a request (None:
    nobody, it passes), and reads the usage from the answers that it relays.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        journal: CallJournal,
        appraise: Appraise = lambda event, _: event,
        estimate_input: Callable[[ModelRequest, str], int] = lambda request, _: len(request.body) // _BYTES_A_TOKEN,
        is_stopping: Callable[[], bool] = lambda: False,
        on_event: Callable[[UsageEvent], None] = lambda _: None,
        tenant_of: Callable[[Scope], str | None] | None = None,
        wall: Clock = time.time,
    ) -> None:
        self.app = app
        self.journal = journal
        self.appraise = appraise
        self.estimate_input = estimate_input
        self.is_stopping = is_stopping
        self.on_event = on_event
        self.wall = wall
        self._foreign = _foreign(self, tenant_of) if tenant_of is not None else None
        self._prefix, self._numbers = secrets.token_hex(8), count(1)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        request = REQUEST.peek(scope)
        if request is not None:
            return self._metered(request, scope, receive, send)
        if self._foreign is not None:
            return self._foreign(self.app, scope, receive, send)
        return self.app(scope, receive, send)

    async def _metered(self, request: ModelRequest, scope: Scope, receive: Receive, send: Send) -> None:
        meter = CallMeter(self, self.next_id(), request, TENANT.get(scope), RECORD.get(scope))
        METER.set(scope, meter)
        try:
            await self.app(scope, receive, send)
        finally:
            meter.conclude()

    def next_id(self) -> str:
        """An id that no other call of any process has. Nothing that a client sends is part of it."""
        return f"{self._prefix}{next(self._numbers):x}"

    def finish(self, call: OpenCall, attempt: Attempt) -> None:
        """Close one attempt."""
        event = event_of(call, attempt, is_stopping=self.is_stopping())
        if event is None:
            self.journal.void(call.id)
        else:
            self.emit(self.appraise(event, attempt.service_tier))

    def emit(self, event: UsageEvent) -> None:
        """Write an event down and show it."""
        self.journal.close(event)
        self.on_event(event)


def _foreign(metering: MeteringMiddleware, tenant_of: Callable[[Scope], str | None]) -> UsageReader:
    from gateway_middleware.metering.usage_reader import UsageReader

    return UsageReader(metering, tenant_of)


class CallMeter:
    """The attempts of one call."""

    __slots__ = ("_begun", "_id", "_metering", "_record", "_request", "_tenant")

    def __init__(
        self, metering: MeteringMiddleware, call_id: str, request: ModelRequest, tenant: Tenant, record: CallRecord
    ) -> None:
        self._metering = metering
        self._id = call_id
        self._request = request
        self._tenant = tenant
        self._record = record
        self._begun: list[tuple[OpenCall, Attempt]] = []

    def begin(self, attempt: Attempt) -> None:
        """Write down that a provider is about to be asked."""
        metering, request, deployment = self._metering, self._request, attempt.deployment
        number = len(self._begun) + 1
        call = OpenCall(
            id=f"{self._id}-{number}",
            time=metering.wall(),
            tenant=self._tenant.name,
            provider=deployment.provider,
            deployment=deployment.key,
            model=request.model,
            surface=request.surface.label,
            request_id=self._record.request_id,
            attempt=number,
            key_id=self._tenant.key_id,
            route=request.route.name if request.route.is_configured else None,
            is_stream=request.is_stream,
            input_tokens=len(request.body) // _BYTES_A_TOKEN,
        )
        metering.journal.open(call)
        self._begun.append((call, attempt))

    def conclude(self) -> None:
        """The call has ended; an answer that is still read on for its usage is closed when that has ended too."""
        for call, attempt in self._begun:
            if attempt.drained is None:
                self._finish(call, attempt)
            else:
                attempt.drained.add_done_callback(partial(self._finish, call, attempt))

    def _finish(self, call: OpenCall, attempt: Attempt, _: asyncio.Future[None] | None = None) -> None:
        if attempt.usage is None or attempt.usage.input_tokens is None:
            # Only now is it worth while to look closer than at the size.
            tokens = self._metering.estimate_input(self._request, self._tenant.name)
            call = msgspec.structs.replace(call, input_tokens=tokens)
        self._metering.finish(call, attempt)
