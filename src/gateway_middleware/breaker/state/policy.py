"""The numbers of a breaker."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec


class Mode(StrEnum):
    """SHADOW evaluates and reports but refuses nothing; OFF does not evaluate. An operator's force holds in each."""

    ON = "on"
    SHADOW = "shadow"
    OFF = "off"


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, for how long, and what closes it. Durations are seconds.

    It opens after `consecutive` failures in a row, or when of at least `min_calls` in the window a share of
    `failure_ratio` failed (or, with `slow_ttft`, a share of `slow_ratio` took longer to their first content).
    `probe_expiry` is after how long a probe counts as lost: the deadline of the first byte and a second more. Raises
    `ValueError` for numbers that make no breaker.
    """

    mode: Mode = Mode.ON
    consecutive: int = 5
    window: float = 60.0
    buckets: int = 10
    min_calls: int = 10
    failure_ratio: float = 0.5
    slow_ttft: float | None = None
    slow_ratio: float = 0.8
    open_base: float = 10.0
    open_cap: float = 300.0
    jitter: float = 0.2
    decay_after: float = 60.0
    probe_successes: int = 2
    probe_expiry: float = 61.0
    force_ttl: float = 3600.0

    def __post_init__(self) -> None:
        counts = (self.consecutive, self.buckets, self.min_calls, self.probe_successes)
        durations = (self.window, self.open_base, self.decay_after, self.probe_expiry, self.force_ttl)
        if min(counts) < 1 or min(durations) <= 0 or self.open_cap < self.open_base:
            raise ValueError("counts must be 1 or more, durations above 0, open_cap not below open_base")
        if not (0 < self.failure_ratio <= 1 and 0 < self.slow_ratio <= 1 and 0 <= self.jitter < 1):
            raise ValueError("ratios must be above 0 and at most 1, jitter at least 0 and below 1")

    def reason_to_open(self, consecutive: int, *, successes: int, failures: int, slow: int) -> str | None:
        """Why a closed breaker should open, in words for an operator; None: it should not."""
        total = successes + failures
        if consecutive >= self.consecutive:
            return f"{consecutive} failures in a row"
        if total < self.min_calls:
            return None
        if failures >= self.failure_ratio * total:
            return f"{failures} of {total} calls failed in {self.window:g} s"
        if self.slow_ttft is not None and slow >= self.slow_ratio * total:
            return f"{slow} of {total} calls were slow in {self.window:g} s"
        return None

    @property
    def max_level(self) -> int:
        """How often the open time can double before it reaches `open_cap`."""
        return max(math.ceil(math.log2(self.open_cap / self.open_base)), 0)

    def grown_seconds(self, level: int) -> float:
        """The open time after so many relapses, before jitter."""
        return min(self.open_base * 2.0**level, self.open_cap)

    def open_seconds(self, level: int, *, requested: float, chance: float) -> float:
        """How long to stay open: longer with each relapse (`level`), and spread so that replicas do not probe together.

        What the provider `requested` is the least, spread upwards only. `chance` is an even number from [0, 1).
        """
        grown = self.grown_seconds(level) * (1 - self.jitter + 2 * self.jitter * chance)
        return min(max(grown, requested * (1 + self.jitter * chance)), self.open_cap)
