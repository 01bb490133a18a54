"""Reads when a route ends and what comes after it, and says when that is near."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Retirement
from gateway_middleware.core.model_names import RULE, is_model_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway_middleware.settings.node import Node
    from gateway_middleware.settings.tree import RouteSettings

_NEAR_SECONDS = 30 * 86400.0


def read_retirement(route: str, options: Mapping[str, Node]) -> Retirement | None:
    """`sunset` and `deprecated` (dates), and `successor` (another name) among the options of a route."""
    times = {name: _day(options[name]) for name in ("sunset", "deprecated") if name in options}
    successor = _successor(route, options["successor"]) if "successor" in options else None
    if not times and successor is None:
        return None
    if "sunset" in times and times.get("deprecated", 0.0) > times["sunset"]:
        options["deprecated"].fault("expected a day that is not after `sunset`")
    return Retirement(sunset=times.get("sunset"), deprecated=times.get("deprecated"), successor=successor)


def _day(node: Node) -> float:
    """The beginning of a day in UTC."""
    try:
        day = node.raw if type(node.raw) is date else date.fromisoformat(node.raw)
        return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        node.fault("expected a day: 2027-01-31")
        return 0.0


def _successor(route: str, node: Node) -> str:
    if isinstance(node.raw, str) and is_model_name(node.raw) and node.raw != route:
        return node.raw
    node.fault(f"expected the name of another model, of {RULE}")
    return ""


def retirement_warnings(routes: Sequence[RouteSettings], now: float) -> Iterable[str]:
    """Routes that have ended or will within 30 days, and successors that have no route. `now` is the time of day."""
    names = {route.name for route in routes}
    for route in routes:
        retirement = route.retirement
        if retirement is None:
            continue
        if retirement.sunset is not None and retirement.sunset - now < _NEAR_SECONDS:
            day = datetime.fromtimestamp(retirement.sunset, UTC).date()
            verb = "was to end" if retirement.sunset <= now else "ends"
            yield f"route {route.name}: {verb} on {day}; {_advice(retirement)}"
        if retirement.successor is not None and retirement.successor not in names:
            yield f"route {route.name}: its successor {retirement.successor} is no route"


def _advice(retirement: Retirement) -> str:
    return "it has no successor" if retirement.successor is None else f"its successor is {retirement.successor}"
