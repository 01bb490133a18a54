"""The engine that walks the table of `transitions`: permits in, transitions out. No I/O, no time of its own."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from gateway_middleware.breaker.peers.probes import PATIENCE
from gateway_middleware.breaker.state.permit import BreakerSnapshot, CircuitOpenError, Permit
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.transitions import TABLE, State, Transition, Trigger
from gateway_middleware.breaker.state.window import FAILURE, SLOW, SUCCESS, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.peers.probes import ProbeGate
    from gateway_middleware.core.domain import Clock

_UNCOUNTED = -1
_REMEMBERED_FAILURES = 20
_PREPARE_SECONDS = 0.25
"""How long before its open time is over a breaker that is asked gets the lease for its probe."""
_PROBE_PATIENCE = 1.0
"""When to ask again while somebody else's probe is out, in seconds."""
_CLOSED, _OPEN, _HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
_FORCED_OPEN, _FORCED_CLOSED = State.FORCED_OPEN, State.FORCED_CLOSED


class CircuitBreaker:
    """One leaf: decides whether a call may go, learns from how it ended.

    `clock` is monotonic, `wall` the time of day; `random` returns an even number from [0, 1). `on_transition` is called
    when a transition is complete; `gate` has a say in which replica probes. Not for several threads.
    """

    __slots__ = ("_clock", "_failures", "_gate", "_issue", "_levels", "_mode", "_not_before", "_on_transition",
                 "_policy", "_probe", "_probe_until", "_probed_well", "_random", "_reason", "_refused", "_since",
                 "_since_wall", "_until", "_wall", "_window", "consecutive", "generation", "key", "level",
                 "state")  # fmt: skip

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        clock: Clock,
        wall: Clock,
        random: Callable[[], float],
        key: str = "",
        on_transition: Callable[[Transition], None] | None = None,
        gate: ProbeGate | None = None,
    ) -> None:
        self.key = key
        self._gate = gate
        self.state = _CLOSED
        self.generation = 0
        self.consecutive = 0
        self._policy, self._mode = policy, policy.mode
        self._clock, self._wall, self._random = clock, wall, random
        self._on_transition = on_transition
        self._window = Window(policy.window, buckets=policy.buckets)
        self._failures: deque[str] = deque(maxlen=_REMEMBERED_FAILURES)
        self._levels = max(math.ceil(math.log2(policy.open_cap / policy.open_base)), 0)
        self.level = 0
        """How often the open time is doubled the next time."""
        self._since, self._since_wall, self._reason = clock(), wall(), "new"
        self._issue = _UNCOUNTED if self._mode is Mode.OFF else 0
        self._until = self._not_before = self._probe_until = 0.0
        self._probe: Permit | None = None
        self._probed_well = self._refused = 0

    # Asking.

    def acquire(self) -> Permit:
        """Leave to make an attempt. Raises `CircuitOpenError`."""
        permit = self.try_acquire()
        if permit is None:
            wait = self.retry_after()
            raise CircuitOpenError(f"The circuit breaker {self.key} is {self.state.value}.", retry_after=wait)
        return permit

    def try_acquire(self) -> Permit | None:
        """The same, with None for a refusal."""
        return Permit(self, self._issue) if self.state is _CLOSED else self._acquire(self._clock())

    def retry_after(self) -> float:
        """Seconds until a call may be let through; 0 when the next one is."""
        now = self._clock()
        self._expire(now)
        if self.state is _FORCED_OPEN or (self.state is _OPEN and self._mode is Mode.ON):
            return max(self._until - now, 0.0)
        if self.state is _HALF_OPEN and self._probe is not None and self._mode is Mode.ON:
            return min(max(self._probe_until - now, 0.0), _PROBE_PATIENCE)
        if self.state is _HALF_OPEN and self._gate is not None and self._mode is Mode.ON:
            return PATIENCE  # the lease of the probe is asked for, or somebody else's
        return 0.0

    def _acquire(self, now: float) -> Permit | None:
        self._expire(now)
        if self.state is _OPEN and self._gate is not None and now >= self._until - _PREPARE_SECONDS:
            self._gate.prepare(self.key)
        if self.state is _OPEN and now >= self._until:
            self._move(Trigger.WAITED, now, "the open time is over")
        if self.state is _HALF_OPEN and (self._probe is None or now >= self._probe_until) and self._may_probe():
            self._probe, self._probe_until = Permit(self, self._issue), now + self._policy.probe_expiry
            return self._probe
        if self.state in {_CLOSED, _FORCED_CLOSED}:
            return Permit(self, self._issue)
        self._refused += 1
        is_refused = self._mode is Mode.ON or self.state is _FORCED_OPEN
        return None if is_refused else Permit(self, _UNCOUNTED)

    def _may_probe(self) -> bool:
        return self._gate is None or self._gate.may_probe(self.key, self._policy.probe_expiry)

    def _end_probe(self, *, again: bool) -> None:
        if self._gate is not None:
            self._gate.ended(self.key, again=again)

    # Learning. Called by permits.

    def on_content(self, permit: Permit, ttft: float | None) -> None:
        """Count a success that a failure may replace."""
        if permit.generation == self.generation and permit.bucket is None:
            self._count_success(permit, ttft)

    def on_success(self, permit: Permit, ttft: float | None) -> None:
        """Count a success, unless it was at its first content."""
        if permit.generation != self.generation:
            return
        self.consecutive = 0
        self._not_before = 0.0
        if permit.bucket is None:
            self._count_success(permit, ttft)

    def on_failure(self, permit: Permit, judgement: Judgement) -> None:
        """Count a failure, in the place of a success if there was one."""
        if permit.generation != self.generation:
            return
        now = self._clock()
        if permit.bucket is not None:
            self._window.take_back(now, SUCCESS, permit.bucket)
        self._window.add(now, FAILURE)
        self.consecutive += 1
        self._failures.append(judgement.failure_class or "unknown")
        if judgement.min_open is not None:
            self._not_before = max(self._not_before, now + judgement.min_open)
        if self.state is _HALF_OPEN:
            self._move(Trigger.RELAPSED, now, "a probe failed")
        elif self.state is _CLOSED:
            self._trip(now)

    def on_release(self, permit: Permit) -> None:
        """Give a probe's place back."""
        if self._probe is permit:
            self._probe = None
            self._end_probe(again=True)

    def _count_success(self, permit: Permit, ttft: float | None) -> None:
        now = self._clock()
        permit.bucket = self._window.add(now, SUCCESS)
        if self.state is _HALF_OPEN:
            self._pass_probe(permit, now)
        elif ttft is not None and self._policy.slow_ttft is not None and ttft > self._policy.slow_ttft:
            self._window.add(now, SLOW)
            if self.state is _CLOSED:
                self._trip(now)

    def _pass_probe(self, permit: Permit, now: float) -> None:
        if self._probe is permit:
            self._probe = None
            self._end_probe(again=True)
        self._probed_well += 1
        if self._probed_well >= self._policy.probe_successes:
            self._move(Trigger.RECOVERED, now, f"{self._probed_well} probes in a row were answered")

    def _trip(self, now: float) -> None:
        """Open if there is reason to. Asked after bad news only: good news never opens a breaker."""
        successes, failures, slow = self._window.totals
        reason = self._policy.reason_to_open(self.consecutive, successes=successes, failures=failures, slow=slow)
        if reason is not None:
            self._move(Trigger.TRIP, now, reason)

    # The operator, and other replicas.

    def hint(self, seconds: float, *, reason: str) -> None:
        """Other replicas have found it out of order: open for so long, if it is closed."""
        if self.state is _CLOSED and self._mode is not Mode.OFF:
            now = self._clock()
            self._move(Trigger.HINTED, now, reason)
            self._until = now + min(seconds, self._policy.open_cap)

    def force_open(self, ttl: float | None = None, *, reason: str = "operator") -> None:
        """Refuse everything for `ttl` seconds (default: the policy's), in every mode."""
        self._force(Trigger.FORCE_OPEN, ttl, reason)

    def force_close(self, ttl: float | None = None, *, reason: str = "operator") -> None:
        """Let everything through for `ttl` seconds, whatever happens to it."""
        self._force(Trigger.FORCE_CLOSE, ttl, reason)

    def auto(self, *, reason: str = "operator") -> None:
        """End a forced state. Does nothing in any other."""
        self._move(Trigger.AUTO, self._clock(), reason)

    def reset(self, *, reason: str = "operator") -> None:
        """Close, and forget everything: counts, open time, failures."""
        self._failures.clear()
        self._move(Trigger.RESET, self._clock(), reason)

    def _force(self, trigger: Trigger, ttl: float | None, reason: str) -> None:
        now = self._clock()
        self._until = now + (self._policy.force_ttl if ttl is None else ttl)
        self._move(trigger, now, reason)

    def _expire(self, now: float) -> None:
        if self.state in {_FORCED_OPEN, _FORCED_CLOSED} and now >= self._until:
            self._move(Trigger.EXPIRE, now, "the forced state has expired")

    # Moving.

    def _move(self, trigger: Trigger, now: float, reason: str) -> None:
        before, after = self.state, TABLE[self.state].get(trigger)
        if after is None:
            return
        self.level = self._level(now) if trigger is not Trigger.RESET else 0
        if after is _HALF_OPEN and self._mode is Mode.OFF:
            after = _CLOSED
        self._enter(after, now)
        self._reason, self._since, self._since_wall = reason, now, self._wall()
        if self._on_transition is not None:
            self._on_transition(self._transition(before, trigger))

    def _enter(self, after: State, now: float) -> None:
        if self.state is _HALF_OPEN:
            self._end_probe(again=False)
        self.generation += 1
        self._issue = _UNCOUNTED if self._mode is Mode.OFF else self.generation
        self.state = after
        self._probe, self._probed_well, self._refused = None, 0, 0
        if after is _OPEN:
            asked = max(self._not_before - now, 0.0)
            self._until = now + self._policy.open_seconds(self.level, asked=asked, chance=self._random())
            self.level = min(self.level + 1, self._levels)
        elif after is _CLOSED:
            self._window.clear()
            self.consecutive, self._not_before = 0, 0.0

    def _level(self, now: float) -> int:
        """The level now: one less for each `decay_after` that it has been closed."""
        if self.state is not _CLOSED:
            return self.level
        return max(self.level - int((now - self._since) / self._policy.decay_after), 0)

    def _transition(self, before: State, trigger: Trigger) -> Transition:
        lasts = self.state in {_OPEN, _FORCED_OPEN, _FORCED_CLOSED}
        return Transition(
            key=self.key,
            before=before,
            after=self.state,
            trigger=trigger,
            reason=self._reason,
            at=self._since_wall,
            generation=self.generation,
            seconds=self._until - self._since if lasts else None,
        )

    # Looking.

    def current_state(self) -> State:
        """The state, after what time alone has changed. OPEN lasts until somebody asks for a permit."""
        self._expire(self._clock())
        return self.state

    def snapshot(self) -> BreakerSnapshot:
        """How things stand now."""
        now = self._clock()
        self._expire(now)
        self._window.advance(now)
        successes, failures, slow = self._window.totals
        is_forced = self.state in {_FORCED_OPEN, _FORCED_CLOSED}
        return BreakerSnapshot(
            state=self.state,
            mode=self._mode,
            since=self._since_wall,
            reason=self._reason,
            generation=self.generation,
            consecutive_failures=self.consecutive,
            successes=successes,
            failures=failures,
            slow=slow,
            failure_ratio=failures / (successes + failures) if successes + failures else None,
            why=dict(Counter(self._failures)),
            refused=self._refused,
            next_probe_in=max(self._until - now, 0.0) if self.state is _OPEN else None,
            next_open_seconds=min(self._policy.open_base * 2.0 ** self._level(now), self._policy.open_cap),
            forced_until=self._since_wall + self._until - self._since if is_forced else None,
        )
