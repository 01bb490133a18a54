"""Sums of events for metrics."""

from __future__ import annotations

from decimal import Decimal

from gateway_middleware.metering.counters import UsageCounters
from journaled import event


def test_events_are_counted_by_source_tenant_and_provider() -> None:
    counters = UsageCounters()
    for number in range(200):
        counters.note(event(f"{number}", tenant=f"t{number % 2}", cost=None if number == 7 else "0.1"))
    assert counters.sources == {"provider": 200}
    assert counters.costs == {("t0", "openai"): Decimal("10.0"), ("t1", "openai"): Decimal("9.9")}
    assert counters.unpriced == 1


def test_tenants_beyond_a_thousand_are_one() -> None:
    counters = UsageCounters()
    for number in range(1100):
        counters.note(event(f"{number}", tenant=f"t{number}", cost="1"))
    assert len(counters.costs) == 1001
    assert counters.costs["other", "openai"] == 100
