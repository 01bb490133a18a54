"""Prometheus metric of routes that are to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from gateway_middleware.operations.metric import Aggregation, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

SUNSET = Gauge(
    "model_gateway_route_sunset_timestamp_seconds",
    "When a route ends, in seconds since the epoch; only routes with a `sunset`.",
    labels=("model",),
    aggregation=Aggregation.MAX,
)


class SunsetMetrics(Collector):
    """`sunsets` are the ends of routes, by their names."""

    def __init__(self, sunsets: Callable[[], Mapping[str, float]]) -> None:
        self._sunsets = sunsets

    def collect(self) -> Iterable[Metric]:
        """The metric; nothing while no route is to end."""
        sunsets = self._sunsets()
        if sunsets:
            yield SUNSET.family({(name,): end for name, end in sunsets.items()})
