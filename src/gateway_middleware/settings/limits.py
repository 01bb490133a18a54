"""Reads limits of requests, tokens, concurrency and spend: of a tenant, a key, a model or a route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway_middleware.settings import scalars
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.tree import LimitSettings

LIMIT_OPTIONS = ("requests", "tokens", "concurrency", "spend", "shadow", "on_outage")
_NONE = LimitSettings()
_UNITS = ("requests", "tokens", "concurrency", "spend")


def read_limits(node: Node | None) -> LimitSettings:
    """The limits of one object; of none: none."""
    return pick_limits(node.members(LIMIT_OPTIONS)) if node is not None else _NONE


def pick_limits(members: Mapping[str, Node]) -> LimitSettings:
    """The limits among these members."""
    limits: dict[str, Any] = {}
    for unit in ("requests", "tokens"):
        if unit in members:
            limits[unit] = scalars.limit(members[unit])
    if "concurrency" in members:
        limits["concurrency"] = scalars.integer(members["concurrency"], 1, 1_000_000)
    if "spend" in members:
        limits["spend"] = scalars.spend(members["spend"])
    if "shadow" in members:
        limits["shadow"] = _shadow(members["shadow"])
    if "on_outage" in members:
        limits["on_outage"] = scalars.choice(members["on_outage"], ["share", "open", "closed"])
    return LimitSettings(**limits)


def _shadow(node: Node) -> tuple[str, ...]:
    """Units by name, or all of them by `true`."""
    if node.raw in (True, False, "true", "false"):
        return _UNITS if scalars.boolean(node) else ()
    listed = node.items(f"expected true, or a list of {', '.join(_UNITS)}")
    return tuple(scalars.choice(item, list(_UNITS)) for item in listed)


def read_limits_by_model(node: Node | None) -> tuple[tuple[str, LimitSettings], ...]:
    """Limits by model pattern, in their written order."""
    entries = node.entries() if node is not None else {}
    return tuple((pattern, read_limits(entry)) for pattern, entry in entries.items())
