"""The breaker against the rows of the test matrix that need no network: CB1-CB4, CB8, CB12, CB14-CB18, CB21."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from breaker_cases import SERVER_ERROR, fail, half_open, make_breaker, succeed, taken
from clock import Clock
from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import RULES
from gateway_middleware.breaker.state.errors import CircuitOpenError
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.transitions import State, Transition

MATRIX_PROFILE = BreakerPolicy(window=10.0, open_base=1.0, probe_expiry=3.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_cb1_five_failures_open_it(clock: Clock) -> None:
    breaker = make_breaker(clock)
    calls = 0
    for _ in range(100):
        permit = breaker.try_acquire()
        if permit is not None:
            calls += 1
            permit.fail(SERVER_ERROR)
    assert calls == 5
    assert breaker.snapshot().refused == 95
    make_breaker(clock).acquire().succeed()
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert (caught.value.http_status, caught.value.retry_after) == (503, 10.0)


@pytest.mark.parametrize(("wait", "headers"), [(10.0, []), (60.0, []), (61.0, [(b"x-should-retry", b"false")])])
def test_sdks_are_told_when_a_retry_is_of_no_use(wait: float, headers: list[tuple[bytes, bytes]]) -> None:
    assert CircuitOpenError("open", retry_after=wait).headers == headers


def never_five(share: float, seed: int) -> list[bool]:
    """A thousand calls of which this share fails, never five in a row, evenly enough."""
    dice, run, fates = random.Random(seed), 0, list[bool]()
    for number in range(1000):
        owed = sum(fates) < share * (number + 1)
        fails = run < 4 and owed and (run == 0 or dice.random() < 0.8)
        run = run + 1 if fails else 0
        fates.append(fails)
    return fates


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.4])
def test_cb2_ratio(clock: Clock, share: float, seed: int) -> None:
    breaker = make_breaker(clock)
    for number, fails in enumerate(never_five(share, seed)):
        clock.advance(0.1)
        permit = breaker.try_acquire()
        if permit is None:
            assert share == 0.5
            assert number <= 20
            return
        permit.fail(SERVER_ERROR) if fails else permit.succeed()
    assert share == 0.4


def test_cb2_ratio_needs_ten_calls(clock: Clock) -> None:
    breaker = make_breaker(clock)
    for _ in range(4):
        fail(breaker)
        succeed(breaker)
    fail(breaker)
    assert breaker.current_state() is State.CLOSED
    succeed(breaker)
    assert breaker.current_state() is State.CLOSED, "good news opens nothing, though 5 of 10 failed"
    fail(breaker)
    assert breaker.current_state() is State.OPEN


@pytest.mark.parametrize(("good", "bad", "state"), [(5, 5, State.OPEN), (6, 5, State.CLOSED), (4, 5, State.CLOSED)])
def test_cb2_half_of_ten_is_enough(clock: Clock, good: int, bad: int, state: State) -> None:
    breaker = make_breaker(clock, BreakerPolicy(consecutive=100))
    succeed(breaker, good)
    fail(breaker, bad)
    assert breaker.current_state() is state


def test_cb3_four_failures_and_a_success(clock: Clock) -> None:
    log: list[Transition] = []
    breaker = make_breaker(clock, BreakerPolicy(failure_ratio=0.9), log=log)
    for _ in range(50):
        fail(breaker, 4)
        succeed(breaker)
    assert not log


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.verdict == "neutral"])
def test_cb4_cb14_neutral_ends_change_nothing(clock: Clock, name: FailureClass) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 4)
    before = breaker.snapshot()
    for _ in range(100):
        taken(breaker).release()
    assert breaker.snapshot() == before
    fail(breaker)
    assert breaker.current_state() is State.OPEN, "a neutral end does not break the row of failures either"


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_cb8_retry_after_is_the_least_open_time(clock: Clock, chance: float) -> None:
    breaker = make_breaker(clock, MATRIX_PROFILE, random=lambda: chance)
    overloaded = msgspec.structs.replace(RULES[FailureClass.OVERLOADED], min_open=4.0)
    fail(breaker, 5, overloaded)
    assert 4.0 <= breaker.retry_after() <= 5.0


def test_the_longest_retry_after_counts(clock: Clock) -> None:
    breaker = make_breaker(clock, random=lambda: 0.0)
    for seconds in (40.0, 4.0):
        fail(breaker, 1, msgspec.structs.replace(RULES[FailureClass.OVERLOADED], min_open=seconds))
    fail(breaker, 3)
    assert breaker.retry_after() == 40.0


def test_retry_after_is_capped_and_forgotten_after_a_success(clock: Clock) -> None:
    breaker = make_breaker(clock)
    endless = msgspec.structs.replace(RULES[FailureClass.OVERLOADED], min_open=9999.0)
    fail(breaker, 1, endless)
    succeed(breaker)
    fail(breaker, 5)
    assert breaker.retry_after() == 10.0
    breaker.reset()
    fail(breaker, 5, endless)
    assert breaker.retry_after() == 300.0


@pytest.mark.parametrize("chunks", range(1, 51, 7))
def test_cb12_streams_that_break_after_content(clock: Clock, chunks: int) -> None:
    breaker = make_breaker(clock)
    broken = 0
    for _ in range(20):
        permit = breaker.try_acquire()
        if permit is None:
            break
        permit.provisional(0.2)
        clock.advance(0.02 * chunks)
        permit.fail(SERVER_ERROR)
        broken += 1
    assert broken == 5


def test_cb12_ten_broken_streams_are_a_ratio_of_one(clock: Clock) -> None:
    breaker = make_breaker(clock, BreakerPolicy(consecutive=100, min_calls=11))
    permits = [taken(breaker) for _ in range(10)]
    for permit in permits:
        permit.provisional()
    assert breaker.snapshot().failure_ratio == 0.0
    clock.advance(30)
    for permit in permits:
        permit.fail(SERVER_ERROR)
    assert (breaker.snapshot().failures, breaker.snapshot().failure_ratio) == (10, 1.0)


def test_a_broken_stream_counts_when_it_breaks_even_if_it_began_long_ago(clock: Clock) -> None:
    breaker = make_breaker(clock, BreakerPolicy(consecutive=100))
    permit = taken(breaker)
    permit.provisional()
    clock.advance(120)
    permit.fail(SERVER_ERROR)
    assert (breaker.snapshot().successes, breaker.snapshot().failures) == (0, 1)


def test_only_a_complete_response_ends_a_row_of_failures(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 4)
    permit = taken(breaker)
    permit.provisional()
    assert breaker.snapshot().consecutive_failures == 4
    permit.succeed()
    assert breaker.snapshot().consecutive_failures == 0
    assert breaker.snapshot().successes == 1


def test_a_client_that_leaves_after_content_leaves_a_success(clock: Clock) -> None:
    breaker = make_breaker(clock)
    permit = taken(breaker)
    permit.provisional()
    permit.provisional()
    permit.release()
    permit.fail(SERVER_ERROR)
    assert (breaker.snapshot().successes, breaker.snapshot().failures) == (1, 0)


ENDS: list[Callable[..., None]] = [
    lambda permit: permit.succeed(),
    lambda permit: permit.fail(SERVER_ERROR),
    lambda permit: permit.release(),
    lambda permit: permit.provisional(),
]


@pytest.mark.parametrize("first", ENDS[:3])
@pytest.mark.parametrize("second", ENDS)
def test_a_permit_ends_once(clock: Clock, first: Callable[..., None], second: Callable[..., None]) -> None:
    breaker = make_breaker(clock)
    permit = taken(breaker)
    first(permit)
    once = breaker.snapshot()
    second(permit)
    assert breaker.snapshot() == once


def test_cb15_one_probe_at_a_time(clock: Clock) -> None:
    breaker = make_breaker(clock)
    probe = half_open(breaker, clock)
    assert [breaker.try_acquire() for _ in range(199)] == [None] * 199
    assert breaker.retry_after() == 1.0
    probe.succeed()
    assert breaker.current_state() is State.HALF_OPEN
    second = taken(breaker)
    assert breaker.try_acquire() is None
    second.provisional()
    assert breaker.current_state() is State.CLOSED


def test_the_first_content_ends_a_probe_and_its_failure_still_counts(clock: Clock) -> None:
    breaker = make_breaker(clock)
    probe = half_open(breaker, clock)
    probe.provisional()
    second = taken(breaker)
    probe.fail(SERVER_ERROR)
    assert breaker.current_state() is State.OPEN
    second.succeed()
    assert breaker.current_state() is State.OPEN, "the second probe is of an older generation"


def test_cb16_a_cancelled_probe_gives_its_place_back(clock: Clock) -> None:
    breaker = make_breaker(clock)
    half_open(breaker, clock).release()
    assert breaker.retry_after() == 0.0
    assert breaker.try_acquire() is not None


def test_cb16_a_lost_probe_expires(clock: Clock) -> None:
    breaker = make_breaker(clock)
    lost = half_open(breaker, clock)
    clock.advance(60.9)
    assert breaker.try_acquire() is None
    clock.advance(0.1)
    third = taken(breaker)
    lost.release()
    assert breaker.try_acquire() is None, "the place belongs to another probe by now"
    third.release()
    assert breaker.try_acquire() is not None


def test_a_late_answer_of_a_lost_probe_leaves_the_place_of_the_next(clock: Clock) -> None:
    breaker = make_breaker(clock)
    lost = half_open(breaker, clock)
    clock.advance(61)
    taken(breaker)
    lost.succeed()
    assert breaker.try_acquire() is None


def test_good_probes_must_be_in_a_row(clock: Clock) -> None:
    breaker = make_breaker(clock)
    half_open(breaker, clock).succeed()
    fail(breaker)
    clock.advance(20)
    succeed(breaker)
    assert breaker.current_state() is State.HALF_OPEN
    succeed(breaker)
    assert breaker.current_state() is State.CLOSED


def test_slow_probes_close_it_though_their_places_have_expired(clock: Clock) -> None:
    """Else a deployment whose answers all take longer than the expiry would never come back."""
    breaker = make_breaker(clock)
    probe = half_open(breaker, clock)
    clock.advance(100)
    probe.succeed()
    second = taken(breaker)
    clock.advance(100)
    second.succeed()
    assert breaker.current_state() is State.CLOSED


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("moment", ["open", "half_open", "closed"])
def test_cb17_calls_from_before_are_ignored(clock: Clock, moment: str, end: Callable[..., None]) -> None:
    breaker = make_breaker(clock)
    old = [taken(breaker) for _ in range(20)]
    fail(breaker, 5)
    if moment != "open":
        clock.advance(10)
        taken(breaker).succeed()
    if moment == "closed":
        taken(breaker).succeed()
    before = breaker.snapshot()
    assert before.state == moment
    for permit in old:
        end(permit)
    assert breaker.snapshot() == before


def test_cb18_open_time_doubles_to_its_cap_and_decays(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 5)
    waits = []
    for _ in range(8):
        waits.append(breaker.retry_after())
        clock.advance(waits[-1])
        fail(breaker)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    clock.advance(300)
    succeed(breaker, 2)
    clock.advance(4 * 60 + 59)
    fail(breaker, 5)
    assert breaker.retry_after() == 20
    clock.advance(20)
    succeed(breaker, 2)
    clock.advance(120)
    fail(breaker, 5)
    assert breaker.retry_after() == 10


@pytest.mark.parametrize(("chance", "first", "last"), [(0.0, 8.0, 240.0), (0.5, 10.0, 300.0), (0.999, 11.996, 300.0)])
def test_cb18_jitter(clock: Clock, chance: float, first: float, last: float) -> None:
    breaker = make_breaker(clock, random=lambda: chance)
    fail(breaker, 5)
    assert breaker.retry_after() == pytest.approx(first)
    for _ in range(6):
        clock.advance(breaker.retry_after())
        fail(breaker)
    assert breaker.retry_after() == pytest.approx(last)


def test_time_under_force_is_no_health(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 5)
    breaker.force_close(600)
    clock.advance(600)
    fail(breaker, 5)
    assert breaker.retry_after() == 20


def test_cb21_forced_open_lets_nothing_through_until_its_time_is_over(clock: Clock) -> None:
    breaker = make_breaker(clock, MATRIX_PROFILE)
    breaker.force_open(3.0)
    for _ in range(29):
        clock.advance(0.1)
        assert breaker.try_acquire() is None
    forced_until = breaker.snapshot().forced_until
    assert forced_until is not None
    assert forced_until.timestamp() == pytest.approx(clock.wall() + 0.1)
    clock.advance(0.11)
    succeed(breaker, 2)
    assert breaker.current_state() is State.CLOSED


def test_cb21_forced_closed_lets_everything_through_until_its_time_is_over(clock: Clock) -> None:
    breaker = make_breaker(clock, msgspec.structs.replace(MATRIX_PROFILE, slow_ttft=2.0))
    breaker.force_close(3.0)
    for _ in range(29):
        clock.advance(0.1)
        fail(breaker)
        taken(breaker).succeed(9.0)
    assert breaker.current_state() is State.FORCED_CLOSED
    assert breaker.snapshot().failures > 10
    clock.advance(0.11)
    fail(breaker, 4)
    assert breaker.current_state() is State.CLOSED, "what happened under force is forgotten"
    fail(breaker)
    assert breaker.current_state() is State.OPEN


def test_the_default_force_lasts_an_hour(clock: Clock) -> None:
    breaker = make_breaker(clock)
    breaker.force_open()
    clock.advance(3599)
    assert breaker.try_acquire() is None
    clock.advance(1)
    assert breaker.try_acquire() is not None


def test_reset_forgets_everything(clock: Clock) -> None:
    breaker = make_breaker(clock)
    fail(breaker, 5)
    clock.advance(10)
    fail(breaker)
    breaker.reset()
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.consecutive_failures, snapshot.failures) == (State.CLOSED, 0, 0)
    assert (snapshot.why, snapshot.next_open_seconds, snapshot.reason) == ({}, 10.0, "operator")


def test_slow_calls_open_it_where_that_is_asked_for(clock: Clock) -> None:
    slow = make_breaker(clock, BreakerPolicy(slow_ttft=2.0))
    for _ in range(2):
        taken(slow).succeed(0.5)
    for _ in range(7):
        taken(slow).succeed(2.5)
    permit = taken(slow)
    assert slow.current_state() is State.CLOSED
    permit.provisional(2.5)
    assert slow.current_state() is State.OPEN
    careless = make_breaker(clock)
    for _ in range(50):
        taken(careless).succeed(500.0)
    assert careless.current_state() is State.CLOSED


def test_shadow_reports_and_refuses_nothing(clock: Clock) -> None:
    log: list[Transition] = []
    breaker = make_breaker(clock, BreakerPolicy(mode=Mode.SHADOW), log=log)
    fail(breaker, 5)
    assert breaker.current_state() is State.OPEN
    assert breaker.retry_after() == 0.0
    fail(breaker, 20)
    assert breaker.snapshot().refused == 20
    clock.advance(10)
    probe, other = taken(breaker), taken(breaker)
    other.fail(SERVER_ERROR)
    assert breaker.current_state() is State.HALF_OPEN, "what would have been refused does not count"
    assert breaker.retry_after() == 0.0
    probe.succeed()
    succeed(breaker)
    assert [step.after for step in log] == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_off_counts_nothing(clock: Clock) -> None:
    breaker = make_breaker(clock, BreakerPolicy(mode=Mode.OFF))
    fail(breaker, 100)
    succeed(breaker, 100)
    assert (breaker.current_state(), breaker.snapshot().failures, breaker.snapshot().successes) == (State.CLOSED, 0, 0)


def test_snapshot_says_why(clock: Clock) -> None:
    breaker = make_breaker(clock)
    clock.advance(3)
    fail(breaker, 2, RULES[FailureClass.TRUNCATED])
    fail(breaker, 3)
    opened = clock.wall()
    clock.advance(4)
    snapshot = breaker.snapshot()
    assert snapshot.why == {"truncated": 2, "server_error": 3}
    assert (snapshot.since.timestamp(), snapshot.reason, snapshot.next_probe_in) == (opened, "5 failures in a row", 6.0)
    assert (snapshot.failure_ratio, snapshot.next_open_seconds, snapshot.forced_until) == (1.0, 20.0, None)
    document = msgspec.json.decode(msgspec.json.encode(snapshot))
    assert (document["state"], document["mode"]) == ("open", "on")
    assert document["since"].endswith("Z"), "RFC 3339"


@pytest.mark.parametrize(
    "wrong",
    [
        {"consecutive": 0},
        {"buckets": 0},
        {"window": 0.0},
        {"failure_ratio": 0.0},
        {"failure_ratio": 1.5},
        {"jitter": 1.0},
        {"open_base": 301.0},
        {"probe_expiry": -1.0},
    ],
)
def test_policies_that_make_no_breaker(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]
