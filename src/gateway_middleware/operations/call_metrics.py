"""Prometheus metrics of calls: plain counters on the path, rendered by a collector at the scrape.

They say what callers see of the gateway; `attempt_metrics` says what the gateway sees of providers. Label values come
from the configuration; a model that no route names is `other`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from gateway_middleware.core.bounded import BoundedNames
from gateway_middleware.core.domain import Outcome
from gateway_middleware.operations.histogram import DURATION_BUCKETS, Histogram, histogram_family
from gateway_middleware.operations.metric import Counter
from gateway_middleware.operations.usage_sums import UsageSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.core import Metric

    from gateway_middleware.core.domain import Surface
    from gateway_middleware.core.record import CallRecord

REQUESTS = Counter(
    "model_gateway_requests",
    "Calls that reached a provider, by outcome.",
    ("tenant", "provider", "model", "surface", "outcome"),
)
TOKENS = Counter(
    "model_gateway_tokens",
    "Tokens that providers reported, by type.",
    ("tenant", "provider", "model", "surface", "type"),
)
REFUSALS = Counter(
    "model_gateway_refusals", "Calls that the gateway answered itself, by error code.", ("tenant", "code")
)
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_TOKEN_TYPES = ("input", "output", "cached_input", "cache_write", "reasoning")
"""In the order of `usage_sums.FIELDS`."""
_CALL_LABELS = ("surface", "provider", "model")


class _Series:
    """All counters of one (tenant, provider, model, surface)."""

    __slots__ = ("duration", "first_token", "outcomes", "overhead", "tokens")

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {}
        self.duration = Histogram(DURATION_BUCKETS)
        self.first_token = Histogram(FIRST_TOKEN_BUCKETS)
        self.overhead = Histogram(OVERHEAD_BUCKETS)
        self.tokens = UsageSums()

    def count(self, records: Sequence[CallRecord]) -> None:
        for outcome in [record.outcome or Outcome.GATEWAY_ERROR for record in records]:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.overhead.observe_all([record.attempts[0].started - record.started for record in records])
        self._count_durations([record for record in records if record.ended is not None])
        self.first_token.observe_all(
            [
                record.first_byte - record.started
                for record in records
                if record.is_stream and record.first_byte is not None and record.outcome is Outcome.SUCCESS
            ]
        )
        self.tokens.add([usage for record in records if (usage := record.usage) is not None])

    def _count_durations(self, records: Sequence[CallRecord]) -> None:
        self.duration.observe_all([_duration(record) for record in records if record.trace_id is None])
        for record in records:
            if record.trace_id is not None:
                self.duration.observe(_duration(record), record.trace_id)


def _duration(record: CallRecord) -> float:
    return (record.ended or record.started) - record.started


class CallMetrics(Collector):
    """Counts calls that have ended. `models` gives the names that may become label values."""

    def __init__(self, models: Callable[[], frozenset[str]]) -> None:
        self._models = models
        self._series: dict[tuple[str, str, str, str], _Series] = {}
        self._tenant = BoundedNames()
        self._refused: dict[tuple[str, ...], int] = {}

    def observe(self, *records: CallRecord) -> None:
        """Count calls, those of one series together."""
        together: dict[tuple[str | None, str, str | None, Surface], list[CallRecord]] = {}
        for record in records:
            if record.surface is None or not record.attempts:
                self._count_refusal(record)
            else:
                kind = (record.tenant, record.attempts[-1].deployment.provider, record.route, record.surface)
                together.setdefault(kind, []).append(record)
        for kind, alike in together.items():
            self._series_of(*kind).count(alike)

    def _count_refusal(self, record: CallRecord) -> None:
        if record.error_code is not None:
            key = (self._tenant(record.tenant or ""), record.error_code)
            self._refused[key] = self._refused.get(key, 0) + 1

    def _series_of(self, tenant: str | None, provider: str, route: str | None, surface: Surface) -> _Series:
        model = route if route is not None and route in self._models() else "other"
        labels = (self._tenant(tenant or ""), provider, model, surface.label)
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series()
        return series

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        rows = self._series.items()
        yield REQUESTS.family({(*k, o.value): count for k, series in rows for o, count in series.outcomes.items()})
        yield TOKENS.family(
            {
                (*labels, kind): count
                for labels, series in rows
                for kind, count in zip(_TOKEN_TYPES, series.tokens.sums.values(), strict=True)
            }
        )
        yield REFUSALS.family(self._refused)
        yield from self._histograms()

    def _histograms(self) -> Iterable[Metric]:
        rows = self._merged()
        for name, text, part in (
            ("call_duration", "Duration of a call, seconds.", {k: series.duration for k, series in rows.items()}),
            ("time_to_first_token", "To the first content, seconds.", {k: s.first_token for k, s in rows.items()}),
            ("overhead", "Before the provider was asked, seconds.", {k: s.overhead for k, s in rows.items()}),
        ):
            yield histogram_family(f"model_gateway_{name}_seconds", text, _CALL_LABELS, part)

    def _merged(self) -> dict[tuple[str, ...], _Series]:
        """Histograms without the tenant label: fifty series for each tenant would be too many."""
        merged: dict[tuple[str, ...], _Series] = {}
        for (_, provider, model, surface), series in self._series.items():
            into = merged.setdefault((surface, provider, model), _Series())
            into.duration.add(series.duration)
            into.first_token.add(series.first_token)
            into.overhead.add(series.overhead)
        return merged
