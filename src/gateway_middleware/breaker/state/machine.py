"""The circuit breaker itself: walks the table of `transitions`. No I/O, no time of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway_middleware.breaker.state.errors import CircuitOpenError
from gateway_middleware.breaker.state.evidence import Evidence
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.probe_gate import GATE_PATIENCE
from gateway_middleware.breaker.state.snapshot import BreakerSnapshot
from gateway_middleware.breaker.state.transitions import FORCED, TABLE, State, Transition, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.state.probe_gate import ProbeGate
    from gateway_middleware.core.domain import Clock

_UNCOUNTED = -1
_PREPARE_SECONDS = 0.25
"""How long before its open time is over a breaker that is asked gets the lease for its probe."""
_PROBE_PATIENCE = 1.0
"""When to ask again while another call is the probe, in seconds."""
_CLOSED, _OPEN, _HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
_FORCED_OPEN, _FORCED_CLOSED = State.FORCED_OPEN, State.FORCED_CLOSED


class Permit:
    """Leave to make one attempt. Ends once, by the first of `succeed`, `fail`, `withdraw` and `release`.

    Later ends do nothing.
    """

    __slots__ = ("_breaker", "bucket", "generation")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self.generation = generation
        self.bucket: int | None = None
        """Where the success is counted that may have to be replaced."""

    @property
    def is_probe(self) -> bool:
        """Whether the next call waits for how this one ends."""
        return self._breaker is not None and self._breaker.is_probe(self)

    def provisional(self, ttft: float | None = None) -> None:
        """The first content has come, after `ttft` seconds: a success until the contrary is known. Ends a probe."""
        if self._breaker is not None:
            self._breaker.on_content(self, ttft)

    def succeed(self, ttft: float | None = None) -> None:
        """The response is complete."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_success(self, ttft)

    def fail(self, judgement: Judgement) -> None:
        """The provider failed; replaces a provisional success."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_failure(self, judgement)

    def withdraw(self) -> None:
        """The attempt failed and says nothing about the provider: a provisional success is counted no more."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_withdrawal(self)

    def release(self) -> None:
        """Nothing is known, or nothing more: the attempt said nothing about the provider."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.on_release(self)


class CircuitBreaker:
    """The circuit breaker of one deployment or one host: decides whether a call may go, learns from how it ended.

    `clock` is monotonic, `wall` the time of day; `random` returns an even number from [0, 1). `on_transition` is called
    when a transition is complete; `gate` has a say in which replica probes. Not for several threads.
    """

    __slots__ = (
        "_clock",
        "_evidence",
        "_gate",
        "_issue",
        "_on_transition",
        "_policy",
        "_probe",
        "_probe_until",
        "_probed_well",
        "_random",
        "_reason",
        "_refused",
        "_since",
        "_since_wall",
        "_until",
        "_wall",
        "generation",
        "key",
        "level",
        "state",
    )

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
        self.state = _CLOSED
        self.generation = 0
        self.level = 0
        """How often the open time is doubled the next time."""
        self._clock, self._wall, self._random = clock, wall, random
        self._on_transition, self._gate = on_transition, gate
        self._policy = policy
        self._evidence = Evidence(policy)
        self._since, self._since_wall, self._reason = clock(), wall(), "new"
        self._until = 0.0
        self._issue = _UNCOUNTED if policy.mode is Mode.OFF else 0
        """The generation on new permits."""
        self._probe: Permit | None = None
        self._probe_until = 0.0
        self._probed_well = self._refused = 0

    @property
    def policy(self) -> BreakerPolicy:
        """The numbers it goes by. Other numbers hold at once, and the state stays.

        An open time is cut to the new `open_cap`. A window of another shape begins empty, without the calls that are
        under way.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: BreakerPolicy) -> None:
        if policy == self._policy:
            return
        self._policy = policy
        if self._evidence.take(policy) and self.state is _CLOSED:
            self.generation += 1
        self._issue = _UNCOUNTED if policy.mode is Mode.OFF else self.generation
        self.level = min(self.level, policy.max_level)
        if self.state is _OPEN:
            self._until = min(self._until, self._clock() + policy.open_cap)

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
        is_on = self._policy.mode is Mode.ON
        if self.state is _FORCED_OPEN or (self.state is _OPEN and is_on):
            return max(self._until - now, 0.0)
        if self.state is _HALF_OPEN and self._probe is not None and is_on:
            return min(max(self._probe_until - now, 0.0), _PROBE_PATIENCE)
        if self.state is _HALF_OPEN and self._gate is not None and is_on:
            return GATE_PATIENCE  # the lease of the probe is asked for, or another replica's
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
        is_refused = self._policy.mode is Mode.ON or self.state is _FORCED_OPEN
        return None if is_refused else Permit(self, _UNCOUNTED)

    def _may_probe(self) -> bool:
        return self._gate is None or self._gate.may_probe(self.key, self._policy.probe_expiry)

    def _end_probe(self, *, again: bool) -> None:
        if self._gate is not None:
            self._gate.ended(self.key, again=again)

    def is_probe(self, permit: Permit) -> bool:
        """Whether this permit is the probe that is out."""
        return self._probe is permit

    # Learning. Called by permits.

    def on_content(self, permit: Permit, ttft: float | None) -> None:
        """Count a success that a failure may replace."""
        if permit.generation == self.generation and permit.bucket is None:
            self._count_success(permit, ttft)

    def on_success(self, permit: Permit, ttft: float | None) -> None:
        """Count a success, unless it was at its first content."""
        if permit.generation != self.generation:
            return
        if permit.bucket is None and self.state is _CLOSED and ttft is None:
            permit.bucket = self._evidence.whole(self._clock())
            return
        self._evidence.completed()
        if permit.bucket is None:
            self._count_success(permit, ttft)

    def on_failure(self, permit: Permit, judgement: Judgement) -> None:
        """Count a failure, in the place of a success if there was one."""
        if permit.generation != self.generation:
            return
        now = self._clock()
        self._evidence.failure(now, judgement, instead_of=permit.bucket)
        if self.state is _HALF_OPEN:
            self._move(Trigger.RELAPSED, now, "a probe failed")
        elif self.state is _CLOSED:
            self._trip(now)

    def on_withdrawal(self, permit: Permit) -> None:
        """Uncount its provisional success, and give a probe's place back."""
        if permit.bucket is not None and permit.generation == self.generation:
            self._evidence.take_back(self._clock(), permit.bucket)
        self.on_release(permit)

    def on_release(self, permit: Permit) -> None:
        """Give a probe's place back."""
        if self._probe is permit:
            self._probe = None
            self._end_probe(again=True)

    def _count_success(self, permit: Permit, ttft: float | None) -> None:
        now = self._clock()
        permit.bucket = self._evidence.success(now)
        if self.state is _HALF_OPEN:
            self._pass_probe(permit, now)
        elif ttft is not None and self._policy.slow_ttft is not None and ttft > self._policy.slow_ttft:
            self._evidence.slow(now)
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
        reason = self._evidence.reason_to_open(self._policy)
        if reason is not None:
            self._move(Trigger.TRIP, now, reason)

    # The operator.

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
        self._evidence.forget_classes()
        self._move(Trigger.RESET, self._clock(), reason)

    def _force(self, trigger: Trigger, ttl: float | None, reason: str) -> None:
        now = self._clock()
        self._until = now + (self._policy.force_ttl if ttl is None else ttl)
        self._move(trigger, now, reason)

    def _expire(self, now: float) -> None:
        if self.state in FORCED and now >= self._until:
            self._move(Trigger.EXPIRE, now, "the forced state has expired")

    # Moving.

    def _move(self, trigger: Trigger, now: float, reason: str) -> None:
        before, after = self.state, TABLE[self.state].get(trigger)
        if after is None:
            return
        self.level = self._level(now) if trigger is not Trigger.RESET else 0
        if after is _HALF_OPEN and self._policy.mode is Mode.OFF:
            after = _CLOSED
        self._enter(after, now)
        self._reason, self._since, self._since_wall = reason, now, self._wall()
        if self._on_transition is not None:
            self._on_transition(self._transition(before, trigger))

    def _enter(self, after: State, now: float) -> None:
        if self.state is _HALF_OPEN:
            self._end_probe(again=False)
        self.generation += 1
        self._issue = _UNCOUNTED if self._policy.mode is Mode.OFF else self.generation
        self.state = after
        self._probe, self._probed_well, self._refused = None, 0, 0
        if after is _OPEN:
            requested = max(self._evidence.not_before - now, 0.0)
            self._until = now + self._policy.open_seconds(self.level, requested=requested, chance=self._random())
            self.level = min(self.level + 1, self._policy.max_level)
        elif after is _CLOSED:
            self._evidence.clear()

    def _level(self, now: float) -> int:
        """The level now: one less for each `decay_after` that it has been closed."""
        if self.state is not _CLOSED:
            return self.level
        return max(self.level - int((now - self._since) / self._policy.decay_after), 0)

    def _transition(self, before: State, trigger: Trigger) -> Transition:
        lasts = self.state is _OPEN or self.state in FORCED
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
        now, evidence = self._clock(), self._evidence
        self._expire(now)
        evidence.window.advance(now)
        successes, failures, slow = evidence.window.totals
        return BreakerSnapshot(
            state=self.state,
            mode=self._policy.mode,
            since=_moment(self._since_wall),
            reason=self._reason,
            generation=self.generation,
            consecutive_failures=evidence.consecutive,
            successes=successes,
            failures=failures,
            slow=slow,
            failure_ratio=failures / (successes + failures) if successes + failures else None,
            why=evidence.why,
            refused=self._refused,
            next_probe_in=max(self._until - now, 0.0) if self.state is _OPEN else None,
            next_open_seconds=self._policy.grown_seconds(self._level(now)),
            forced_until=_moment(self._since_wall + self._until - self._since) if self.state in FORCED else None,
        )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
