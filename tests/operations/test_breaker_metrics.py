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


def test_cooldowns_are_counted_by_provider() -> None:
    metrics = BreakerMetrics(lambda: ROWS, frozenset)
    metrics.cooldown("openai")
    lines = scrape(metrics)
    assert 'model_gateway_cooldowns_total{provider="openai"} 1.0' in lines
    assert 'model_gateway_cooling_down{provider="openai"} 1.0' in lines
