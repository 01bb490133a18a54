"""What the gateway sees of its providers, in OpenTelemetry's names for clients of generative AI (`gen_ai.client.*`).

One observation for each attempt. `gen_ai_request_model` is the route that was asked for; label values come from the
configuration, and a model that no route names is `other`. `provider` is the configured name, of which there may be
several of one vendor. Nobody tells the modality of tokens reliably: it is `unknown`, as the conventions want it then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.registry import Collector

from gateway_middleware.core.domain import Outcome
from gateway_middleware.core.gen_ai import operation_of
from gateway_middleware.operations.histogram import DURATION_BUCKETS, TOKEN_BUCKETS, Histogram, histogram_family
from gateway_middleware.operations.metric import Counter
from gateway_middleware.operations.usage_sums import UsageSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.core import Metric

    from gateway_middleware.core.domain import Surface
    from gateway_middleware.core.record import Attempt, CallRecord

    Key: TypeAlias = tuple[str, str, Surface]
    """Provider, model, surface."""

_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "provider")
_DURATION = "gen_ai_client_operation_duration_seconds"
_USAGE = tuple(
    (field, Counter(f"gen_ai_client_inference_usage_{name}", text, (*_LABELS, "gen_ai_token_modality")))
    for field, name, text in (
        ("input_tokens", "input_tokens", "Input tokens used, cached ones included."),
        ("output_tokens", "output_tokens", "Output tokens used, those of reasoning included."),
        ("cached_input_tokens", "cache_read_input_tokens", "Input tokens that came from the provider's cache."),
        ("cache_write_tokens", "cache_write_input_tokens", "Input tokens that were written to the provider's cache."),
        ("reasoning_tokens", "reasoning_output_tokens", "Output tokens of reasoning."),
    )
)


class _Series:
    """All figures of one key."""

    __slots__ = ("durations", "input_tokens", "output_tokens", "usage")

    def __init__(self) -> None:
        self.durations: dict[str, Histogram] = {}
        """By `error.type`, which is empty where an attempt went well."""
        self.usage = UsageSums()
        self.input_tokens = Histogram(TOKEN_BUCKETS)
        self.output_tokens = Histogram(TOKEN_BUCKETS)

    def count(self, attempts: Sequence[Attempt]) -> None:
        self._count_durations(attempts)
        usages = [attempt.usage for attempt in attempts if attempt.usage is not None]
        self.usage.add(usages)
        self.input_tokens.observe_all([usage.input_tokens for usage in usages if usage.input_tokens is not None])
        self.output_tokens.observe_all([usage.output_tokens for usage in usages if usage.output_tokens is not None])

    def _count_durations(self, attempts: Sequence[Attempt]) -> None:
        durations: dict[Outcome | None, list[float]] = {}
        for attempt in attempts:
            if attempt.ended is not None:
                durations.setdefault(attempt.outcome, []).append(attempt.ended - attempt.started)
        for outcome, values in durations.items():
            error = "" if outcome in {None, Outcome.SUCCESS} else str(outcome)
            if error not in self.durations:
                self.durations[error] = Histogram(DURATION_BUCKETS)
            self.durations[error].observe_all(values)


class AttemptMetrics(Collector):
    """Counts attempts of calls that have ended.

    `models` gives the names that may become label values; `vendor_of` the vendor of a provider in OpenTelemetry's
    words.
    """

    def __init__(self, models: Callable[[], frozenset[str]], *, vendor_of: Callable[[str], str]) -> None:
        self._models = models
        self._vendor_of = vendor_of
        self._series: dict[Key, _Series] = {}

    def observe(self, *records: CallRecord) -> None:
        """Count the attempts of calls, those of one series together."""
        together: dict[tuple[str, str | None, Surface], list[Attempt]] = {}
        for record in records:
            if record.surface is not None:
                for attempt in record.attempts:
                    kind = (attempt.deployment.provider, record.route, record.surface)
                    together.setdefault(kind, []).append(attempt)
        for kind, alike in together.items():
            self._series_of(*kind).count(alike)

    def _series_of(self, provider: str, route: str | None, surface: Surface) -> _Series:
        model = route if route is not None and route in self._models() else "other"
        key = (provider, model, surface)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        return series

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        rows = {self._labels(*key): series for key, series in self._series.items()}
        durations = {(*labels, error): d for labels, series in rows.items() for error, d in series.durations.items()}
        yield histogram_family(_DURATION, "Duration of an attempt, seconds.", (*_LABELS, "error_type"), durations)
        for field, counter in _USAGE:
            yield counter.family({(*labels, "unknown"): series.usage.sums[field] for labels, series in rows.items()})
        for name, histograms in (
            ("input_tokens", {labels: series.input_tokens for labels, series in rows.items()}),
            ("output_tokens", {labels: series.output_tokens for labels, series in rows.items()}),
        ):
            yield histogram_family(f"gen_ai_client_inference_operation_{name}", "Of an attempt.", _LABELS, histograms)

    def _labels(self, provider: str, model: str, surface: Surface) -> tuple[str, ...]:
        return (operation_of(surface), self._vendor_of(provider), model, provider)
