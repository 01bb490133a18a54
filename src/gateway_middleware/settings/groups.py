"""Reads `GATEWAY_GROUPS`: limits that several tenants have together."""

from __future__ import annotations

from gateway_middleware.settings import scalars
from gateway_middleware.settings.limits import LIMIT_OPTIONS, pick_limits
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.on_budget import read_on_budget
from gateway_middleware.settings.tree import GroupSettings
from gateway_middleware.tenancy.trusted_header import NAME

_NAMED = "expected a name of letters, digits and . _ @ - (at most 64)"


def read_groups(node: Node) -> tuple[GroupSettings, ...]:
    """Every group. A tenant is in one at most: so all limits of a call lie on one node of a Redis Cluster."""
    groups_of: dict[str, str] = {}
    return tuple(_read_group(name, entry, groups_of) for name, entry in node.structured().entries().items())


def _read_group(name: str, node: Node, groups_of: dict[str, str]) -> GroupSettings:
    if not NAME.fullmatch(name):
        node.faults.add(node.place, _NAMED)
    members = node.members(("tenants", *LIMIT_OPTIONS, "on_budget"))
    if "tenants" not in members:
        node.missing("tenants", "expected a list of tenants")
        return GroupSettings(name=name)
    tenants = [
        _read_tenant(item, name, groups_of)
        for item in members["tenants"].items("expected a list of tenants that is not empty")
    ]
    return GroupSettings(
        name=name, tenants=tuple(tenants), limits=pick_limits(members), on_budget=read_on_budget(members)
    )


def _read_tenant(node: Node, group: str, groups_of: dict[str, str]) -> str:
    tenant = scalars.text(node, NAME, _NAMED)
    if tenant in groups_of:
        node.fault(f"expected a tenant that is in no other group; it is in {groups_of[tenant]} already")
    groups_of[tenant] = group
    return tenant
