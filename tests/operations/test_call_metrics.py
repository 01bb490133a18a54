"""Metrics of calls, as a scrape sees them."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, generate_latest

from gateway_middleware.core.domain import Deployment, Outcome, Surface, Usage
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.operations.call_metrics import CallMetrics
from gateway_middleware.operations.histogram import Histogram
from gateway_middleware.operations.loop_lag import LoopLag


def record(**fields: object) -> CallRecord:
    used = Usage(input_tokens=12, output_tokens=30, cached_input_tokens=0)
    attempt = Attempt(deployment=Deployment(provider="openai", model="gpt-5-mini"), started=10.002, usage=used)
    given: dict[str, object] = {
        "request_id": "r", "started": 10.0, "received_at": 0.0, "tenant": "acme", "surface": Surface.CHAT,
        "route": "fast", "attempts": [attempt], "ended": 11.0, "first_byte": 10.3, "is_stream": True,
        "outcome": Outcome.SUCCESS, "answered_by": attempt,
    }  # fmt: skip
    return CallRecord(**{**given, **fields})  # type: ignore[arg-type]


def scrape(metrics: CallMetrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_a_call_is_counted_once_with_its_tokens() -> None:
    metrics = CallMetrics(lambda: frozenset({"fast"}))
    metrics.observe(record())

    text = scrape(metrics)

    where = 'model="fast",outcome="success",provider="openai",surface="chat",tenant="acme"'
    assert f"model_gateway_requests_total{{{where}}} 1.0" in text
    assert (
        'model_gateway_tokens_total{model="fast",provider="openai",surface="chat",tenant="acme",type="output"} 30.0'
        in text
    )
    assert "model_gateway_call_duration_seconds_sum" in text
    assert "model_gateway_time_to_first_token_seconds_count" in text


def test_a_model_that_no_route_names_is_other() -> None:
    metrics = CallMetrics(lambda: frozenset({"fast"}))
    for n in range(1000):
        metrics.observe(record(route=f"openai/anything-{n}"))

    text = scrape(metrics)

    assert "anything" not in text
    assert 'model="other"' in text


def test_a_call_that_reached_no_provider_is_a_refusal_with_its_code() -> None:
    metrics = CallMetrics(frozenset)
    metrics.observe(record(attempts=[], error_code="invalid_api_key", outcome=Outcome.REFUSED, tenant=None))

    assert 'model_gateway_refusals_total{code="invalid_api_key",tenant=""} 1.0' in scrape(metrics)


def test_tenants_share_the_histograms() -> None:
    metrics = CallMetrics(lambda: frozenset({"fast"}))
    metrics.observe(record(tenant="a"))
    metrics.observe(record(tenant="b"))

    lines = [
        line for line in scrape(metrics).splitlines() if line.startswith("model_gateway_call_duration_seconds_count")
    ]

    labels = 'model="fast",provider="openai",surface="chat"'
    assert lines == [f"model_gateway_call_duration_seconds_count{{{labels}}} 2.0"]


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)

    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 102.0


def test_tenants_beyond_a_thousand_are_counted_together() -> None:
    metrics = CallMetrics(frozenset)
    for number in range(1100):
        metrics.observe(record(tenant=f"tenant-{number}"))
    labels = {s.labels["tenant"] for f in metrics.collect() if f.name == "model_gateway_requests" for s in f.samples}
    assert len(labels) == 1001
    assert "other" in labels


def test_what_is_unknown_of_a_call_is_not_counted_as_zero() -> None:
    metrics = CallMetrics(lambda: frozenset({"fast"}))
    unknown = record(ended=None)
    unknown.attempts[-1].usage = Usage(input_tokens=7)
    metrics.observe(unknown)
    text = scrape(metrics)
    assert 'model_gateway_requests_total{model="fast"' in text
    assert "model_gateway_call_duration_seconds_count" not in text


async def _seen_lag() -> float:
    lag = LoopLag()
    lag.start()
    await asyncio.sleep(0.4)
    time.sleep(0.3)  # what the gauge is for
    await asyncio.sleep(0.05)
    lag.stop()
    return lag.seconds


def test_a_blocked_loop_is_seen() -> None:
    assert 0.15 < asyncio.run(_seen_lag()) < 0.5
