"""Plans of calls: made once, bounded in number, dropped as one."""

from __future__ import annotations

from gateway_middleware.core.domain import PolicyTerms, Tenant
from gateway_middleware.core.plan import CallPlan, PlanPart, Plans


def test_each_layer_works_its_part_out_once_for_each_plan() -> None:
    made: list[str] = []

    def work_out(model: str) -> str:
        made.append(model)
        return model.upper()

    one, other = PlanPart(work_out), PlanPart(work_out)
    plan, next_plan = CallPlan(), CallPlan()
    assert [one.of(plan, "a"), one.of(plan, "a"), other.of(plan, "b"), one.of(next_plan, "c")] == ["A", "A", "B", "C"]
    assert made == ["a", "b", "c"]


def test_what_is_false_is_a_part_as_well() -> None:
    numbers = iter(range(9))
    part, plan = PlanPart(lambda: next(numbers)), CallPlan()
    assert [part.of(plan), part.of(plan)] == [0, 0]


def test_invented_names_do_not_grow_the_table() -> None:
    plans = Plans(max_plans=3)
    for number in range(100):
        plans.add(("tenant", f"model-{number}"), CallPlan())
        assert len(plans) <= 3
    assert plans.find(("tenant", "model-99")) is not None
    assert plans.find(("tenant", "model-1")) is None


def test_a_change_drops_all_and_calls_under_way_keep_theirs() -> None:
    plans, plan = Plans(), CallPlan()
    plans.add(("tenant", "model"), plan)
    part = PlanPart(lambda: "made")
    part.of(plan)
    plans.drop()
    assert (plans.find(("tenant", "model")), len(plans), plans.generation) == (None, 0, 1)
    assert part.of(plan) == "made"


def test_plans_tell_apart_all_that_is_known_of_a_tenant() -> None:
    plans, plan = Plans(), CallPlan()
    plans.add((Tenant(name="acme", key_id="k"), "/v1/chat/completions", "m", False), plan)
    assert plans.find((Tenant(name="acme", key_id="k"), "/v1/chat/completions", "m", False)) is plan
    for other in (
        Tenant(name="acme"),
        Tenant(name="acme", key_id="k", models=("m",)),
        Tenant(name="acme", key_id="k", require=(("region", ("eu",)),)),
        Tenant(name="acme", key_id="k", terms=PolicyTerms(generation="2")),
    ):
        assert plans.find((other, "/v1/chat/completions", "m", False)) is None
