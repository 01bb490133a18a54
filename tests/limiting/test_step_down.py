"""Stepping down to a cheaper route: when, and that no sequence of calls spends more than the budget."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.core.domain import BudgetStep, Deployment, Dialect, ModelRequest, Route, Surface, Tenant, Usage
from gateway_middleware.core.record import Attempt, CallRecord
from gateway_middleware.core.scope import RECORD, REQUEST, TENANT
from gateway_middleware.limiting.counters import DecisionCounters
from gateway_middleware.limiting.estimate import Estimator
from gateway_middleware.limiting.middleware import CallLimitMiddleware, CallLimits
from gateway_middleware.limiting.quota import Quota, Quotas
from gateway_middleware.limiting.reservation import LimitReachedError, Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import rpm, spend

pytestmark = pytest.mark.anyio
BUDGET = 1000
"""Micro-dollars."""
DEAR, CHEAP = Deployment(provider="a", model="dear"), Deployment(provider="b", model="cheap")
UNPRICED = Deployment(provider="b", model="unknown")
PER_TOKEN = {DEAR.key: 10, CHEAP.key: 1}
BELOW = Route(name="cheap", deployments=(CHEAP,))


class Prices:
    """Micro-dollars for each token of output; input is free."""

    def estimate(self, deployment: Deployment, *, input_tokens: int, output_tokens: int) -> int | None:
        rate = PER_TOKEN.get(deployment.key)
        return None if rate is None else rate * output_tokens

    def cost(self, record: CallRecord, usage: Usage) -> int | None:
        assert record.answered_by is not None
        return PER_TOKEN[record.answered_by.deployment.key] * (usage.output_tokens or 0)


class Provider:
    """Uses as much of the output cap as it is told."""

    def __init__(self) -> None:
        self.used = 0
        self.spent = 0
        self.asked: list[str] = []
        self.models: list[str] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request, record = REQUEST.get(scope), RECORD.get(scope)
        deployment = request.route.deployments[0]
        self.asked.append(deployment.model)
        self.models.append(request.model)
        used = min(self.used, request.output_cap or 0)
        if self.gate is not None:
            await self.gate.wait()
        attempt = Attempt(deployment=deployment, started=0.0)
        attempt.usage = Usage(input_tokens=0, output_tokens=used)
        attempt.is_complete = True
        record.attempts.append(attempt)
        record.answered_by = attempt
        self.spent += PER_TOKEN[deployment.key] * used


class Desk:
    """The layer over a store in memory, with a clock that is moved."""

    def __init__(self, *limits: Any, percent: int = 100, **quota: Any) -> None:
        self.clock = Clock()
        self.provider = Provider()
        chosen = (spend(BUDGET), *limits)
        calls = CallLimits(
            quotas=Quotas({"acme": Quota(limits=chosen, **quota)}),
            reservations=Reservations(MemoryStore(clock=self.clock, wall=self.clock.wall)),
            estimator=Estimator(),
            counters=DecisionCounters(),
            pricing=Prices(),
        )
        self.layer = CallLimitMiddleware(self.provider, limits=calls, wall=self.clock.wall)
        self.step: BudgetStep | None = BudgetStep(route=BELOW, percent=percent)
        self.deployments = (DEAR,)

    async def call(self, cap: int, used: int | None = None) -> CallRecord:
        self.provider.used = cap if used is None else used
        record = CallRecord(request_id="r", started=0.0, received_at=self.clock.wall(), route="smart")
        route = Route(name="smart", deployments=self.deployments, on_budget=self.step)
        request = ModelRequest(
            surface=Surface.CHAT, dialect=Dialect.OPENAI, model="smart", route=route, body=b"{}",
            fields={"messages": msgspec.Raw(b"[]")}, output_cap=cap,
        )  # fmt: skip
        scope: dict[str, Any] = {"type": "http"}
        TENANT.set(scope, Tenant(name="acme"))
        RECORD.set(scope, record)
        REQUEST.set(scope, request)
        await self.layer(scope, _never, _nobody)
        return record


async def _never() -> Any:
    await asyncio.Event().wait()


async def _nobody(_: Any) -> None:
    return


async def test_what_the_budget_does_not_hold_goes_on_cheaper_and_says_so() -> None:
    desk = Desk()
    assert (await desk.call(90)).stepped_down is None
    record = await desk.call(20)
    assert (record.stepped_down, record.route) == (BELOW, "cheap")
    assert desk.provider.asked == ["dear", "cheap"]
    assert desk.provider.models == ["smart", "smart"]
    assert desk.provider.spent == 920
    with pytest.raises(LimitReachedError) as refused:
        await desk.call(81)
    assert refused.value.limit_status.claim.cost == 810  # that of the route that was asked for
    assert (await desk.call(80)).stepped_down is BELOW
    assert desk.provider.spent == BUDGET


async def test_from_a_share_of_the_budget_on_everything_is_cheaper() -> None:
    desk = Desk(percent=50)
    routes = [(await desk.call(10)).route for _ in range(7)]
    assert routes == ["smart"] * 5 + ["cheap"] * 2


async def test_a_new_period_goes_back_to_what_was_asked_for() -> None:
    desk = Desk(percent=50)
    for _ in range(6):
        await desk.call(10)
    desk.clock.advance(40 * 86400)
    assert (await desk.call(10)).route == "smart"


async def test_other_limits_refuse_as_ever_and_count_once() -> None:
    desk = Desk(rpm(3), percent=50)
    await desk.call(50)
    assert (await desk.call(10)).route == "cheap"  # the request that was given back is free again
    assert (await desk.call(10)).route == "cheap"
    with pytest.raises(LimitReachedError) as refused:
        await desk.call(10)
    assert refused.value.limit_status.claim.limit.name == "rpm"


async def test_where_the_cheaper_route_has_a_limit_of_its_own_the_dear_one_serves_while_it_fits() -> None:
    desk = Desk(percent=50, per_model=(("cheap", (rpm(1),)),))
    await desk.call(50)
    assert [(await desk.call(10)).route for _ in range(3)] == ["cheap", "smart", "smart"]


async def test_a_limit_of_the_dear_model_does_not_bind_the_cheaper_one() -> None:
    desk = Desk(per_model=(("smart", (spend(100),)),))
    assert (await desk.call(10)).route == "smart"
    assert (await desk.call(10)).route == "cheap"


async def test_an_unpriced_cheaper_route_and_a_shadow_limit_change_nothing() -> None:
    desk = Desk()
    desk.step = BudgetStep(route=Route(name="other", deployments=(UNPRICED,)))
    await desk.call(95)
    with pytest.raises(LimitReachedError):
        await desk.call(10)
    shadow = msgspec.structs.replace(spend(10), is_shadow=True)
    assert (await Desk(shadow, percent=10).call(5)).route == "smart"


STEPS = st.lists(st.tuples(st.integers(1, 120), st.integers(0, 120)), max_size=40)


@given(steps=STEPS, percent=st.sampled_from([1, 50, 80, 100]))
def test_one_after_another_each_call_takes_the_way_that_the_budget_leaves(
    steps: list[tuple[int, int]], percent: int
) -> None:
    async def run() -> None:
        desk, spent = Desk(percent=percent), 0
        for cap, share in steps:
            used, left = min(share, cap), BUDGET - spent
            is_low = spent * 100 >= percent * BUDGET
            fits, fits_cheaper = cap * 10 <= left, cap <= left
            expected = "cheap" if fits_cheaper and (is_low or not fits) else "smart" if fits else None
            try:
                route = (await desk.call(cap, used)).route
            except LimitReachedError:
                route = None
            assert route == expected
            spent += 0 if route is None else used * (1 if route == "cheap" else 10)
            assert desk.provider.spent == spent <= BUDGET

    asyncio.run(run())


@given(caps=st.lists(st.integers(1, 60), min_size=2, max_size=25), percent=st.sampled_from([50, 80, 100]))
def test_all_at_once_they_never_spend_more_than_the_budget(caps: list[int], percent: int) -> None:
    async def run() -> None:
        desk = Desk(percent=percent)
        desk.provider.gate = asyncio.Event()
        calls = [asyncio.create_task(desk.call(cap)) for cap in caps]
        for _ in range(50):
            await asyncio.sleep(0)
        desk.provider.gate.set()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, CallRecord | LimitReachedError) for end in ended)
        assert desk.provider.spent <= BUDGET

    asyncio.run(run())
