"""Metering of the gateway's calls: an entry on disk before a provider is asked, one usage event for each attempt."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway_middleware.core.scope import METER, OUTBOX, RECORD, REQUEST, TENANT
from gateway_middleware.metering.call_journal import CallIds, on_disk, recorded
from gateway_middleware.metering.usage_event import STEPPED_DOWN, OpenCall, event_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock, ModelRequest, Tenant
    from gateway_middleware.core.outbox import Entry, Outbox
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.metering.call_journal import TurnJournal
    from gateway_middleware.metering.usage_event import Appraise, UsageEvent

Labels: TypeAlias = "tuple[tuple[str, str], ...]"
_BYTES_PER_TOKEN = 4
"""For calls whose end nobody sees: whatever is estimated closer is estimated at the end."""


class MeteringMiddleware:
    """Sets METER, through which dispatch announces each attempt, and closes what was opened when the call has ended.

    Where the bytes of an answer leave with `outbox`, that sees to it that the journal is written before; else it is
    written before the end of the answer is sent. `heeds_entries`: requests leave with it too, after their entry.
    `labels_of` gives the operator's labels of a provider.
    `appraise` puts a price on an event; `estimate_input` says how many tokens a tenant's request is, where the provider
    does not come to say; `on_event` is shown each event; `wall` is seconds since the epoch. For an application that is
    no gateway there is `UsageMiddleware`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        journal: TurnJournal,
        outbox: Outbox | None = None,
        heeds_entries: bool = False,
        appraise: Appraise,
        estimate_input: Callable[[ModelRequest, str], int],
        on_event: Callable[[UsageEvent], None] = lambda _: None,
        labels_of: Callable[[str], Labels] = lambda _: (),
        wall: Clock = time.time,
    ) -> None:
        self.app = app
        self.journal = journal
        self.begin = journal.enter if heeds_entries else journal.open
        self.outbox = outbox
        self.appraise = appraise
        self.estimate_input = estimate_input
        self.on_event = on_event
        self.labels_of = labels_of
        self.wall = wall
        self._ids = CallIds()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = REQUEST.peek(scope) if scope["type"] == "http" else None
        if request is None:
            return self.app(scope, receive, send)
        return self._metered(request, scope, receive, send)

    async def _metered(self, request: ModelRequest, scope: Scope, receive: Receive, send: Send) -> None:
        meter = CallMeter(self, self._ids.next(), request, TENANT.known(scope), RECORD.known(scope))
        METER.set(scope, meter)
        try:
            await self.app(scope, receive, send)
        finally:
            meter.conclude()
            if OUTBOX.peek(scope) is not self.outbox:
                self.journal.commit()
            pending = self.journal.pending
            if pending is not None:
                await on_disk(pending)

    def finish(self, call: OpenCall, attempt: Attempt) -> None:
        """Close one attempt."""
        event = event_of(call, attempt)
        if event is None:
            self.journal.void(call.id)
            return
        event = self.appraise(event, attempt.service_tier)
        self.journal.close(event)
        self.on_event(event)


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
        self._begun: list[tuple[OpenCall, Attempt, Entry | None]] = []

    def begin(self, attempt: Attempt) -> Entry | None:
        """Write down that a provider is about to be asked."""
        metering, request, deployment = self._metering, self._request, attempt.deployment
        cheaper = self._record.stepped_down
        route = cheaper or request.route
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
            route=route.name if route.is_configured else None,
            is_stream=request.is_stream,
            budget=None if cheaper is None else STEPPED_DOWN,
            decision_id=self._record.decision_id,
            labels=self._record.labels,
            provider_labels=metering.labels_of(deployment.provider),
            paid_by=deployment.payer.value,
            provider_key=deployment.key_name,
            attribution=self._record.attribution,
            input_tokens=len(request.body) // _BYTES_PER_TOKEN,
        )
        entry = metering.begin(call)
        self._begun.append((call, attempt, entry))
        return entry

    async def recorded(self, entry: Entry) -> None:
        """Wait until the entry is on a disk that is slow. Raises `UnavailableError`: then the provider is not asked."""
        call_id = next(call.id for call, _, begun in self._begun if begun is entry)
        await recorded(self._metering.journal, call_id, entry)

    def conclude(self) -> None:
        """The call has ended; an answer that is still read on for its usage is closed when that has ended too."""
        for call, attempt, entry in self._begun:
            if entry is not None and entry.fault is not None:
                continue  # no provider was asked
            if attempt.drained is None:
                self._finish(call, attempt)
            else:
                attempt.drained.add_done_callback(partial(self._finish, call, attempt))

    def _finish(self, call: OpenCall, attempt: Attempt, _: asyncio.Future[None] | None = None) -> None:
        if self._request.surface.uses_tokens and (attempt.usage is None or attempt.usage.input_tokens is None):
            # Only now is it worth while to look closer than at the size.
            tokens = self._metering.estimate_input(self._request, self._tenant.name)
            call = msgspec.structs.replace(call, input_tokens=tokens)
        self._metering.finish(call, attempt)
