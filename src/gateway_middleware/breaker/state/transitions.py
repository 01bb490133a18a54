"""The states of a breaker and what leads from one to another.

CLOSED lets calls through and counts how they end. Bad news TRIPs it. OPEN refuses until its time is over; the first
call after that finds it has WAITED and becomes the probe. HALF_OPEN lets one probe through at a time: enough
successes in a row and it has RECOVERED, one failure and it has RELAPSED. A probe that says nothing (cancelled, refused
by the provider for the client's own fault) gives its place back, and one that is not heard of in time loses it.

An operator's FORCE_OPEN and FORCE_CLOSE hold against all evidence until AUTO, RESET or the end of their time (EXPIRE).
After FORCED_OPEN nothing is known of a provider that nobody has called, so a probe goes first. RESET forgets
everything.

Each transition begins a new generation. How a call of an older one ends says nothing about the present state.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """What a breaker does with the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


class Trigger(StrEnum):
    """What moves a breaker: four of its own, four of the operator's, the end of the operator's time."""

    TRIP = "trip"
    WAITED = "waited"
    RECOVERED = "recovered"
    RELAPSED = "relapsed"
    FORCE_OPEN = "force_open"
    FORCE_CLOSE = "force_close"
    AUTO = "auto"
    EXPIRE = "expire"
    RESET = "reset"


_FORCES = {Trigger.FORCE_OPEN: State.FORCED_OPEN, Trigger.FORCE_CLOSE: State.FORCED_CLOSED}
_OPERATOR = {**_FORCES, Trigger.RESET: State.CLOSED}

TABLE: dict[State, dict[Trigger, State]] = {
    State.CLOSED: {Trigger.TRIP: State.OPEN, **_OPERATOR},
    State.OPEN: {Trigger.WAITED: State.HALF_OPEN, **_OPERATOR},
    State.HALF_OPEN: {Trigger.RECOVERED: State.CLOSED, Trigger.RELAPSED: State.OPEN, **_OPERATOR},
    State.FORCED_OPEN: {Trigger.AUTO: State.HALF_OPEN, Trigger.EXPIRE: State.HALF_OPEN, **_OPERATOR},
    State.FORCED_CLOSED: {Trigger.AUTO: State.CLOSED, Trigger.EXPIRE: State.CLOSED, **_OPERATOR},
}
"""What is not here cannot happen, or does nothing: AUTO where nothing is forced."""


FORCED = frozenset({State.FORCED_OPEN, State.FORCED_CLOSED})
"""States that an operator has set."""


def eviction_rank(state: State) -> int:
    """Which breakers go first where there are too many: the closed ones, and last what an operator has forced."""
    return 0 if state is State.CLOSED else 2 if state in FORCED else 1


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one breaker. `at` is the time of day; `seconds` how long OPEN or a forced state will last."""

    key: str
    before: State
    after: State
    trigger: Trigger
    reason: str
    at: float
    generation: int
    seconds: float | None = None
