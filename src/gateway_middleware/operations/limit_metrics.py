"""Prometheus metrics of rate limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from prometheus_client.registry import Collector

from gateway_middleware.operations.metric import Aggregation, Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DECISIONS = Counter(
    "model_gateway_limit_decisions",
    "Decisions by limit: admitted, refused, or shadowed (would have been refused).",
    ("tenant", "limit", "decision"),
)
AMOUNT = Gauge("model_gateway_limit", "The limit.", ("tenant", "limit"), aggregation=Aggregation.MAX)
REMAINING = Gauge(
    "model_gateway_limit_remaining",
    "What the last decision left.",
    ("tenant", "limit"),
    aggregation=Aggregation.MAX,
)


class Counted(Protocol):
    """What was counted of one limit of one tenant."""

    admitted: int
    refused: int
    shadowed: int
    remaining: int
    amount: int


class LimitMetrics(Collector):
    """`counts` are by tenant and limit; `further` makes the families of what else is counted of limits."""

    def __init__(
        self,
        counts: Callable[[], Mapping[tuple[str, str], Counted]],
        further: Callable[[], Iterable[Metric]],
    ) -> None:
        self._counts = counts
        self._further = further

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        counts = self._counts()
        yield DECISIONS.family(
            {
                (*key, decision): getattr(counted, decision)
                for key, counted in counts.items()
                for decision in ("admitted", "refused", "shadowed")
            }
        )
        yield AMOUNT.family({key: counted.amount for key, counted in counts.items()})
        yield REMAINING.family({key: counted.remaining for key, counted in counts.items()})
        yield from self._further()
