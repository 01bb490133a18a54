"""Reads `on_budget`: the cheaper route that calls step down to when a limit on spend is reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway_middleware.settings import scalars
from gateway_middleware.settings.faults import Faults, nearest
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.tree import GroupSettings, OnBudget, RouteSettings, TenantSettings


def read_on_budget(members: Mapping[str, Node]) -> OnBudget | None:
    """`{"route": "cheap"}`, with `"percent": 80` before all of it is spent."""
    node = members.get("on_budget")
    if node is None:
        return None
    options = node.members(("route", "percent"))
    route = options.get("route")
    if route is None or not isinstance(route.raw, str):
        (route or node).fault('expected the name of a route: {"route": "cheap"}')
        return None
    return OnBudget(
        route=route.raw, percent=scalars.integer(options["percent"], 1, 100) if "percent" in options else 100
    )


def complain_about_steps(
    faults: Faults,
    routes: Iterable[RouteSettings],
    tenants: Iterable[TenantSettings],
    groups: Iterable[GroupSettings],
) -> None:
    """Where a step leads to no route, or nowhere but to itself."""
    names = [route.name for route in routes]
    listed = (("GATEWAY_ROUTES", routes), ("GATEWAY_TENANTS", tenants), ("GATEWAY_GROUPS", groups))
    for variable, owners in listed:
        for owner in owners:
            step = owner.on_budget
            if step is None:
                continue
            place = f"{variable}.{owner.name}.on_budget.route"
            if step.route not in names:
                faults.add(place, f"expected the name of a route{nearest(step.route, names)}")
            elif isinstance(owner, RouteSettings) and step.route == owner.name:
                faults.add(place, "expected another route than this one")
