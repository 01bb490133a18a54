"""What is reserved of a limit on spend, and which deployments may still be asked."""

from __future__ import annotations

import pytest

from gateway_middleware.core.domain import Deployment, Route
from gateway_middleware.limiting.spend import UnpricedModelError, quote

CHEAP, DEAR, ODD = (Deployment(provider=p, model="m") for p in ("cheap", "dear", "odd"))
PRICES = {"cheap/m": 3, "dear/m": 40}


def price(deployment: Deployment) -> int | None:
    return PRICES.get(deployment.key)


def test_the_dearest_deployment_counts_wherever_it_stands() -> None:
    for route in (
        Route(name="r", deployments=(CHEAP, DEAR)),
        Route(name="r", deployments=(CHEAP,), on_context_window=(DEAR,)),
        Route(name="r", deployments=(CHEAP,), on_content_policy=(DEAR,)),
    ):
        assert quote(route, price, allows_unpriced=False).micro_dollars == 40
        assert quote(route, price, allows_unpriced=False).route is route


def test_deployments_without_a_price_are_not_asked() -> None:
    route = Route(name="r", deployments=(CHEAP, ODD), on_context_window=(ODD,))
    narrowed = quote(route, price, allows_unpriced=False)
    assert narrowed.micro_dollars == 3
    assert narrowed.route.deployments == (CHEAP,)
    assert narrowed.route.on_context_window == ()


def test_where_none_has_a_price_the_call_is_refused_unless_that_is_allowed() -> None:
    route = Route(name="r", deployments=(ODD,), on_context_window=(CHEAP,))
    with pytest.raises(UnpricedModelError) as refusal:
        quote(route, price, allows_unpriced=False)
    assert (refusal.value.http_status, refusal.value.error_code) == (400, "unpriced_model")
    allowed = quote(route, price, allows_unpriced=True)
    assert (allowed.micro_dollars, allowed.route) == (3, route)
    assert quote(Route(name="r", deployments=(ODD,)), price, allows_unpriced=True).micro_dollars == 0
