"""The levels around and below a tenant: its group, and its end users."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import Clock
from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Route, Surface, Tenant
from gateway_middleware.limiting.counters import limit_rows
from gateway_middleware.limiting.end_users import EndUsers
from gateway_middleware.limiting.estimate import Estimate
from gateway_middleware.limiting.limit import Claim
from gateway_middleware.limiting.quota import Group, Quota, Quotas
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.memory import MemoryStore
from limit_cases import rpm, slots, spend, tpm

RESEARCH = Group("research", (rpm(50), spend(900)))
QUOTA = Quota(
    limits=(rpm(100),),
    per_key=(rpm(10),),
    per_model=(("gpt-*", (tpm(400),)),),
    per_end_user=(rpm(2), tpm(300), slots(1)),
)
QUOTAS = Quotas({"acme": QUOTA, "beta": QUOTA}, groups={"acme": RESEARCH, "beta": RESEARCH})
ACME, BETA = Tenant(name="acme", key_id="k"), Tenant(name="beta", key_id="k")


def asked(model: str = "gpt-5") -> ModelRequest:
    route = Route(name="plain", deployments=(Deployment(provider="p", model=model),))
    return ModelRequest(surface=Surface.CHAT, dialect=Dialect.OPENAI, model=model, route=route, body=b"{}", fields={})


def claims(tenant: Tenant, end_user: str | None, quotas: Quotas = QUOTAS) -> dict[str, Claim]:
    listed = quotas.plan(tenant, asked()).claims(Estimate(100, 900, False, 0), 7, end_user)
    named = {claim.limit.name: claim for claim in listed}
    assert len(named) == len({claim.key for claim in listed}) == len(listed), "one name and one key each"
    return named


def test_all_levels_are_claimed_in_one_step() -> None:
    taken = claims(ACME, "alice")
    assert {name: claim.cost for name, claim in taken.items()} == {
        "rpm": 1, "group-rpm": 1, "group-spend": 7, "key-rpm": 1, "model-tpm": 300, "user-rpm": 1, "user-tpm": 300,
        "user-concurrency": 1,
    }  # fmt: skip


def test_all_keys_of_a_call_have_the_hash_tag_of_the_group() -> None:
    assert {claim.key.partition("}")[0] for claim in claims(ACME, "alice").values()} == {"{group%2Fresearch"}


def test_tenants_share_what_is_the_groups_and_nothing_else() -> None:
    one, other = claims(ACME, "alice"), claims(BETA, "alice")
    shared = {name for name in one if one[name].key == other[name].key}
    assert shared == {"group-rpm", "group-spend"}


def test_without_a_group_keys_are_what_they_were() -> None:
    plain = claims(ACME, None, Quotas({"acme": Quota(limits=(rpm(1),), per_key=(rpm(1),))}))
    assert {claim.key for claim in plain.values()} == {"{acme}:requests/sliding/60", "{acme}:key/k:requests/sliding/60"}


def test_a_group_alone_limits_and_prices() -> None:
    plan = Quotas(groups={"acme": RESEARCH}).plan(ACME, asked())
    assert (plan.is_limited, plan.needs_price, plan.needs_estimate) == (True, True, True)


def test_end_users_alone_limit_and_need_an_estimate() -> None:
    plan = Quotas({"acme": Quota(per_end_user=(tpm(5),))}).plan(ACME, asked())
    assert (plan.is_limited, plan.needs_price, plan.needs_estimate) == (True, False, True)
    assert plan.claims(None, None, "u") == []


def test_whoever_names_nobody_is_one_user() -> None:
    key = claims(ACME, None)["user-rpm"].key
    assert key not in {claims(ACME, name)["user-rpm"].key for name in ("no-user", "", "None")}


@given(names=st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
@settings(deadline=None)
def test_no_two_users_have_one_key(names: list[str]) -> None:
    one, other = (claims(ACME, name) for name in names)
    assert not {one[n].key for n in one if n.startswith("user-")} & {claim.key for claim in other.values()}


def test_invented_names_take_no_memory_and_idle_users_make_room() -> None:
    clock = Clock()
    users = EndUsers(idle=60, max_users=3, clock=clock)
    assert [users.scope(name) for name in ("a", "b", "c")] == ["user/a", "user/b", "user/c"]
    assert {users.scope(f"invented-{n}") for n in range(1000)} == {"other-users"}
    clock.advance(30)
    assert users.scope("a") == "user/a"
    clock.advance(31)
    assert [users.scope(name) for name in ("d", "a", "e", "f")] == ["user/d", "user/a", "user/e", "other-users"]
    assert len(users) == 3


def test_a_look_makes_nobody_known() -> None:
    users = EndUsers(idle=60, max_users=1)
    assert users.scope("looked-at", is_call=False) == "user/looked-at"
    assert len(users) == 0


@pytest.mark.anyio
async def test_usage_tells_every_level() -> None:
    rows = await limit_rows(QUOTAS, Reservations(MemoryStore()), ACME, "alice")
    assert [(row["name"], row["scope"]) for row in rows] == [
        ("group-rpm", "group/research"), ("group-spend", "group/research"), ("rpm", "tenant"), ("key-rpm", "key/k"),
        ("model-tpm", "model/gpt-*"), ("user-rpm", "user/alice"), ("user-tpm", "user/alice"),
        ("user-concurrency", "user/alice"),
    ]  # fmt: skip
    assert len(await limit_rows(QUOTAS, Reservations(MemoryStore()), ACME)) == 5
