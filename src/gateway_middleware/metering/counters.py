"""Sums of usage events, for metrics."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from gateway_middleware.core.bounded import BoundedNames

if TYPE_CHECKING:
    from gateway_middleware.metering.usage_event import UsageEvent

_BATCH = 64


class UsageCounters:
    """Counts events in batches; whoever reads is brought up to date. Tenants beyond a thousand are `other`."""

    def __init__(self) -> None:
        self._new: list[UsageEvent] = []
        self._name = BoundedNames()
        self._sources: dict[str, int] = {}
        self._costs: dict[tuple[str, str], Decimal] = {}
        self._unpriced = 0

    def note(self, event: UsageEvent) -> None:
        """Take an event."""
        self._new.append(event)
        if len(self._new) >= _BATCH:
            self._refresh()

    def _refresh(self) -> None:
        events, self._new = self._new, []
        for event in events:
            self._sources[event.usage_source] = self._sources.get(event.usage_source, 0) + 1
            if event.cost is None:
                self._unpriced += 1
            else:
                key = (self._name(event.tenant), event.provider)
                self._costs[key] = self._costs.get(key, Decimal(0)) + Decimal(event.cost)

    @property
    def sources(self) -> dict[str, int]:
        """Events by where their numbers come from."""
        self._refresh()
        return self._sources

    @property
    def costs(self) -> dict[tuple[str, str], Decimal]:
        """US dollars by tenant and provider."""
        self._refresh()
        return self._costs

    @property
    def unpriced(self) -> int:
        """Events for which no price is known."""
        self._refresh()
        return self._unpriced
