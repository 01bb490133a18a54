"""Prometheus metrics of rate limits, and the tenant's own view of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway_middleware.core.scope import TENANT
from gateway_middleware.operations.endpoints import answer

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway_middleware.core.asgi import Receive, Scope, Send
    from gateway_middleware.core.domain import Tenant

_ENCODE = msgspec.json.Encoder().encode


class Counted(Protocol):
    """What was counted of one limit of one tenant."""

    admitted: int
    refused: int
    shadowed: int
    remaining: int
    amount: int


class LimitMetrics(Collector):
    """`counts` are by tenant and limit; `gauges` are further values by metric name, with their help text."""

    def __init__(
        self,
        counts: Callable[[], Mapping[tuple[str, str], Counted]],
        gauges: Callable[[], Mapping[str, tuple[str, float]]],
    ) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        decisions = CounterMetricFamily(
            "model_gateway_limit_decisions",
            "Decisions by limit: admitted, refused, or shadowed (would have been refused).",
            labels=("tenant", "limit", "decision"),
        )
        amount = GaugeMetricFamily("model_gateway_limit", "The limit.", labels=("tenant", "limit"))
        remaining = GaugeMetricFamily(
            "model_gateway_limit_remaining", "What the last decision left.", labels=("tenant", "limit")
        )
        for (tenant, limit), counted in self._counts().items():
            decisions.add_metric((tenant, limit, "admitted"), counted.admitted)
            decisions.add_metric((tenant, limit, "refused"), counted.refused)
            decisions.add_metric((tenant, limit, "shadowed"), counted.shadowed)
            amount.add_metric((tenant, limit), counted.amount)
            remaining.add_metric((tenant, limit), counted.remaining)
        yield from (decisions, amount, remaining)
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, text, value=value)


class TenantUsage:
    """`GET /v1/usage`: what a tenant has used and what remains to it."""

    def __init__(self, make: Callable[[Tenant], Awaitable[dict[str, Any]]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, _ENCODE(await self._make(TENANT.get(scope))))
