"""Which limits a call has to pass, and what it takes of each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Route, Surface, Tenant
from gateway_middleware.limiting.estimate import Estimate
from gateway_middleware.limiting.limit import Claim
from gateway_middleware.limiting.quota import Quota, Quotas
from limit_cases import rpm, slots, spend, tpm

ACME = Tenant(name="acme", key_id="k1")
QUOTA = Quota(
    limits=(rpm(100), tpm(1000), spend(50)),
    per_key=(rpm(10),),
    per_model=(("gpt-*", (tpm(400),)), ("*-mini", (rpm(5), slots(2)))),
    priority=3,
)
QUOTAS = Quotas({"acme": QUOTA}, default=Quota(limits=(rpm(1),)), routes={"fast": (rpm(9),)})


def asked(model: str, route: str = "plain") -> ModelRequest:
    deployments = Route(name=route, deployments=())
    return ModelRequest(
        surface=Surface.CHAT, dialect=Dialect.OPENAI, model=model, route=deployments, body=b"{}", fields={}
    )


def named(claims: Sequence[Claim]) -> dict[str, int]:
    return {claim.limit.name: claim.cost for claim in claims}


@pytest.mark.parametrize(
    ("model", "route", "names"),
    [
        ("o3", "plain", {"rpm", "key-rpm", "tpm", "spend"}),
        ("gpt-5", "plain", {"rpm", "key-rpm", "tpm", "model-tpm", "spend"}),
        ("gpt-5-mini", "fast", {
            "rpm", "key-rpm", "model-rpm", "model-concurrency", "route-rpm", "tpm", "model-tpm", "spend",
        }),
    ],
)  # fmt: skip
def test_limits_of_tenant_key_model_and_route(model: str, route: str, names: set[str]) -> None:
    plan = QUOTAS.plan(ACME, asked(model, route))

    assert set(named(plan.claims(Estimate(10, 20, False, 0), 7))) == names
    assert plan
    assert (plan.needs_price, plan.needs_estimate, plan.priority) == (True, True, 3)


def test_costs_are_the_estimate_within_the_smallest_limit() -> None:
    plan = QUOTAS.plan(ACME, asked("gpt-5"))

    assert named(plan.claims(Estimate(100, 900, False, 0), 7)) == {
        "rpm": 1, "key-rpm": 1, "tpm": 400, "model-tpm": 400, "spend": 7,
    }  # fmt: skip
    assert named(plan.claims(Estimate(100, 200, False, 0), None))["spend"] == 1, "an empty budget refuses it still"


def test_without_an_estimate_only_what_is_constant() -> None:
    assert named(QUOTAS.plan(ACME, asked("o3")).claims(None, None)) == {"rpm": 1, "key-rpm": 1}


def test_whoever_is_not_listed_has_the_default_and_no_key_has_none_per_key() -> None:
    stranger = QUOTAS.plan(Tenant(name="x", key_id="k"), asked("o3"))
    keyless = QUOTAS.plan(Tenant(name="acme"), asked("o3"))

    assert [claim.limit.amount for claim in stranger.claims(None, None)] == [1]
    assert not stranger.needs_estimate
    assert "key-rpm" not in named(keyless.claims(None, None))


def test_spend_alone_needs_an_estimate_and_takes_no_tokens() -> None:
    plan = Quotas({"acme": Quota(limits=(spend(50),))}).plan(ACME, asked("m"))

    assert named(plan.claims(Estimate(10, 20, False, 0), 7)) == {"spend": 7}


def test_no_limits_no_plan() -> None:
    assert not Quotas().plan(ACME, asked("o3"))


def test_each_tenant_key_and_model_is_counted_apart() -> None:
    other = Tenant(name="acme", key_id="k2")
    keys = [
        {claim.key for claim in QUOTAS.plan(tenant, asked("gpt-5-mini")).claims(Estimate(1, 1, False, 0), 1)}
        for tenant in (ACME, other)
    ]

    assert len(keys[0]) == 7
    assert {key.partition("}:")[2].partition(":")[0] for key in keys[0] - keys[1]} == {"key/k1"}


def test_all_claims_are_those_of_the_tenant_whatever_the_model() -> None:
    assert sorted(claim.limit.name for claim in QUOTAS.all_claims(ACME)) == [
        "key-rpm", "model-concurrency", "model-rpm", "model-tpm", "rpm", "spend", "tpm",
    ]  # fmt: skip


def test_replaced_limits_act_at_once_under_the_same_keys() -> None:
    quotas = Quotas({"acme": Quota(limits=(rpm(5),))})
    before = quotas.plan(ACME, asked("m")).claims(None, None)
    quotas.replace({"acme": Quota(limits=(rpm(50),))}, default=Quota(), routes={}, groups={})
    after = quotas.plan(ACME, asked("m")).claims(None, None)

    assert [claim.limit.amount for claim in (*before, *after)] == [5, 50]
    assert before[0].key == after[0].key


def test_plans_are_made_once_and_bounded() -> None:
    quotas = Quotas({"acme": QUOTA}, max_plans=2)
    first = quotas.plan(ACME, asked("a"))

    assert quotas.plan(ACME, asked("a")) is first
    for model in "bcd":
        quotas.plan(ACME, asked(model))
    assert quotas.plan(ACME, asked("a")) is not first


@pytest.mark.parametrize("pattern", ["GPT-5*", "Fast", "azure-eu/gpt-5-MINI", "gpt-5-mini", "*eu/*"])
def test_a_pattern_means_every_name_of_what_a_call_may_reach(pattern: str) -> None:
    route = Route(
        name="fast",
        deployments=(Deployment(provider="o", model="x"),),
        on_context_window=(Deployment(provider="azure-eu", model="Gpt-5-mini"),),
    )
    quotas = Quotas({"acme": Quota(per_model=((pattern, (rpm(5),)),))})
    request = msgspec.structs.replace(asked("fast"), route=route)

    assert set(named(quotas.plan(ACME, request).claims(None, None))) == {"model-rpm"}
    assert not quotas.plan(ACME, asked("other"))


def test_a_call_that_is_held_to_one_deployment_does_not_hide_the_others_from_the_next() -> None:
    both = Route(name="r", deployments=(Deployment(provider="a", model="m"), Deployment(provider="b", model="dear")))
    one = msgspec.structs.replace(both, deployments=both.deployments[:1])
    quotas = Quotas({"acme": Quota(per_model=(("dear", (rpm(5),)),))})

    assert not quotas.plan(ACME, msgspec.structs.replace(asked("r"), route=one))
    assert quotas.plan(ACME, msgspec.structs.replace(asked("r"), route=both))
