"""Prometheus metrics of the process: memory, CPU, file descriptors, and which build it is."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector
from prometheus_client.registry import Collector

from gateway_middleware._version import __version__
from gateway_middleware.operations.metric import Aggregation, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

BUILD = Gauge(
    "model_gateway_build_info",
    "1 for the version, the interpreter and the hash of the configuration in force.",
    ("version", "python", "config_hash"),
    aggregation=Aggregation.MAX,
)
_OF_ALL_PROCESSES = frozenset({"process_max_fds", "process_start_time_seconds"})
"""Each process says the same, or the latest start counts; the others are added up."""


class ProcessMetrics(Collector):
    """The standard `process_*` metrics (Linux only) and `model_gateway_build_info`."""

    def __init__(self, config_hash: Callable[[], str]) -> None:
        self._config_hash = config_hash
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        yield BUILD.family({(__version__, platform.python_version(), self._config_hash()): 1})
        for family in self._process.collect():
            yield _aggregated(family) if family.type == "gauge" else family


def _aggregated(family: Metric) -> Metric:
    aggregation = Aggregation.MAX if family.name in _OF_ALL_PROCESSES else Aggregation.SUM
    return Gauge(family.name, family.documentation, aggregation=aggregation).family(family.samples[0].value)
