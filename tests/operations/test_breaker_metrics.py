"""Metrics of breakers and attempts, as a scrape sees them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from gateway_middleware.core.domain import Deployment, Outcome
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.operations.breaker_metrics import BreakerMetrics

ROWS = {"openai": {"cooldowns": ["one"], "deployments": {}, "endpoints": {}}}


def scrape(metrics: BreakerMetrics) -> list[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode().splitlines()


def refused(model: str) -> CallRecord:
    attempt = Attempt(deployment=Deployment(provider="openai", model=model), started=1.0, ended=2.0)
    attempt.outcome = Outcome.PROVIDER_AUTH
    return CallRecord(request_id="r", started=1.0, received_at=0.0, attempts=[attempt])


def attempts(deployment: str, value: float) -> str:
    labels = f'deployment="{deployment}",outcome="provider_auth",provider="openai"'
    return f"model_gateway_attempts_total{{{labels}}} {value}"


def test_refusals_of_our_key_are_counted_from_zero() -> None:
    metrics = BreakerMetrics(lambda: ROWS, lambda: frozenset({"openai/known"}))
    before = scrape(metrics)
    assert attempts("openai/known", 0.0) in before
    assert attempts("other", 0.0) in before

    metrics.observe(refused("known"))
    metrics.observe(refused("made-up"))

    after = scrape(metrics)
    assert attempts("openai/known", 1.0) in after
    assert attempts("other", 1.0) in after
    assert not [line for line in after if "made-up" in line]


def test_states_of_what_is_configured_are_shown() -> None:
    class Row:
        state = "open"

    rows = {"openai": {"cooldowns": [], "deployments": {"openai/known": Row, "openai/made-up": Row},
                       "endpoints": {"endpoint:api.openai.com:443": Row}}}  # fmt: skip
    metrics = BreakerMetrics(lambda: rows, lambda: frozenset({"openai/known"}))
    metrics.transition("openai/made-up", "open")
    lines = scrape(metrics)
    assert 'model_gateway_circuit_breaker_state{breaker="openai/known",state="open"} 1.0' in lines
    assert 'model_gateway_circuit_breaker_state{breaker="openai/known",state="closed"} 0.0' in lines
    assert 'model_gateway_circuit_breaker_state{breaker="endpoint:api.openai.com:443",state="open"} 1.0' in lines
    assert 'model_gateway_circuit_breaker_transitions_total{breaker="other",state="open"} 1.0' in lines
    assert not [line for line in lines if "made-up" in line]


def test_a_call_that_moved_on_is_a_failover() -> None:
    metrics = BreakerMetrics(dict, frozenset)
    attempts = [Attempt(deployment=Deployment(provider=name, model="m"), started=1.0) for name in ("a", "a", "b")]
    metrics.observe(CallRecord(request_id="r", started=1.0, received_at=0.0, attempts=attempts))
    failovers = [line for line in scrape(metrics) if line.startswith("model_gateway_failovers_total")]
    assert failovers == ['model_gateway_failovers_total{from="a",to="b"} 1.0']


def test_cooldowns_are_counted_by_provider() -> None:
    metrics = BreakerMetrics(lambda: ROWS, frozenset)
    metrics.cooldown("openai")
    lines = scrape(metrics)
    assert 'model_gateway_cooldowns_total{provider="openai"} 1.0' in lines
    assert 'model_gateway_cooling_down{provider="openai"} 1.0' in lines
