"""Statistics of the last minute by deployment: counts, errors, latency quantiles, from a ring of 10 s slots."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.record import Attempt, CallRecord

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


class Ring:
    """Counts of one deployment over the last minute."""

    __slots__ = ("_clock", "_slots")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: list[_Slot] = []

    def add(self, outcome: Outcome, seconds: float) -> None:
        """Count one attempt that ended now."""
        slot = self._current()
        slot.count += 1
        slot.errors += outcome in _FAULTS
        slot.outcomes[outcome] = slot.outcomes.get(outcome, 0) + 1
        bucket = bisect_left(_BOUNDS, seconds)
        slot.latencies[bucket] = slot.latencies.get(bucket, 0) + 1

    def _current(self) -> _Slot:
        now = self._clock()
        if not self._slots or now - self._slots[-1].started >= SLOT_SECONDS:
            self._slots.append(_Slot(now))
            del self._slots[: -SLOTS - 1]
        return self._slots[-1]

    def recent(self) -> list[_Slot]:
        """The slots that began in the last minute."""
        oldest = self._clock() - SLOT_SECONDS * SLOTS
        return [slot for slot in self._slots if slot.started > oldest]


def summarise(rings: list[Ring]) -> dict[str, Any]:
    """Statistics of several rings together; quantiles in milliseconds, None without traffic."""
    slots = [slot for ring in rings for slot in ring.recent()]
    count, errors = sum(s.count for s in slots), sum(s.errors for s in slots)
    merged: dict[int, int] = {}
    outcomes: dict[str, int] = {}
    for slot in slots:
        for bucket, n in slot.latencies.items():
            merged[bucket] = merged.get(bucket, 0) + n
        for outcome, n in slot.outcomes.items():
            outcomes[outcome.value] = outcomes.get(outcome.value, 0) + n
    return {
        "window_seconds": SLOT_SECONDS * SLOTS,
        "attempts": count,
        "errors": errors,
        "error_rate": round(errors / count, 4) if count else None,
        "outcomes": dict(sorted(outcomes.items())),
        "latency_ms": {f"p{q}": _quantile(merged, count, q / 100) for q in (50, 95, 99)},
    }


def _quantile(buckets: dict[int, int], count: int, q: float) -> float | None:
    if not count:
        return None
    ordered = sorted(buckets)
    up_to = accumulate(buckets[bucket] for bucket in ordered)
    bucket = next(bucket for bucket, total in zip(ordered, up_to, strict=True) if total >= q * count)
    return round(1000 * _BOUNDS[min(bucket, len(_BOUNDS) - 1)], 1)


class RecentStats:
    """The rings of all deployments; those that clients name freely are bounded in number, oldest out first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rings: dict[str, dict[str, Ring]] = {}

    def observe(self, record: CallRecord) -> None:
        """Count the attempts of a call that has ended."""
        for attempt in record.attempts:
            self._add(attempt)

    def _add(self, attempt: Attempt) -> None:
        if attempt.outcome is None or attempt.ended is None:
            return
        rings = self._rings.setdefault(attempt.deployment.provider, {})
        ring = rings.get(attempt.deployment.model)
        if ring is None:
            if len(rings) >= _MAX_DEPLOYMENTS:
                del rings[next(iter(rings))]
            ring = rings[attempt.deployment.model] = Ring(self._clock)
        ring.add(attempt.outcome, attempt.ended - attempt.started)

    def of_provider(self, provider: str) -> dict[str, Any]:
        """The provider as a whole."""
        return summarise(list(self._rings.get(provider, {}).values()))

    def of_deployment(self, provider: str, model: str) -> dict[str, Any]:
        """One deployment."""
        ring = self._rings.get(provider, {}).get(model)
        return summarise([ring] if ring else [])
