"""Statistics of the last minute."""

from __future__ import annotations

from clock import Clock
from gateway_middleware.core.domain import Deployment, Outcome
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.operations.recent_stats import RecentStats

DEPLOYMENT = Deployment(provider="openai", model="gpt-5-mini")


def record(*outcomes: Outcome, seconds: float = 0.5) -> CallRecord:
    attempts = [Attempt(deployment=DEPLOYMENT, started=0.0, ended=seconds, outcome=o) for o in outcomes]
    return CallRecord(request_id="r", started=0.0, received_at=0.0, attempts=attempts)


def test_faults_count_as_errors_and_the_clients_own_do_not() -> None:
    stats = RecentStats(Clock())

    stats.observe(record(Outcome.SERVER_ERROR, Outcome.SUCCESS))
    stats.observe(record(Outcome.CLIENT_ERROR))
    stats.observe(record(Outcome.CLIENT_DISCONNECT))

    found = stats.of_provider("openai")
    assert (found["attempts"], found["errors"], found["error_rate"]) == (4, 1, 0.25)
    assert found["outcomes"] == {"client_disconnect": 1, "client_error": 1, "server_error": 1, "success": 1}


def test_quantiles_are_within_a_tenth() -> None:
    stats = RecentStats(Clock())
    for milliseconds in range(1, 101):
        stats.observe(record(Outcome.SUCCESS, seconds=milliseconds / 1000))

    found = stats.of_deployment("openai", "gpt-5-mini")["latency_ms"]
    assert 50 <= found["p50"] <= 55.1
    assert 95 <= found["p95"] <= 104.6
    assert 99 <= found["p99"] <= 109


def test_what_is_older_than_a_minute_is_gone() -> None:
    clock = Clock()
    stats = RecentStats(clock)
    stats.observe(record(Outcome.SERVER_ERROR))
    clock.advance(55)
    stats.observe(record(Outcome.SUCCESS))
    assert stats.of_provider("openai")["attempts"] == 2

    clock.advance(10)

    assert stats.of_provider("openai")["attempts"] == 1
    assert stats.of_provider("openai")["errors"] == 0


def test_a_provider_without_traffic_has_no_rate() -> None:
    found = RecentStats(Clock()).of_provider("openai")

    assert found["error_rate"] is None
    assert found["latency_ms"] == {"p50": None, "p95": None, "p99": None}


def test_deployments_that_clients_name_freely_are_bounded() -> None:
    stats = RecentStats(Clock())
    for n in range(5000):
        attempt = Attempt(
            deployment=Deployment(provider="openai", model=f"m{n}"), started=0.0, ended=1.0, outcome=Outcome.SUCCESS
        )
        stats.observe(CallRecord(request_id="r", started=0.0, received_at=0.0, attempts=[attempt]))

    assert stats.of_provider("openai")["attempts"] == 2048


def test_an_attempt_that_has_not_ended_does_not_count() -> None:
    stats = RecentStats(Clock())
    running = Attempt(deployment=DEPLOYMENT, started=0.0)
    stats.observe(CallRecord(request_id="r", started=0.0, received_at=0.0, attempts=[running]))
    assert stats.of_provider("openai")["attempts"] == 0
