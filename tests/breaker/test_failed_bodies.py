"""Which bodies have failed lately: what is the same body, for how long, and how many are remembered."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker_cases import Calls, no_jitter, status_error
from clock import Clock
from gateway_middleware.breaker.failed_bodies import FailedBodies, digest_of
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.core.errors import UpstreamConnectError, UpstreamTimeoutError

MIB = 1024 * 1024
BODIES = [
    b"",
    b"{}",
    b'{"a":1}',
    b"--",
    b"-- no form",
    b"a" * (3 * MIB),
    b"a" * (3 * MIB + 1),
    b"b" + b"a" * (3 * MIB - 1),
    b"a" * (3 * MIB - 1) + b"b",
    b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n2\r\n--x--\r\n',
]


def test_different_bodies_have_different_digests() -> None:
    digests = [digest_of(body) for body in BODIES]

    assert len(set(digests)) == len(BODIES)
    assert digests == [digest_of(bytes(bytearray(body))) for body in BODIES]


def test_the_boundary_of_a_form_is_no_part_of_it() -> None:
    form = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--%b--\r\n'
    first, second = (form.replace(b"%b", boundary) for boundary in (b"3f1c", b"a-longer-boundary"))

    assert digest_of(first) == digest_of(second)


def test_a_body_counts_once_in_a_minute_at_each_deployment() -> None:
    clock = Clock()
    failed = FailedBodies(clock)

    assert [failed.note("a/m", b"1"), failed.note("b/m", b"1"), failed.note("a/m", b"2")] == [True] * 3
    clock.advance(59.9)
    assert [failed.note("a/m", b"1"), failed.note("b/m", b"1")] == [False] * 2
    clock.advance(0.1)
    assert [failed.note("a/m", b"1"), failed.note("a/m", b"1")] == [True, False]


def test_only_so_many_are_remembered_the_latest_of_them() -> None:
    failed = FailedBodies(Clock(), max_bodies=100)
    for number in range(10_000):
        assert failed.note("a/m", b"%d" % number)
        assert len(failed) <= 100

    assert not any(failed.note("a/m", b"%d" % number) for number in range(9_900, 10_000))


@given(notes=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.floats(0, 50)), max_size=40))
def test_no_body_counts_twice_within_a_minute(notes: list[tuple[str, int, float]]) -> None:
    clock = Clock()
    failed = FailedBodies(clock)
    counted: dict[tuple[str, int], list[float]] = {}
    for deployment, number, pause in notes:
        clock.advance(pause)
        times = counted.setdefault((deployment, number), [])
        is_due = not times or clock() - times[-1] >= 60
        assert failed.note(deployment, b"%d" % number) is is_due
        if is_due:
            times.append(clock())
    for times in counted.values():
        assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(("error", "failures"), [(status_error(500), 1), (status_error(400), 0)])
def test_the_attempts_of_many_calls_with_one_body_are_one_failure(error: Exception, failures: int) -> None:
    calls = Calls()
    calls.register("a/m")
    for _ in range(20):
        sequence = calls.begin("a/m", body=b"poison")
        planned = sequence.first()
        assert sequence.failed(planned, error, can_move=False) is None

    assert calls.failures("a/m") == failures


def test_a_permit_that_has_ended_withdraws_nothing() -> None:
    clock = Clock()
    breaker = CircuitBreaker(BreakerPolicy(), clock=clock, wall=clock.wall, random=no_jitter)
    permit = breaker.acquire()
    permit.succeed()
    permit.withdraw()
    silent = breaker.acquire()
    silent.withdraw()

    assert (breaker.snapshot().successes, breaker.snapshot().failures) == (1, 0)


def test_what_was_never_answered_says_nothing_of_the_host_either() -> None:
    calls = Calls()
    calls.register("a/m")
    for _ in range(2):
        sequence = calls.begin("a/m", body=b"poison")
        sequence.failed(sequence.first(), UpstreamTimeoutError("late", phase="first_byte"), can_move=False)
    row = calls.registry.snapshot()["a"]

    assert (row.deployments["a/m"].failures, row.endpoints["endpoint:a.example.com:443"].successes) == (1, 0)


def test_a_host_that_cannot_be_reached_is_counted_each_time() -> None:
    calls = Calls()
    calls.register("a/m")
    for _ in range(5):
        sequence = calls.begin("a/m", body=b"the same")
        sequence.failed(sequence.first(), UpstreamConnectError("refused"), can_move=False)

    assert calls.transitions[-1].key == "endpoint:a.example.com:443"


def test_a_repeated_failure_takes_its_first_content_back() -> None:
    calls = Calls()
    calls.register("a/m")
    for _ in range(3):
        sequence = calls.begin("a/m", body=b"poison")
        planned = sequence.first()
        planned.on_content()
        sequence.failed(planned, status_error(500), can_move=False)
    row = calls.registry.snapshot()["a"].deployments["a/m"]

    assert (row.successes, row.failures) == (0, 1)
