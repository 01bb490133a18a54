"""Definitions of metrics: name, help text, labels, and how the values of several worker processes become one.

A part declares its metrics as constants of its module and makes families of them at each scrape:

    BACKLOG = Gauge("model_gateway_journal_backlog", "Undelivered usage events.", aggregation=Aggregation.MAX)
    REFUSED = Counter("model_gateway_journal_refused", "Calls that the journal refused.", labels=("reason",))

    yield BACKLOG.family(journal.backlog)
    yield REFUSED.family({("full",): 3, ("closed",): 0})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = "float | Mapping[Labels, float]"
"""The value of a metric without labels, or one value for each tuple of label values."""


class Aggregation(StrEnum):
    """How the values that several worker processes have of one series become the value of the server."""

    SUM = "sum"
    """Each process has a part of it: connections, slots held."""
    MAX = "max"
    """Each process has all of it, or the worst one matters: a limit, a state, a delay."""


class _Definition(msgspec.Struct, frozen=True):
    name: str
    text: str
    labels: Labels = ()


class Counter(_Definition, frozen=True):
    """A value that only grows, without the suffix `_total`. Processes that have ended still count."""

    def family(self, values: Values, *, aggregation: Aggregation = Aggregation.SUM) -> CounterFamily:
        """The metric with its values of this moment. MAX: each process tells what one process has counted for all."""
        family = CounterFamily(self.name, self.text, labels=self.labels)
        family.aggregation = aggregation
        for labels, value in _rows(values):
            family.add_metric(labels, value)
        return family


class Gauge(_Definition, frozen=True, kw_only=True):
    """A value that rises and falls. Processes that have ended do not count."""

    aggregation: Aggregation

    def family(self, values: Values) -> GaugeFamily:
        """The metric with its values of this moment."""
        family = GaugeFamily(self.name, self.text, labels=self.labels)
        family.aggregation = self.aggregation
        for labels, value in _rows(values):
            family.add_metric(labels, value)
        return family


class CounterFamily(CounterMetricFamily):
    """A family of samples that knows its aggregation."""

    aggregation: Aggregation


class GaugeFamily(GaugeMetricFamily):
    """A family of samples that knows its aggregation."""

    aggregation: Aggregation


def aggregation_of(family: Metric) -> Aggregation:
    """How the values of several processes become one. Raises `TypeError` for a gauge that no `Gauge` made."""
    if isinstance(family, CounterFamily | GaugeFamily):
        return family.aggregation
    if family.type == "gauge":
        raise TypeError(f"The gauge {family.name} does not say how to aggregate: make it by `Gauge(...).family()`.")
    return Aggregation.SUM


def _rows(values: Values) -> Iterable[tuple[Labels, float]]:
    return values.items() if isinstance(values, Mapping) else (((), values),)
