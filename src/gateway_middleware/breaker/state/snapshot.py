"""A breaker as an operator sees it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.breaker.state.transitions import State


class BreakerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """State, counts and deadlines of one breaker.

    `since` and `forced_until` are moments in UTC, all other times are durations in seconds. `successes`, `failures`,
    `slow` and `failure_ratio` are those of the window. `why` counts the last failures by class. `refused` counts calls
    since the last transition; in shadow mode those that would have been refused.
    """

    state: State
    mode: Mode
    since: datetime
    reason: str
    generation: int
    consecutive_failures: int
    successes: int
    failures: int
    slow: int
    failure_ratio: float | None
    why: dict[str, int]
    refused: int
    next_probe_in: float | None
    next_open_seconds: float
    forced_until: datetime | None
