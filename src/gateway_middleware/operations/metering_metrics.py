"""Prometheus metrics of metering: events by source, cost, and how far delivery is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from prometheus_client.registry import Collector

from gateway_middleware.operations.metric import Counter

if TYPE_CHECKING:
    from prometheus_client.core import Metric

EVENTS = Counter("model_gateway_usage_events", "Usage events by where their numbers come from.", ("source",))
COST = Counter("model_gateway_usage_cost_usd", "Cost of metered calls, US dollars.", ("tenant", "provider"))
UNPRICED = Counter("model_gateway_usage_unpriced", "Usage events without a known price.")


class Sums(Protocol):
    """What was counted of usage events."""

    @property
    def sources(self) -> Mapping[str, int]:
        """Events by where their numbers come from."""
        ...

    @property
    def costs(self) -> Mapping[tuple[str, str], Decimal]:
        """US dollars by tenant and provider."""
        ...

    @property
    def unpriced(self) -> int:
        """Events for which no price is known."""
        ...


class MeteringMetrics(Collector):
    """`further` makes the families of what else is counted of metering."""

    def __init__(self, sums: Sums, further: Callable[[], Iterable[Metric]]) -> None:
        self._sums = sums
        self._further = further

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        yield EVENTS.family({(source,): count for source, count in self._sums.sources.items()})
        yield COST.family({key: float(dollars) for key, dollars in self._sums.costs.items()})
        yield UNPRICED.family(self._sums.unpriced)
        yield from self._further()
