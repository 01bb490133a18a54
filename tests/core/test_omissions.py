"""What is left out of requests: shown by calls that succeed without it, forgotten by one that fails all the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import ModelRequest
from gateway_middleware.core.omissions import Omission, Omissions
from provider_calls import deployment, model_request

M = deployment("m")


def of(tenant: str, *omits: str) -> ModelRequest:
    return model_request(tenant=tenant, omits=frozenset(omits))


def show(omissions: Omissions, tenant: str, model: str = "m") -> None:
    omission = omissions.refused(of(tenant), deployment(model))
    assert omission is not None
    omission.confirm()


def test_a_refusal_alone_shows_nothing() -> None:
    omissions = Omissions("x")
    omission = omissions.refused(of("a"), M)
    assert omission == Omission("x", omission.confirm if omission else print)
    assert not omissions.apply(of("a"), M)
    assert omissions.apply(of("a", "x"), M)
    assert not omissions.apply(of("a", "y"), M)


def test_one_tenant_shows_it_for_itself_and_two_for_all() -> None:
    omissions = Omissions("x")
    for _ in range(3):
        show(omissions, "a")
    assert [omissions.apply(of(tenant), M) for tenant in "abc"] == [True, False, False]
    show(omissions, "b")
    assert [omissions.apply(of(tenant), M) for tenant in "abc"] == [True, True, True]
    assert not omissions.apply(of("a"), deployment("other"))


def test_whoever_is_refused_without_it_forgets_it_for_itself() -> None:
    omissions = Omissions("x")
    for tenant in "ab":
        show(omissions, tenant)
    assert omissions.refused(of("c", "x"), M) is None
    assert omissions.apply(of("c"), M)
    assert omissions.refused(of("a", "x"), M) is None
    assert [omissions.apply(of(tenant), M) for tenant in "abc"] == [False, True, False]
    assert omissions.refused(of("b", "x"), M) is None
    assert omissions.models == {}


@given(st.lists(st.tuples(st.integers(0, 600), st.sampled_from("abcd"))))
def test_what_is_kept_is_bounded(shown: list[tuple[int, str]]) -> None:
    omissions = Omissions("x")
    for model in range(300):
        show(omissions, "a", f"m{model}")
    for model, tenant in shown:
        show(omissions, tenant, f"m{model}")
        assert omissions.apply(of(tenant), deployment(f"m{model}"))
    assert len(omissions.models) == 256
    assert all(1 <= len(tenants) <= 2 for tenants in omissions.models.values())
