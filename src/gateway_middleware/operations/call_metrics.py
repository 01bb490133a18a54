"""Prometheus metrics of calls: plain counters on the path, rendered by a collector at the scrape.

Names and buckets follow the OpenTelemetry conventions for generative AI where one exists. Label values come from the
configuration; a model that no route names is `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway_middleware.core.bounded import BoundedNames
from gateway_middleware.core.domain import Outcome
from gateway_middleware.operations.metric import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
TOKEN_BUCKETS = tuple(float(4**i) for i in range(14))
OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_TOKEN_TYPES = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cached_input", "cached_input_tokens"),
    ("cache_write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
)
Bucket: TypeAlias = "tuple[str, float] | tuple[str, float, Exemplar]"
"""Bound, cumulative count, and a trace that fell into it."""
_CALL_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class Histogram:
    """A cumulative histogram in plain attributes."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Count one value; the last trace of each bucket is kept as its example."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if trace_id is not None:
            self.exemplars[bucket] = Exemplar({"trace_id": trace_id}, value)

    def buckets(self) -> list[Bucket]:
        """Cumulative buckets as prometheus_client takes them."""
        below, rows = 0, list[Bucket]()
        for i, (bound, count) in enumerate(zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True)):
            below += count
            example = self.exemplars.get(i)
            rows.append((bound, float(below)) if example is None else (bound, float(below), example))
        return rows


class _Series:
    """All counters of one (tenant, provider, model, surface)."""

    __slots__ = ("duration", "first_token", "outcomes", "overhead", "token_histograms", "tokens")

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {}
        self.duration = Histogram(DURATION_BUCKETS)
        self.first_token = Histogram(FIRST_TOKEN_BUCKETS)
        self.overhead = Histogram(OVERHEAD_BUCKETS)
        self.tokens = dict.fromkeys((kind for kind, _ in _TOKEN_TYPES), 0)
        self.token_histograms = {kind: Histogram(TOKEN_BUCKETS) for kind in ("input", "output")}

    def count_usage(self, usage: Usage) -> None:
        for kind, field in _TOKEN_TYPES:
            value = getattr(usage, field)
            if value is not None:
                self.tokens[kind] += value
                if kind in self.token_histograms:
                    self.token_histograms[kind].observe(value)


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
        duration = _family("gen_ai_server_request_duration_seconds", "Duration of a call, seconds.", _CALL_LABELS)
        first = _family(
            "gen_ai_server_time_to_first_token_seconds", "Time to the first content, seconds.", _CALL_LABELS
        )
        usage_labels = (*_CALL_LABELS, "gen_ai_token_type")
        tokens = _family("gen_ai_client_token_usage_tokens", "Tokens of a call.", usage_labels)
        overhead = _family("model_gateway_overhead_seconds", "Time spent before the provider was asked.", _CALL_LABELS)
        for labels, series in self._merged().items():
            _add(duration, labels, series.duration)
            _add(first, labels, series.first_token)
            _add(overhead, labels, series.overhead)
            for kind, histogram in series.token_histograms.items():
                _add(tokens, (*labels, kind), histogram)
        return duration, first, overhead, tokens

    def _merged(self) -> dict[tuple[str, str, str], _Series]:
        """Histograms without the tenant label: fifty series for each tenant would be too many."""
        merged: dict[tuple[str, str, str], _Series] = {}
        for (_, provider, model, surface), series in self._series.items():
            into = merged.setdefault((surface, provider, model), _Series())
            _merge(into.duration, series.duration)
            _merge(into.first_token, series.first_token)
            _merge(into.overhead, series.overhead)
            for kind, histogram in series.token_histograms.items():
                _merge(into.token_histograms[kind], histogram)
        return merged


def _count(series: _Series, record: CallRecord, outcome: Outcome) -> None:
    series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
    series.overhead.observe(record.attempts[0].started - record.started)
    if record.ended is not None:
        series.duration.observe(record.ended - record.started, record.trace_id)
    if record.first_byte is not None and record.is_stream and outcome is Outcome.SUCCESS:
        series.first_token.observe(record.first_byte - record.started)
    if record.usage is not None:
        series.count_usage(record.usage)


def _family(name: str, text: str, labels: Sequence[str]) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=labels)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    if any(histogram.counts):
        family.add_metric(labels, buckets=histogram.buckets(), sum_value=histogram.total)


def _merge(into: Histogram, other: Histogram) -> None:
    into.counts = [a + b for a, b in zip(into.counts, other.counts, strict=True)]
    into.total += other.total
    into.exemplars |= other.exemplars
