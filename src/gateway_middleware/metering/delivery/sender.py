"""Sends batches of usage events, in parts where need be, and takes them off the store once the sink has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering import audit_event, budget_event
from gateway_middleware.metering.audit_event import AuditEvent
from gateway_middleware.metering.budget_event import BudgetEvent
from gateway_middleware.metering.delivery import cloudevents
from gateway_middleware.metering.delivery.backoff import Backoff, BatchSize
from gateway_middleware.metering.delivery.responses import SinkResponse
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.delivery.state import DeliveryHealth
from gateway_middleware.metering.kept_event import KeptEvent
from gateway_middleware.metering.usage_event import EVENT_TYPE, sibling_type

_log = logging.getLogger("gateway_middleware")
_MESSAGES: dict[DeliveryHealth, tuple[int, str]] = {
    "ok": (logging.WARNING, "Usage events are delivered again"),
    "failing": (logging.WARNING, "Usage events cannot be delivered (%s): they are kept, and sent again"),
    "misconfigured": (logging.ERROR, "Usage events are not taken from this gateway (%s): check address and token"),
}


class EventStore(Protocol):
    """Where events wait. Its calls may block: each is made in a thread, and several may be made at a time."""

    def pending(self, limit: int, *, exclude: frozenset[str]) -> Sequence[KeptEvent]:
        """The oldest that are neither delivered nor dead, without those whose id is in `exclude`."""
        ...

    def delivered(self, ids: Sequence[str], /) -> None:
        """They need not be kept any more."""
        ...

    def dead(self, event_id: str, reason: str, /) -> None:
        """It will never be taken: keep it apart, with the reason."""
        ...


class EncodedEvent(msgspec.Struct, frozen=True):
    """An event as it is sent; `time` is that of the usage event."""

    id: str
    time: float
    encoded: bytes


class Sender:
    """One batch after the other, whatever becomes of it. `source` names the gateway and never changes.

    `event_type` and `dataschema` are those of CloudEvents.
    `backoff` is told of every failure and `batch` of every size; `health` and the figures beside it are of this moment:
    `last_success` is seconds since the epoch, `lag` how many seconds lay between the time of the oldest event of the
    last batch that was taken and that moment. Callbacks run in the event loop and must not raise.
    """

    def __init__(
        self,
        store: EventStore,
        sink: SinkClient,
        *,
        source: str,
        event_type: str = EVENT_TYPE,
        dataschema: str | None = None,
        backoff: Backoff,
        batch: BatchSize,
        wall: Clock,
        on_health: Callable[[DeliveryHealth], None],
        on_dead: Callable[[str, str], None],
    ) -> None:
        self.health: DeliveryHealth = "ok"
        self.delivered = 0
        self.dead = 0
        self.last_success: float | None = None
        self.lag: float | None = None
        self.last_error: str | None = None
        self._store = store
        self._sink = sink
        self._encode_usage = partial(cloudevents.encode, source=source, event_type=event_type, dataschema=dataschema)
        self._encode_budget = partial(
            budget_event.cloud_event, source=source, event_type=sibling_type(event_type, "budget")
        )
        self._encode_audit = partial(
            audit_event.cloud_event, source=source, event_type=sibling_type(event_type, "audit")
        )
        self._backoff = backoff
        self._batch = batch
        self._wall = wall
        self._on_health = on_health
        self._on_dead = on_dead

    def _encode(self, event: KeptEvent) -> bytes:
        if isinstance(event, BudgetEvent):
            return self._encode_budget(event)
        if isinstance(event, AuditEvent):
            return self._encode_audit(event)
        return self._encode_usage(event)

    async def send(self, events: Sequence[KeptEvent]) -> None:
        """Send these events. Raises what the store raises; all that it did not take back is sent again another time."""
        encoded = []
        for event in events:
            try:
                encoded.append(EncodedEvent(event.id, event.time, self._encode(event)))
            except (ValueError, OverflowError, OSError, TypeError) as error:
                await self._bury(event.id, f"cannot be encoded ({type(error).__name__})")
        if encoded:
            await self._send(encoded)

    def store_failed(self, error: Exception) -> None:
        """The store could not be read or written."""
        self._fail(self._backoff.round, f"spool: {type(error).__name__}")

    async def _send(self, events: Sequence[EncodedEvent]) -> bool:
        """Send a batch, in parts where need be. False when the rest has to wait."""
        began_in = self._backoff.round
        reply = await self._sink.post(cloudevents.join(event.encoded for event in events))
        response, is_one = reply.response, len(events) == 1
        if response in {SinkResponse.RETRY, SinkResponse.MISCONFIGURED}:
            health: DeliveryHealth = "failing" if response is SinkResponse.RETRY else "misconfigured"
            self._fail(began_in, reply.reason, health=health, retry_after=reply.retry_after)
            return False
        if response is SinkResponse.ACCEPTED or (is_one and response is SinkResponse.DUPLICATE):
            await self._settle(events, began_in)
            return True
        if response is SinkResponse.TOO_LARGE:
            self._batch.too_large(len(events))
        if is_one:
            await self._bury(events[0].id, f"{reply.reason}: {reply.excerpt}" if reply.excerpt else reply.reason)
            self._recover(began_in)
            return True
        half = len(events) // 2
        return await self._send(events[:half]) and await self._send(events[half:])

    async def _settle(self, events: Sequence[EncodedEvent], began_in: int) -> None:
        await asyncio.to_thread(self._store.delivered, [event.id for event in events])
        self._batch.taken(len(events))
        self.delivered += len(events)
        self.last_success = self._wall()
        self.lag = self.last_success - min(event.time for event in events)
        self._recover(began_in)

    async def _bury(self, event_id: str, reason: str) -> None:
        await asyncio.to_thread(self._store.dead, event_id, reason)
        self.dead += 1
        if self.dead & (self.dead - 1) == 0:  # each time they have doubled
            _log.error("Usage events were refused for good and are kept apart: %d so far", self.dead)
        self._on_dead(event_id, reason)

    def _fail(
        self, began_in: int, reason: str, *, health: DeliveryHealth = "failing", retry_after: float = 0.0
    ) -> None:
        self._backoff.failed(began_in, retry_after=retry_after)
        self.last_error = reason
        self._become(health, reason)

    def _recover(self, began_in: int) -> None:
        if self._backoff.succeeded(began_in):
            self._become("ok", "")

    def _become(self, health: DeliveryHealth, reason: str) -> None:
        if health != self.health:
            self.health = health
            level, message = _MESSAGES[health]
            _log.log(level, message, *[reason] if reason else [])
            self._on_health(health)
