"""CB25: the breaker against a model that keeps every event and works everything out anew."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from breaker_cases import SERVER_ERROR, make_breaker
from clock import Clock
from gateway_middleware.breaker.state.machine import Permit
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.breaker.state.transitions import State, Transition

POLICY = BreakerPolicy(
    consecutive=3, window=20.0, min_calls=5, open_base=10.0, open_cap=60.0, decay_after=30.0, probe_expiry=15.0,
    jitter=0.0, force_ttl=100.0,
)  # fmt: skip


class Call:
    """What the model knows of one permit."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.is_ended = False
        self.counted: Settled | None = None


class Settled:
    """One call in the window, and when it was counted."""

    def __init__(self, at: float, is_failure: bool) -> None:
        self.at = at
        self.is_failure = is_failure


class Model:
    """Brute force, by the letter of the specification. Times are whole seconds."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.state = "closed"
        self.generation = 0
        self.settled: list[Settled] = []
        self.row: list[str] = []  # complete successes and failures since it closed
        self.level = 0
        self.since = now
        self.until = 0.0
        self.asked = 0.0
        self.probe: Call | None = None
        self.probe_taken = 0.0
        self.probes_passed = 0

    def bucket(self, at: float) -> int:
        return int(at // 2)

    def live(self) -> list[Settled]:
        return [s for s in self.settled if self.bucket(self.now) - self.bucket(s.at) < 10]

    def failures_in_a_row(self) -> int:
        count = 0
        while count < len(self.row) and self.row[-1 - count] == "failure":
            count += 1
        return count

    def enter(self, state: str, seconds: float = 0.0) -> None:
        if self.state == "closed":
            self.level = max(0, self.level - int((self.now - self.since) // 30))
        self.generation += 1
        self.state, self.since, self.until = state, self.now, self.now + seconds
        self.probe, self.probes_passed = None, 0
        if state == "closed":
            self.settled, self.row, self.asked = [], [], 0.0
        if state == "open":
            self.until = max(self.now + min(10 * 2**self.level, 60), min(self.asked, self.now + 60))
            self.level = min(self.level + 1, 3)

    def tick(self) -> None:
        if self.state in {"forced_open", "forced_closed"} and self.now >= self.until:
            self.enter("half_open" if self.state == "forced_open" else "closed")

    def acquire(self) -> Call | None:
        self.tick()
        if self.state == "open" and self.now >= self.until:
            self.enter("half_open")
        if self.state in {"closed", "forced_closed"}:
            return Call(self.generation)
        is_taken = self.probe is not None and self.now < self.probe_taken + 15
        if self.state != "half_open" or is_taken:
            return None
        self.probe, self.probe_taken = Call(self.generation), self.now
        return self.probe

    def free(self, call: Call) -> None:
        self.probe = None if self.probe is call else self.probe

    def good(self, call: Call) -> None:
        if call.counted is None:
            call.counted = Settled(self.now, is_failure=False)
            self.settled.append(call.counted)
            if self.state == "half_open":
                self.free(call)
                self.probes_passed += 1
                if self.probes_passed == 2:
                    self.enter("closed")

    def content(self, call: Call) -> None:
        if not call.is_ended and call.generation == self.generation:
            self.good(call)

    def succeed(self, call: Call) -> None:
        if not call.is_ended and call.generation == self.generation:
            self.row.append("success")
            self.asked = 0.0
            self.good(call)
        call.is_ended = True

    def fail(self, call: Call, asked: int) -> None:
        if not call.is_ended and call.generation == self.generation:
            if call.counted is not None:
                self.settled.remove(call.counted)
            self.settled.append(Settled(self.now, is_failure=True))
            self.row.append("failure")
            self.asked = max(self.asked, self.now + asked if asked else 0)
            self.judge()
        call.is_ended = True

    def judge(self) -> None:
        live = self.live()
        failed = sum(s.is_failure for s in live)
        is_bad = self.failures_in_a_row() >= 3 or (len(live) >= 5 and failed * 2 >= len(live))
        if self.state == "half_open" or (self.state == "closed" and is_bad):
            self.enter("open")

    def release(self, call: Call) -> None:
        if not call.is_ended:
            self.free(call)
        call.is_ended = True

    def auto(self) -> None:
        if self.state.startswith("forced"):
            self.enter("half_open" if self.state == "forced_open" else "closed")

    def reset(self) -> None:
        self.enter("closed")
        self.level = 0


which = st.integers(0, 7)


class BreakerMachine(RuleBasedStateMachine):
    """Does the same with both."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1000.0)
        self.log: list[Transition] = []
        self.breaker = make_breaker(self.clock, POLICY, log=self.log)
        self.model = Model(1000.0)
        self.calls: list[tuple[Permit, Call]] = []

    def call(self, number: int) -> tuple[Permit, Call] | None:
        """One of the latest; ended ones too, which must change nothing."""
        return self.calls[-1 - number] if number < len(self.calls) else None

    @rule(seconds=st.one_of(st.integers(0, 4), st.sampled_from([9, 10, 15, 20, 30, 60, 100])))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @rule(times=st.integers(1, 3))
    def acquire(self, times: int) -> None:
        for _ in range(times):
            permit, call = self.breaker.try_acquire(), self.model.acquire()
            assert (permit is None) == (call is None)
            if permit is not None and call is not None:
                self.calls.append((permit, call))

    @rule(number=which)
    def content(self, number: int) -> None:
        if found := self.call(number):
            found[0].provisional()
            self.model.content(found[1])

    @rule(number=which)
    def succeed(self, number: int) -> None:
        if found := self.call(number):
            found[0].succeed()
            self.model.succeed(found[1])

    @rule(number=which, asked=st.sampled_from([0, 0, 0, 25, 400]))
    def fail(self, number: int, asked: int) -> None:
        if found := self.call(number):
            found[0].fail(msgspec.structs.replace(SERVER_ERROR, min_open=float(asked) if asked else None))
            self.model.fail(found[1], asked)

    @rule()
    def three_failures(self) -> None:
        for _ in range(3):
            self.acquire(1)
            self.fail(0, 0)

    @rule(is_good=st.booleans())
    def probe(self, is_good: bool) -> None:
        """The way to HALF_OPEN is long: go it at once."""
        self.three_failures()
        self.time_passes(60)
        self.acquire(2)
        if is_good:
            self.succeed(0)
            self.acquire(1)

    @rule(number=which)
    def release(self, number: int) -> None:
        if found := self.call(number):
            found[0].release()
            self.model.release(found[1])

    @rule(ttl=st.sampled_from([None, 5]))
    def force_open(self, ttl: int | None) -> None:
        self.breaker.force_open(ttl)
        self.model.enter("forced_open", 100 if ttl is None else ttl)

    @rule(ttl=st.sampled_from([None, 5]))
    def force_close(self, ttl: int | None) -> None:
        self.breaker.force_close(ttl)
        self.model.enter("forced_closed", 100 if ttl is None else ttl)

    @rule()
    def auto(self) -> None:
        self.breaker.auto()
        self.model.auto()

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.model.reset()

    @invariant()
    def agree(self) -> None:
        model, snapshot = self.model, self.breaker.snapshot()
        model.tick()
        assert (snapshot.state.value, snapshot.generation) == (model.state, model.generation)
        failures = sum(s.is_failure for s in model.live())
        assert (snapshot.successes, snapshot.failures) == (len(model.live()) - failures, failures)
        assert snapshot.consecutive_failures == model.failures_in_a_row()
        assert [step.generation for step in self.log] == list(range(1, model.generation + 1))
        assert all(before.after is after.before for before, after in zip(self.log, self.log[1:], strict=False))

    def teardown(self) -> None:
        """No wedge: whatever was left behind, patience leads to a permit, and good probes to CLOSED."""
        waited = 0.0
        while (permit := self.breaker.try_acquire()) is None:
            wait = self.breaker.retry_after()
            assert 0 < wait <= 100
            self.clock.advance(wait)
            waited += wait
            assert waited <= 100 + 60 + 15
        permit.succeed()
        for _ in range(2):
            if self.breaker.state is State.HALF_OPEN:
                self.clock.advance(15)
                after = self.breaker.try_acquire()
                assert after is not None
                after.succeed()
        assert self.breaker.state in {State.CLOSED, State.FORCED_CLOSED}


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreakerModel = BreakerMachine.TestCase
