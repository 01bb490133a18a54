"""Prometheus metrics of circuit breakers and of attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from prometheus_client.registry import Collector

from gateway_middleware.core.bounded import OTHER
from gateway_middleware.core.domain import Outcome
from gateway_middleware.operations.metric import Aggregation, Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway_middleware.core.record import CallRecord

TRANSITIONS = Counter("model_gateway_circuit_breaker_transitions", "Transitions by new state.", ("breaker", "state"))
ATTEMPTS = Counter("model_gateway_attempts", "Upstream attempts by outcome.", ("provider", "deployment", "outcome"))
FAILOVERS = Counter("model_gateway_failovers", "Calls that moved from one provider to another.", ("from", "to"))
COOLDOWNS = Counter("model_gateway_cooldowns", "How often a provider asked for time.", ("provider",))
ALARMS = Counter(
    "model_gateway_provider_alarms",
    "Failures that no time heals, so that an operator must look: a refused key, an exhausted account.",
    ("provider", "class"),
)
STATE = Gauge(
    "model_gateway_circuit_breaker_state",
    "1 for the state a breaker is in.",
    ("breaker", "state"),
    aggregation=Aggregation.MAX,
)
COOLING_DOWN = Gauge(
    "model_gateway_cooling_down",
    "Deployments and credentials that are left alone.",
    ("provider",),
    aggregation=Aggregation.MAX,
)
_STATES = ("closed", "open", "half_open", "forced_open", "forced_closed")

_Counts: TypeAlias = "dict[tuple[str, ...], int]"


class BreakerMetrics(Collector):
    """Counts transitions and attempts; shows the states that `rows` (`circuit_breakers` of `/v1/health`) has.

    Labels are names of the configuration: `keys` are the deployments and hosts that may appear, all others are `other`.
    `alarm_classes` are the classes of failures that an operator must look at: each begins at 0, for every provider or
    each of the keys that `accounts` gives of it.
    """

    def __init__(
        self,
        rows: Callable[[], Mapping[str, Any]],
        keys: Callable[[], frozenset[str]],
        *,
        alarm_classes: Sequence[str] = (),
        accounts: Callable[[str], Sequence[str]] = lambda provider: (provider,),
    ) -> None:
        self._accounts = accounts
        self._rows = rows
        self._keys = keys
        self._transitions: _Counts = {}
        self._attempts: _Counts = {}
        self._failovers: _Counts = {}
        self._cooldowns: _Counts = {}
        self._alarm_classes = alarm_classes
        self._alarms: _Counts = {}

    def transition(self, key: str, after: str) -> None:
        """Count a transition of a breaker into a state."""
        name = key if key.startswith("endpoint:") or key in self._keys() else OTHER
        _count(self._transitions, (name, after))

    def cooldown(self, provider: str) -> None:
        """Count that a provider asked for time."""
        _count(self._cooldowns, (provider,))

    def alarm(self, provider: str, failure_class: str) -> None:
        """Count a failure that an operator must look at."""
        _count(self._alarms, (provider, failure_class))

    def observe(self, *records: CallRecord) -> None:
        """Count the attempts of calls that have ended."""
        together: dict[tuple[str, str, Outcome | None], int] = {}
        for record in records:
            for attempt in record.attempts:
                kind = (attempt.deployment.provider, attempt.deployment.key, attempt.outcome)
                together[kind] = together.get(kind, 0) + 1
            if len(record.attempts) > 1:
                self._count_failovers([attempt.deployment.provider for attempt in record.attempts])
        for (provider, key, outcome), count in together.items():
            _count(self._attempts, (provider, key if key in self._keys() else OTHER, str(outcome)), count)

    def _count_failovers(self, providers: list[str]) -> None:
        for before, after in pairwise(providers):
            if before != after:
                _count(self._failovers, (before, after))

    def collect(self) -> Iterable[Metric]:
        """The metric families, for a prometheus_client registry."""
        accounts = [account for provider in self._rows() for account in self._accounts(provider)]
        none: _Counts = {(account, name): 0 for account in accounts for name in self._alarm_classes}
        yield ALARMS.family({**none, **self._alarms})
        yield TRANSITIONS.family(self._transitions)
        yield ATTEMPTS.family(dict.fromkeys(self._refusals_to_come(), 0) | self._attempts)
        yield FAILOVERS.family(self._failovers)
        yield COOLDOWNS.family(self._cooldowns)
        yield from self._states()

    def _refusals_to_come(self) -> Iterable[tuple[str, ...]]:
        """Series that an alert waits for begin at 0: the first refusal of our key is an increase."""
        for provider in self._rows():
            yield provider, OTHER, str(Outcome.PROVIDER_AUTH)
        for key in self._keys():
            yield key.partition("/")[0], key, str(Outcome.PROVIDER_AUTH)

    def _states(self) -> Iterable[Metric]:
        states: dict[tuple[str, ...], float] = {}
        cooling: dict[tuple[str, ...], float] = {}
        for provider, row in self._rows().items():
            cooling[provider,] = len(row["cooldowns"])
            for key, snapshot in {**row["deployments"], **row["endpoints"]}.items():
                if key.startswith("endpoint:") or key in self._keys():
                    states |= {(key, name): float(name == str(snapshot.state)) for name in _STATES}
        return STATE.family(states), COOLING_DOWN.family(cooling)


def _count(counts: _Counts, key: tuple[str, ...], count: int = 1) -> None:
    counts[key] = counts.get(key, 0) + count
