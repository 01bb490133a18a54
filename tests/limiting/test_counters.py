"""What is counted of decisions, and how limits are listed."""

from __future__ import annotations

import pytest

from clock import Clock
from gateway_middleware.core.domain import Tenant
from gateway_middleware.limiting.budgets import BudgetReached, Budgets
from gateway_middleware.limiting.counters import DecisionCounters, limit_rows
from gateway_middleware.limiting.limit import Alignment, Decision, Limit, LimitStatus, Unit
from gateway_middleware.limiting.quota import Quota, Quotas
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import claim, rpm, slots, spend

pytestmark = pytest.mark.anyio


async def test_admitted_refused_and_shadowed_are_counted_apart() -> None:
    shadowed: list[tuple[str, str]] = []
    counters = DecisionCounters(on_shadow=lambda tenant, status: shadowed.append((tenant, status.claim.limit.name)))
    store = MemoryStore(clock=Clock())
    claims = [claim("acme", rpm(2)), claim("acme-shadow", rpm(1, is_shadow=True))]
    for _ in range(3):
        counters.note("acme", store.admit(claims[:1], b"o"))
        counters.note("acme", store.admit(claims[1:], b"o"))
    (counts,) = counters.counts().values()

    assert (counts.admitted, counts.refused, counts.shadowed) == (3, 1, 2)
    assert (counts.remaining, counts.amount) == (0, 1)
    assert shadowed == [("acme", "rpm")] * 2


async def test_shadows_need_no_listener_and_degraded_decisions_are_counted() -> None:
    counters = DecisionCounters()
    limit = rpm(1, is_shadow=True)
    status = LimitStatus(claim("acme", limit), 0, 5, False, 0, 0, 0)
    for number in range(130):  # more than a batch
        counters.note("acme", Decision(True, (status,), b"o", is_degraded=number % 2 == 0))

    assert counters.counts()["acme", "rpm"].shadowed == 130
    assert counters.degraded_decisions == 65


async def test_of_limits_that_refuse_budgets_are_told_of_those_on_spend() -> None:
    told: list[BudgetReached] = []
    counters, clock = DecisionCounters(budgets=Budgets(told.append)), Clock()
    store = MemoryStore(clock=clock, wall=clock)
    limits = [rpm(2), Limit(name="spend", amount=1000, unit=Unit.SPEND, length=1, alignment=Alignment.DAYS)]
    for cost in (600, 1, 1):
        claims = [claim("acme", limits[0]), claim("acme", limits[1], cost)]
        counters.note("acme", store.admit(claims, b"o"))
    counters.refresh()

    assert counters.counts()["acme", "rpm"].refused == 1
    assert [(budget.limit, budget.threshold) for budget in told] == [("spend", 50)]


async def test_tenants_beyond_the_bound_are_one() -> None:
    counters, store = DecisionCounters(max_tenants=1), MemoryStore(clock=Clock())
    for tenant in ("a", "b", "c", "a"):
        counters.note(tenant, store.admit([claim(tenant, rpm(9))], b"o"))

    assert {key: counts.admitted for key, counts in counters.counts().items()} == {("a", "rpm"): 2, ("other", "rpm"): 2}


async def test_rows_say_how_limits_stand_and_take_nothing() -> None:
    clock = Clock()
    quotas = Quotas({"acme": Quota(limits=(rpm(10), spend(2_500_000), slots(3)), per_model=(("gpt-*", (rpm(5),)),))})
    reservations, tenant = Reservations(MemoryStore(clock=clock, wall=clock)), Tenant(name="acme")
    await reservations.reserve(quotas.all_claims(tenant)[:2])
    rows = await limit_rows(quotas, reservations, tenant)

    assert [(r["name"], r["limit"], r["used"], r["period"], r["scope"]) for r in rows] == [
        ("rpm", 10, 1, "minute", "tenant"),
        ("spend", 2.5, 0.000001, "month", "tenant"),
        ("concurrency", 3, 0, None, "tenant"),
        ("model-rpm", 5, 0, "minute", "model/gpt-*"),
    ]
    assert rows == await limit_rows(quotas, reservations, tenant)
    assert 60 <= rows[0]["reset_after"] <= 61
    assert await limit_rows(Quotas(), reservations, tenant) == []


async def test_a_worker_that_shares_nothing_tells_its_share_and_what_is_used_of_it() -> None:
    clock = Clock()
    quotas = Quotas({"acme": Quota(limits=(rpm(10), slots(3)))})
    reservations, tenant = Reservations(MemoryStore(clock=clock, wall=clock, weight=2)), Tenant(name="acme")
    await reservations.reserve(quotas.all_claims(tenant))
    rows = await limit_rows(quotas, reservations, tenant)
    assert [(r["limit"], r["share"], r["used"], r["remaining"]) for r in rows] == [(10, 5, 1, 4), (3, 1, 1, 0)]


async def test_rows_tell_what_was_used_though_it_is_more_than_the_limit() -> None:
    clock = Clock()
    quotas = Quotas({"acme": Quota(limits=(spend(2_500_000),))})
    reservations, tenant = Reservations(MemoryStore(clock=clock, wall=clock)), Tenant(name="acme")
    reservation = await reservations.reserve(quotas.all_claims(tenant))
    await reservation.settle(spend=4_000_000)
    (row,) = await limit_rows(quotas, reservations, tenant)

    assert (row["limit"], row["remaining"], row["used"]) == (2.5, 0.0, 4.0)
