"""Prometheus metrics of connections to providers, of calls under way, of refused requests and of lost log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.registry import Collector

from gateway_middleware.operations.metric import Aggregation, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

OPENED = Counter("model_gateway_upstream_connections_opened", "Connections to providers that were opened.")
REUSED = Counter("model_gateway_upstream_connections_reused", "Requests that were sent on a connection already open.")
IDLE = Gauge(
    "model_gateway_upstream_connections_idle",
    "Open connections to providers that wait for a request.",
    aggregation=Aggregation.SUM,
)
IN_FLIGHT = Gauge(
    "model_gateway_calls_in_flight",
    "Calls that are being answered, the scrape itself included.",
    aggregation=Aggregation.SUM,
)
REFUSED = Counter(
    "model_gateway_refused_requests", "Requests that were refused before any layer could see them.", ("code",)
)
LINES_DROPPED = Counter("model_gateway_log_lines_dropped", "Log lines that were lost: the output was slow, or failed.")


class Connections(Protocol):
    """What an HTTP engine counts of its connections."""

    @property
    def opened(self) -> int:
        """Connections opened since the start."""
        ...

    @property
    def reused(self) -> int:
        """Requests sent on a connection that was open already."""
        ...

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        ...


class ConnectionMetrics(Collector):
    """`connections` are those to providers."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        yield OPENED.family(self._connections.opened)
        yield REUSED.family(self._connections.reused)
        yield IDLE.family(self._connections.idle_connections)


class LogMetrics(Collector):
    """`dropped` gives the number of log lines that were lost."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterable[Metric]:
        """The metric family, for a prometheus_client registry."""
        yield LINES_DROPPED.family(self._dropped())


class InFlightMetrics(Collector):
    """`calls` gives the number of calls that are being answered."""

    def __init__(self, calls: Callable[[], int]) -> None:
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        """The metric family, for a prometheus_client registry."""
        yield IN_FLIGHT.family(self._calls())


class RefusalMetrics(Collector):
    """`counts` gives the number of refused requests by error code."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """The metric family, for a prometheus_client registry."""
        yield REFUSED.family({(code,): count for code, count in self._counts.items()})
