"""Statistics of the last minute by deployment: counts, errors, latency quantiles, from a ring of 10 s slots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.record import CallRecord

from gateway_middleware.core.domain import Outcome

SLOT_SECONDS = 10.0
SLOTS = 6
_GROWTH = 1.1
_BOUNDS = tuple(0.001 * _GROWTH**i for i in range(160))
"""Upper bounds of the latency buckets in seconds, 1 ms to about 1 h, ten per cent apart."""
_MAX_DEPLOYMENTS = 2048
_FAULTS = frozenset(
    {
        Outcome.CONNECT_ERROR,
        Outcome.TIMEOUT,
        Outcome.THROTTLED,
        Outcome.PROVIDER_AUTH,
        Outcome.SERVER_ERROR,
        Outcome.PROTOCOL_ERROR,
        Outcome.STREAM_ERROR,
    }
)


class _Slot:
    __slots__ = ("count", "errors", "latencies", "outcomes", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.count = 0
        self.errors = 0
        self.outcomes: dict[Outcome, int] = {}
        self.latencies: dict[int, int] = {}

    def counts(self) -> Counts:
        outcomes = {outcome.value: n for outcome, n in self.outcomes.items()}
        return Counts(attempts=self.count, errors=self.errors, outcomes=outcomes, latencies=self.latencies)


class Ring:
    """Counts of one deployment over the last minute."""

    __slots__ = ("_clock", "_slots")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: list[_Slot] = []

    def add(self, outcome: Outcome, durations: Collection[float]) -> None:
        """Count attempts that ended now, with their durations in seconds."""
        slot, count = self._current(), len(durations)
        slot.count += count
        if outcome in _FAULTS:
            slot.errors += count
        slot.outcomes[outcome] = slot.outcomes.get(outcome, 0) + count
        for bucket in map(bisect_left, repeat(_BOUNDS), durations):
            slot.latencies[bucket] = slot.latencies.get(bucket, 0) + 1

    def _current(self) -> _Slot:
        now = self._clock()
        if not self._slots or now - self._slots[-1].started >= SLOT_SECONDS:
            self._slots.append(_Slot(now))
            del self._slots[: -SLOTS - 1]
        return self._slots[-1]

    def recent(self) -> Iterable[Counts]:
        """The slots that began in the last minute."""
        oldest = self._clock() - SLOT_SECONDS * SLOTS
        return [slot.counts() for slot in self._slots if slot.started > oldest]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts of the last minute. `outcomes` counts them by outcome, `latencies` by the number of their bucket."""

    attempts: int = 0
    errors: int = 0
    outcomes: dict[str, int] = {}
    latencies: dict[int, int] = {}


def summed(parts: Iterable[Counts]) -> Counts:
    """Several counts as one."""
    attempts = errors = 0
    outcomes: dict[str, int] = {}
    latencies: dict[int, int] = {}
    for part in parts:
        attempts += part.attempts
        errors += part.errors
        for outcome, n in part.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + n
        for bucket, n in part.latencies.items():
            latencies[bucket] = latencies.get(bucket, 0) + n
    return Counts(attempts=attempts, errors=errors, outcomes=outcomes, latencies=latencies)


def summary(counts: Counts) -> dict[str, Any]:
    """Counts as they are shown; quantiles in milliseconds, None without traffic."""
    return {
        "window_seconds": SLOT_SECONDS * SLOTS,
        "attempts": counts.attempts,
        "errors": counts.errors,
        "error_rate": round(counts.errors / counts.attempts, 4) if counts.attempts else None,
        "outcomes": dict(sorted(counts.outcomes.items())),
        "latency_ms": {f"p{q}": quantile_ms(counts, q / 100) for q in (50, 95, 99)},
    }


def quantile_ms(counts: Counts, q: float) -> float | None:
    """The latency in milliseconds that a share `q` of the attempts did not exceed, to within ten per cent."""
    if not counts.attempts:
        return None
    ordered = sorted(counts.latencies)
    up_to = accumulate(counts.latencies[bucket] for bucket in ordered)
    bucket = next(bucket for bucket, total in zip(ordered, up_to, strict=True) if total >= q * counts.attempts)
    return round(1000 * _BOUNDS[min(bucket, len(_BOUNDS) - 1)], 1)


class RecentStats:
    """The rings of all deployments; those that clients name freely are bounded in number, oldest out first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rings: dict[str, dict[str, Ring]] = {}

    def observe(self, *records: CallRecord) -> None:
        """Count the attempts of calls that have ended, those of one deployment and outcome together."""
        together: dict[tuple[str, str, Outcome], list[float]] = {}
        for record in records:
            for attempt in record.attempts:
                if attempt.outcome is not None and attempt.ended is not None:
                    kind = (attempt.deployment.provider, attempt.deployment.model, attempt.outcome)
                    together.setdefault(kind, []).append(attempt.ended - attempt.started)
        for (provider, model, outcome), durations in together.items():
            self._ring_of(provider, model).add(outcome, durations)

    def _ring_of(self, provider: str, model: str) -> Ring:
        rings = self._rings.setdefault(provider, {})
        ring = rings.get(model)
        if ring is None:
            if len(rings) >= _MAX_DEPLOYMENTS:
                del rings[next(iter(rings))]
            ring = rings[model] = Ring(self._clock)
        return ring

    def of_provider(self, provider: str) -> dict[str, Any]:
        """The provider as a whole."""
        return summary(self.provider_counts(provider))

    def of_deployment(self, provider: str, model: str) -> dict[str, Any]:
        """One deployment."""
        return summary(self.deployment_counts(provider, model))

    def provider_counts(self, provider: str) -> Counts:
        """The provider as a whole, to be added to those of other processes."""
        return summed(counts for ring in self._rings.get(provider, {}).values() for counts in ring.recent())

    def deployment_counts(self, provider: str, model: str) -> Counts:
        """One deployment, likewise."""
        ring = self._rings.get(provider, {}).get(model)
        return summed(ring.recent() if ring else ())
