"""What one call has used and cost, as `/v1/usage/{request_id}` tells it."""

from __future__ import annotations

import asyncio
import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.errors import PathNotFoundError, UnavailableError
from gateway_middleware.core.price import plain_digits
from gateway_middleware.metering.call_index.entries import call_of
from gateway_middleware.metering.delivery import cloudevents
from gateway_middleware.metering.journal.lookup import events_of_call
from gateway_middleware.metering.prices.parts import parts_of, quantities, read_prices
from gateway_middleware.redis.caller import RedisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway_middleware.metering.call_index.redis_index import CallIndex
    from gateway_middleware.metering.journal.journal import Journal
    from gateway_middleware.metering.prices.parts import Part
    from gateway_middleware.metering.usage_event import UsageEvent


_FLUSH_SECONDS = 1.0


class CallUsage:
    """Looks calls up in the journal of this server, and in the index that all replicas share."""

    def __init__(self, journal: Journal, index: CallIndex) -> None:
        self._journal = journal
        self._index = index
        self._looking = asyncio.Lock()

    async def document(self, tenant: str | None, request_id: str) -> dict[str, Any]:
        """What one call has used. `tenant` None: whosever it was.

        Raises `PathNotFoundError`, and `UnavailableError` while the journal cannot be read and the index knows nothing.
        """
        shared = await self._shared(tenant, request_id)
        try:
            async with self._looking:  # however often anybody asks: one look at a time
                own = await asyncio.to_thread(self._find, tenant, request_id)
        except sqlite3.Error as error:
            if not shared:
                raise UnavailableError("The journal cannot be read now.", retry_after=1.0) from error
            own = []
        events = of_last_call([*shared, *own])
        if not events:
            raise not_here(request_id)
        return call_document(events)

    async def _shared(self, tenant: str | None, request_id: str) -> list[UsageEvent]:
        try:
            return await self._index.find(tenant, request_id)
        except RedisError:
            return []  # what this server knows is the answer

    def _find(self, tenant: str | None, request_id: str) -> list[UsageEvent]:
        self._journal.flush_all(_FLUSH_SECONDS)
        return events_of_call(self._journal.spool.path, tenant, request_id)


def of_last_call(events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """Of what several places know of calls under one id, each event of the last call once, in their order."""
    if not events:
        return []
    last = call_of(max(events, key=lambda event: event.time).id)
    known = {event.id: event for event in events if call_of(event.id) == last}
    return sorted(known.values(), key=lambda event: event.attempt)


def call_document(events: Sequence[UsageEvent]) -> dict[str, Any]:
    """Attempts without an event have cost nothing. A sum of which a part is not known is not known."""
    first, costs = events[0], [event.cost for event in events]
    sums = {name: sum(getattr(event.usage, name) or 0 for event in events) for name in Usage.__struct_fields__}
    known = [Decimal(cost) for cost in costs if cost is not None]
    return {
        "request_id": first.request_id,
        "tenant": first.tenant,
        "model": first.model,
        "cost": f"{sum(known, Decimal(0)):f}" if len(known) == len(costs) else None,
        "currency": "USD",
        "usage": sums,
        "attempts": [_attempt(event) for event in events],
    }


def _attempt(event: UsageEvent) -> dict[str, Any]:
    """As its event has it, with the parts that its cost is made of; none, where its price is not known."""
    prices = None if event.cost is None else read_prices(bytes(event.unit_prices).decode(errors="replace"))
    parts = [] if prices is None else parts_of(prices, quantities(event.usage))
    return cloudevents.document(event) | {"cost_parts": [_part(part) for part in parts if part.cost]}


def _part(part: Part) -> dict[str, Any]:
    price = "" if part.unit_price is None else plain_digits(part.unit_price)
    return {"kind": part.kind, "quantity": part.quantity, "unit_price": price, "cost": plain_digits(part.cost)}


def not_here(request_id: str) -> PathNotFoundError:
    return PathNotFoundError(
        f"Nothing is known here of a call `{request_id}` of yours: it has used nothing, is under way, was another "
        "server's, or was made too long ago.",
        code="not_here",
    )
