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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from gateway_middleware.core.domain import Usage
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
_CALL_LABELS = ("surface", "provider", "model")


class _Series:
    """All counters of one (tenant, provider, model, surface)."""

    __slots__ = ("duration", "first_token", "outcomes", "overhead", "tokens")

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {}
        self.duration = Histogram(DURATION_BUCKETS)
        self.first_token = Histogram(FIRST_TOKEN_BUCKETS)
        self.overhead = Histogram(OVERHEAD_BUCKETS)
        self.tokens = dict.fromkeys(_TOKEN_TYPES, 0)

    def count_usage(self, usage: Usage) -> None:
        tokens = self.tokens
        tokens["input"] += usage.input_tokens or 0
        tokens["output"] += usage.output_tokens or 0
        tokens["cached_input"] += usage.cached_input_tokens or 0
        tokens["cache_write"] += usage.cache_write_tokens or 0
        tokens["reasoning"] += usage.reasoning_tokens or 0


class CallMetrics(Collector):
    """Counts calls that have ended. `models` gives the names that may become label values."""

    def __init__(self, models: Callable[[], frozenset[str]]) -> None:
        self._models = models
        self._series: dict[tuple[str, str, str, str], _Series] = {}
        self._tenant = BoundedNames()
        self._refused: dict[tuple[str, ...], int] = {}

    def observe(self, record: CallRecord) -> None:
        """Count one call."""
        tenant, outcome = self._tenant(record.tenant or ""), record.outcome or Outcome.GATEWAY_ERROR
        if record.surface is None or not record.attempts:
            key = (tenant, record.error_code or outcome.value)
            if record.error_code is not None:
                self._refused[key] = self._refused.get(key, 0) + 1
            return
        model = record.route if record.route in self._models() else "other"
        labels = (tenant, record.attempts[-1].deployment.provider, model, record.surface.label)
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series()
        _count(series, record, outcome)

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        rows = self._series.items()
        yield REQUESTS.family({(*k, o.value): count for k, series in rows for o, count in series.outcomes.items()})
        yield TOKENS.family({(*k, kind): count for k, series in rows for kind, count in series.tokens.items()})
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


def _count(series: _Series, record: CallRecord, outcome: Outcome) -> None:
    series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
    series.overhead.observe(record.attempts[0].started - record.started)
    if record.ended is not None:
        series.duration.observe(record.ended - record.started, record.trace_id)
    if record.first_byte is not None and record.is_stream and outcome is Outcome.SUCCESS:
        series.first_token.observe(record.first_byte - record.started)
    usage = record.usage
    if usage is not None:
        series.count_usage(usage)
