"""Calls that are counted together count as they do one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway_middleware.core.domain import Deployment, Outcome, Surface, Usage
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.operations.attempt_metrics import AttemptMetrics
from gateway_middleware.operations.breaker_metrics import BreakerMetrics
from gateway_middleware.operations.call_metrics import CallMetrics
from gateway_middleware.operations.recent_stats import RecentStats

OUTCOMES = st.sampled_from([None, Outcome.SUCCESS, Outcome.TIMEOUT])
COUNTS = st.none() | st.integers(0, 64)
USAGES = st.none() | st.builds(Usage, input_tokens=COUNTS, output_tokens=COUNTS, cached_input_tokens=COUNTS)
SECONDS = st.integers(16, 32).map(lambda n: n / 16)  # exact, so that sums do not depend on their order
ATTEMPTS = st.builds(
    Attempt,
    deployment=st.builds(Deployment, provider=st.sampled_from("pq"), model=st.sampled_from("xy")),
    started=st.just(1.0),
    ended=st.none() | SECONDS,
    outcome=OUTCOMES,
    usage=USAGES,
)


@st.composite
def records(draw: st.DrawFn) -> CallRecord:
    attempts = draw(st.lists(ATTEMPTS, max_size=3))
    return CallRecord(
        request_id="r",
        started=0.5,
        received_at=0.0,
        tenant=draw(st.sampled_from([None, "a", "b"])),
        surface=draw(st.sampled_from([None, Surface.CHAT, Surface.MESSAGES])),
        route=draw(st.sampled_from([None, "fast", "made-up"])),
        is_stream=draw(st.booleans()),
        ended=draw(st.none() | SECONDS),
        first_byte=draw(st.none() | SECONDS),
        outcome=draw(OUTCOMES),
        error_code=draw(st.sampled_from([None, "refused"])),
        trace_id=draw(st.sampled_from([None, "abc"])),
        attempts=attempts,
        answered_by=attempts[-1] if attempts else None,
    )


def scrape(metrics: Collector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    return sorted(generate_latest(registry).decode().splitlines())


MAKERS: list[Callable[[], CallMetrics | AttemptMetrics | BreakerMetrics]] = [
    lambda: CallMetrics(lambda: frozenset({"fast"})),
    lambda: AttemptMetrics(lambda: frozenset({"fast"}), vendor_of=str.upper),
    lambda: BreakerMetrics(dict, lambda: frozenset({"p/x"}), alarm_classes=()),
]


@pytest.mark.parametrize("make", MAKERS)
@settings(deadline=None)
@given(calls=st.lists(records(), max_size=6))
def test_a_batch_counts_as_its_calls_do_one_by_one(
    make: Callable[[], CallMetrics | AttemptMetrics | BreakerMetrics], calls: list[CallRecord]
) -> None:
    together, apart = make(), make()
    together.observe(*calls)
    for call in calls:
        apart.observe(call)
    assert scrape(together) == scrape(apart)


@settings(deadline=None)
@given(calls=st.lists(records(), max_size=6))
def test_so_do_the_figures_of_the_last_minute(calls: list[CallRecord]) -> None:
    together, apart = RecentStats(lambda: 0.0), RecentStats(lambda: 0.0)
    together.observe(*calls)
    for call in calls:
        apart.observe(call)
    for provider in "pq":
        assert together.of_provider(provider) == apart.of_provider(provider)
