"""What one call has used and cost, as `/v1/usage/{request_id}` tells it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.errors import PathNotFoundError
from gateway_middleware.metering.delivery import cloudevents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway_middleware.metering.usage_event import UsageEvent


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
        "attempts": [cloudevents.document(event) for event in events],
    }


def not_here(request_id: str) -> PathNotFoundError:
    return PathNotFoundError(
        f"Nothing is known here of a call `{request_id}` of yours: it was another server's, has used nothing, is under "
        "way, or its usage events have been delivered.",
        code="not_here",
    )
