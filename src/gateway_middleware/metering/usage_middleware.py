"""Metering for an application that knows nothing of the gateway: usage is read from the answers that it gives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.metering.call_journal import CallIds, recorded
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, UsageSource
from gateway_middleware.metering.usage_reader import AnswerReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Message, Receive, Scope, Send
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.metering.call_journal import CallJournal
    from gateway_middleware.metering.usage_event import Appraise

_MAX_SURFACE = 128
"""Characters of a path that are written into an event."""


class UsageMiddleware:
    """Writes one usage event for each answer of an OpenAI- or Anthropic-compatible application that tells its usage.

    `journal` is a `Journal` that the host enters (`async with journal:` in its lifespan): before that, and after,
    metered requests fail with `JournalUnavailableError`. `tenant_of` says who pays for a request; None: nobody, and it
    passes unmetered. Answers pass untouched. `appraise` puts a price on an event, `on_event` is shown each, `wall` is
    seconds since the epoch.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        journal: CallJournal,
        tenant_of: Callable[[Scope], str | None],
        appraise: Appraise = lambda event, _: event,
        on_event: Callable[[UsageEvent], None] = lambda _: None,
        wall: Clock = time.time,
    ) -> None:
        if not hasattr(journal, "open") or not callable(tenant_of):
            raise TypeError("journal: expected a Journal; tenant_of: expected a function of the scope")
        self.app = app
        self._journal = journal
        self._tenant_of = tenant_of
        self._appraise = appraise
        self._on_event = on_event
        self._wall = wall
        self._ids = CallIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = self._tenant_of(scope) if scope["type"] == "http" else None
        await (self.app(scope, receive, send) if tenant is None else self._metered(tenant, scope, receive, send))

    async def _metered(self, tenant: str, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._new(tenant, scope)
        entry = self._journal.open(call)
        if entry is not None and entry.written is not None:
            await recorded(self._journal, call.id, entry)
        reply = _Reply(send)
        try:
            await self.app(scope, receive, reply.send)
        finally:
            self._close(call, reply)

    def _new(self, tenant: str, scope: Scope) -> OpenCall:
        call_id = self._ids.next()
        return OpenCall(
            id=call_id,
            time=self._wall(),
            tenant=tenant,
            provider="application",
            deployment="application",
            model="unknown",
            surface=scope["path"][:_MAX_SURFACE],
            request_id=call_id,
        )

    def _close(self, call: OpenCall, reply: _Reply) -> None:
        event = reply.event_of(call)
        if event is None:
            self._journal.void(call.id)
            return
        event = self._appraise(event, None)
        self._journal.close(event)
        self._on_event(event)


class _Reply:
    """What passes on its way to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._reader = AnswerReader(is_stream=False)
        self._status = 0
        self._is_ended = False

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            types = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._reader = AnswerReader(is_stream=bool(types) and types[0].startswith(b"text/event-stream"))
        elif message["type"] == "http.response.body":
            self._reader.feed(message.get("body", b""))
            self._is_ended = not message.get("more_body", False)
        return self._send(message)

    def event_of(self, call: OpenCall) -> UsageEvent | None:
        """What the call used; None where the answer does not tell."""
        reading = self._reader.finish()
        if reading.usage is None:
            return None
        model = reading.model or call.model
        return UsageEvent.of(
            msgspec.structs.replace(call, model=model, is_stream=self._reader.is_stream),
            outcome="success" if self._is_ended else "client_disconnect",
            usage=reading.usage,
            usage_source=UsageSource.PROVIDER if self._is_ended else UsageSource.PARTIAL,
            model_served=reading.model,
            status=self._status,
            raw_usage=reading.raw_usage,
        )
