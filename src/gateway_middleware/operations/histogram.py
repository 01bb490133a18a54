"""Histograms in plain attributes, and how they become families for prometheus_client."""

from __future__ import annotations

from bisect import bisect_left
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.samples import Exemplar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds; those of OpenTelemetry's conventions for generative AI."""
TOKEN_BUCKETS = tuple(float(4**i) for i in range(14))
"""Tokens; from the same conventions."""
Bucket: TypeAlias = "tuple[str, float] | tuple[str, float, Exemplar]"
"""Bound, cumulative count, and a trace that fell into it."""


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

    def observe_all(self, values: Collection[float]) -> None:
        """Count several values that belong to no trace."""
        counts = self.counts
        for bucket in map(bisect_left, repeat(self.bounds), values):
            counts[bucket] += 1
        self.total += sum(values)

    def buckets(self) -> list[Bucket]:
        """Cumulative buckets as prometheus_client takes them."""
        below, rows = 0, list[Bucket]()
        for i, (bound, count) in enumerate(zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True)):
            below += count
            example = self.exemplars.get(i)
            rows.append((bound, float(below)) if example is None else (bound, float(below), example))
        return rows

    def add(self, other: Histogram) -> None:
        """Count all that another one has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        self.exemplars |= other.exemplars


def histogram_family(
    name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    """A family of those that have counted anything, each with its label values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows.items():
        if any(histogram.counts):
            family.add_metric(values, buckets=histogram.buckets(), sum_value=histogram.total)
    return family
