"""Prometheus metrics of circuit breakers and of attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway_middleware.core.domain import CallRecord

_STATES = ("closed", "open", "half_open", "forced_open", "forced_closed")


_Counts: TypeAlias = "dict[tuple[str, ...], int]"


class BreakerMetrics(Collector):
    """Counts transitions and attempts; shows the states that `rows` (`circuit_breakers` of `/v1/health`) has.

    Labels are names of the configuration: `keys` are the deployments and hosts that may appear, all others are `other`.
    """

    def __init__(self, rows: Callable[[], Mapping[str, Any]], keys: Callable[[], frozenset[str]]) -> None:
        self._rows = rows
        self._keys = keys
        self._transitions: _Counts = {}
        self._attempts: _Counts = {}
        self._failovers: _Counts = {}
        self._cooldowns: _Counts = {}

    def transition(self, key: str, after: str) -> None:
        """Count a transition of a breaker into a state."""
        name = key if key.startswith("endpoint:") or key in self._keys() else "other"
        _count(self._transitions, (name, after))

    def cooldown(self, provider: str) -> None:
        """Count that a provider asked for time."""
        _count(self._cooldowns, (provider,))

    def observe(self, record: CallRecord) -> None:
        """Count the attempts of a call that has ended."""
        previous = None
        for attempt in record.attempts:
            deployment = attempt.deployment
            name = deployment.key if deployment.key in self._keys() else "other"
            _count(self._attempts, (deployment.provider, name, str(attempt.outcome)))
            if previous is not None and previous != deployment.provider:
                _count(self._failovers, (previous, deployment.provider))
            previous = deployment.provider

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        yield _counter(
            "model_gateway_circuit_breaker_transitions", "Transitions by new state.", ("breaker", "state"),
            self._transitions,
        )  # fmt: skip
        yield _counter(
            "model_gateway_attempts", "Upstream attempts by outcome.", ("provider", "deployment", "outcome"),
            self._attempts,
        )  # fmt: skip
        yield _counter(
            "model_gateway_failovers", "Calls that moved from one provider to another.", ("from", "to"),
            self._failovers,
        )  # fmt: skip
        yield _counter(
            "model_gateway_cooldowns", "How often a provider asked for time.", ("provider",),
            self._cooldowns,
        )  # fmt: skip
        yield from self._states()

    def _states(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "model_gateway_circuit_breaker_state", "1 for the state a breaker is in.", labels=("breaker", "state")
        )
        cooling = GaugeMetricFamily(
            "model_gateway_cooling_down", "Deployments and credentials that are left alone.", labels=("provider",)
        )
        shown: set[str] = set()
        for provider, row in self._rows().items():
            cooling.add_metric((provider,), len(row["cooldowns"]))
            for key, snapshot in {**row["deployments"], **row["endpoints"]}.items():
                if key not in shown and (key.startswith("endpoint:") or key in self._keys()):
                    shown.add(key)
                    _add_states(state, key, str(snapshot.state))
        return state, cooling


def _add_states(family: GaugeMetricFamily, key: str, current: str) -> None:
    for name in _STATES:
        family.add_metric((key, name), 1.0 if name == current else 0.0)


def _count(counts: _Counts, key: tuple[str, ...]) -> None:
    counts[key] = counts.get(key, 0) + 1


def _counter(name: str, text: str, labels: tuple[str, ...], counts: _Counts) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family
