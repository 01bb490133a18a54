"""Labels of providers and tenants that require them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.core.domain import Deployment, Dialect, Requirements, Route, Surface, Tenant
from gateway_middleware.core.errors import PermissionDeniedError
from gateway_middleware.intake.routing import RouteTable
from provider_calls import provider_of

LABELS = {"eu": {"region": "eu", "zdr": "true"}, "us": {"region": "us", "zdr": "true"}, "ch": {"region": "ch"}}
PROVIDERS = {
    name: provider_of("openai", f"https://{name}.example/v1", name=name) for name in ("us", "eu", "ch", "none")
}


def target(provider: str) -> Deployment:
    return Deployment(provider=provider, model="m")


ROUTES = {
    "fast": Route(
        name="fast",
        deployments=(target("us"), target("eu"), target("none")),
        on_context_window=(target("us"), target("eu")),
        on_content_policy=(target("none"),),
    ),
    "american": Route(name="american", deployments=(target("us"),)),
}
TABLE = RouteTable(ROUTES, PROVIDERS, labels=LABELS)


def resolve(model: str, require: Requirements) -> Route:
    tenant = Tenant(name="acme", require=require)
    return TABLE.resolve(model, surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=tenant)


EU: Requirements = (("region", ("eu",)),)


def test_a_route_keeps_what_the_tenant_requires_in_every_list() -> None:
    route = resolve("fast", EU)

    assert [d.provider for d in route.everything] == ["eu", "eu"]
    assert route.on_content_policy == ()


def test_a_tenant_that_requires_nothing_has_the_whole_route() -> None:
    assert resolve("fast", ()) is TABLE.resolve(
        "fast", surface=Surface.CHAT, dialect=Dialect.OPENAI, tenant=Tenant(name="other")
    )
    assert len(resolve("fast", ()).deployments) == 3


@pytest.mark.parametrize(
    ("require", "provider"),
    [
        ((), "us"),
        (EU, "eu"),
        ((("region", ("eu", "ch")),), "eu"),
        ((("region", ("ch", "de")),), "ch"),
        ((("zdr", ("true",)), ("region", ("us", "ch"))), "us"),
    ],
)
def test_a_model_without_a_route_goes_to_a_provider_that_will_do(require: Requirements, provider: str) -> None:
    assert [d.provider for d in resolve("some-model", require).deployments] == [provider]
    assert [d.provider for d in resolve("some-model", require).deployments] == [provider], "a remembered answer too"


@pytest.mark.parametrize("model", ["american", "us/m", "none/m"])
def test_a_model_that_leads_elsewhere_is_refused_by_name(model: str) -> None:
    with pytest.raises(PermissionDeniedError, match="region=eu") as caught:
        resolve(model, EU)

    assert caught.value.error_code == "residency"
    assert caught.value.param == "model"


def test_nothing_at_all_will_do() -> None:
    with pytest.raises(PermissionDeniedError, match="region=mars or moon, zdr=true"):
        resolve("some-model", (("region", ("mars", "moon")), ("zdr", ("true",))))


def test_what_is_listed_is_what_may_be_called() -> None:
    tenant = Tenant(name="acme", require=EU)

    assert [route.name for route in TABLE.visible(tenant, Dialect.OPENAI)] == ["fast"]
    assert TABLE.find("american", tenant, Dialect.OPENAI) is None


@given(
    require=st.lists(
        st.tuples(
            st.sampled_from(["region", "zdr", "tier"]),
            st.lists(st.sampled_from(["eu", "us", "ch", "true", "false"]), min_size=1, max_size=3).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    model=st.sampled_from(["fast", "american", "plain", "eu/x", "none/x"]),
)
def test_no_deployment_without_the_labels_is_ever_left(require: Requirements, model: str) -> None:
    try:
        route = resolve(model, require)
    except PermissionDeniedError:
        return
    for deployment in route.everything:
        labels = LABELS.get(deployment.provider, {})
        assert all(labels.get(name) in values for name, values in require)
