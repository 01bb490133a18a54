"""A budget tells of itself at half, four fifths and its end, once a period."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.limiting.budgets import BudgetReached, Budgets
from gateway_middleware.limiting.counters import DecisionCounters
from gateway_middleware.limiting.limit import Alignment, Change, Claim, Limit, Unit, limit_key
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.memory import MemoryStore

DAY = 86_400


def budget(amount: int = 1000, name: str = "spend") -> Limit:
    return Limit(name=name, amount=amount, unit=Unit.SPEND, length=1, alignment=Alignment.DAYS)


class Spent:
    """Calls under one budget, each taking so much and settled at so much."""

    def __init__(self, limit: Limit | None = None, *, weight: int = 1, scope: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.limit = limit or budget()
        self.told: list[BudgetReached] = []
        self.budgets = Budgets(self.told.append)
        self.store = MemoryStore(clock=self.clock, wall=self.clock.wall, weight=weight)
        self.weight = weight
        self.key = limit_key("acme", self.limit, *scope)

    def call(self, cost: int, settled: int | None = None) -> bool:
        self.store.tick()
        claim = Claim(self.key, self.limit, cost)
        decision = self.store.admit([claim], b"o")
        (status,) = decision.statuses
        self.budgets.note("acme", status, weight=self.weight)
        if decision.is_admitted and settled is not None:
            self.store.settle(decision, [Change(claim, status.newest, settled - cost)])
        return decision.is_admitted

    @property
    def thresholds(self) -> list[int]:
        return [told.threshold for told in self.told]


def test_each_threshold_once() -> None:
    spent = Spent()
    for _ in range(120):
        spent.call(10)
    assert spent.thresholds == [50, 80, 100]
    first = spent.told[0]
    assert (first.owner, first.limit, first.amount) == ("acme", "spend", 1000)
    assert first.period_start <= spent.clock.wall() < first.period_end == first.period_start + DAY
    assert spent.budgets.standing(spent.clock.wall()) == {("acme", "spend"): 100}


def test_what_is_only_reserved_by_the_call_itself_is_not_spent() -> None:
    spent = Spent()
    assert spent.call(900, settled=10)
    assert spent.call(900, settled=10)
    assert spent.thresholds == []


def test_one_settlement_may_pass_several() -> None:
    spent = Spent()
    spent.call(10, settled=850)
    spent.call(10)
    assert spent.thresholds == [50, 80]


def test_a_budget_too_small_for_the_next_call_is_spent_if_little_is_left() -> None:
    spent = Spent()
    spent.call(10, settled=960)
    assert not spent.call(100)
    assert spent.thresholds == [50, 80, 100]
    other = Spent()
    other.call(10, settled=600)
    assert not other.call(800)
    assert other.thresholds == [50]


def test_another_period_begins_anew() -> None:
    spent = Spent()
    for _ in range(2):
        spent.call(10, settled=600)
        spent.call(10)
        spent.clock.advance(DAY)
        assert spent.budgets.standing(spent.clock.wall()) == {}
    assert spent.thresholds == [50, 50]


def test_a_share_of_a_budget_is_judged_by_itself() -> None:
    spent = Spent(weight=2)
    for _ in range(60):
        spent.call(10)
    assert spent.thresholds == [50, 80, 100]


@pytest.mark.parametrize(
    ("name", "scope", "owner"),
    [("spend", (), "acme"), ("key-spend", ("key/k",), "acme"), ("group-spend", ("group/research",), "group/research")],
)
def test_whose_budget_it_is(name: str, scope: tuple[str, ...], owner: str) -> None:
    spent = Spent(budget(name=name), scope=scope)
    spent.call(10, settled=600)
    spent.call(1)
    assert [told.owner for told in spent.told] == [owner]


def test_end_users_have_none() -> None:
    spent = Spent(budget(name="user-spend"), scope=("user/ann",))
    spent.call(10, settled=1000)
    spent.call(1)
    assert spent.told == []


@given(calls=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 400)), max_size=40))
@settings(deadline=None)
def test_thresholds_rise_and_are_told_once(calls: list[tuple[int, int]]) -> None:
    spent = Spent()
    for cost, settled in calls:
        spent.call(cost, settled)
    assert spent.thresholds == sorted(set(spent.thresholds))


@given(
    steps=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 80), st.sampled_from((0.0, 5_000.0, 50_000.0)))),
    limits=st.permutations([budget(), Limit(name="concurrency", amount=500, unit=Unit.CONCURRENCY)]),
    weight=st.integers(1, 3),
)
@settings(deadline=None)
def test_a_tally_tells_what_every_single_decision_would(
    steps: list[tuple[int, int, float]], limits: list[Limit], weight: int
) -> None:
    clock, told, told_by_tally = Clock(), list[BudgetReached](), list[BudgetReached]()
    store, budgets = MemoryStore(clock=clock, wall=clock.wall, weight=weight), Budgets(told.append)
    reservations = Reservations(store)
    counters = DecisionCounters(budgets=Budgets(told_by_tally.append))
    tally, admitted = counters.tally("acme", limits), 0
    for number, (cost, settled, gap) in enumerate(steps):
        clock.advance(gap)
        store.tick()
        claims = [Claim(limit_key("acme", limit), limit, cost if limit.length else 1) for limit in limits]
        decision = store.admit(claims, b"%d" % number)
        if not decision.is_admitted:
            continue
        admitted += 1
        tally.note(reservations.accept(decision))
        for status in decision.statuses:
            budgets.note("acme", status, weight=weight)
            if status.claim.limit.unit is Unit.SPEND:
                store.settle(decision, [Change(status.claim, status.newest, settled - cost)])
    assert told_by_tally == told
    counts = counters.counts()
    assert [counts["acme", limit.name].admitted for limit in limits if admitted] == [admitted] * 2 * bool(admitted)
