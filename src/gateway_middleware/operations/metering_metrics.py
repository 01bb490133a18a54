"""Prometheus metrics of metering: events by source, cost, and how far delivery is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.core import Metric


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
    """`gauges` are further values by metric name, with their help text."""

    def __init__(self, sums: Sums, gauges: Callable[[], Mapping[str, tuple[str, float]]]) -> None:
        self._sums = sums
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        events = CounterMetricFamily(
            "model_gateway_usage_events", "Usage events by where their numbers come from.", labels=("source",)
        )
        for source, count in self._sums.sources.items():
            events.add_metric((source,), count)
        costs = CounterMetricFamily(
            "model_gateway_usage_cost_usd", "Cost of metered calls, US dollars.", labels=("tenant", "provider")
        )
        for key, dollars in self._sums.costs.items():
            costs.add_metric(key, float(dollars))
        unpriced = CounterMetricFamily(
            "model_gateway_usage_unpriced", "Usage events without a known price.", value=self._sums.unpriced
        )
        yield from (events, costs, unpriced)
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, text, value=value)
