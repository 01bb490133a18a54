"""Which route a call steps down to when its budget is spent: that of its route, of its tenant, or of its group."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Route

    class Step(Protocol):
        """A route by its name, and from how much of a limit on spend on."""

        @property
        def route(self) -> str: ...
        @property
        def percent(self) -> int: ...


_NONE: Mapping[str, Step] = MappingProxyType({})


class StepDowns(msgspec.Struct, frozen=True):
    """By the names of routes and of tenants; what a route says is stronger, then its tenant, then the tenant's group.

    `made` are those of tenants that were made at run time: it may change.
    """

    routes: Mapping[str, Step] = _NONE
    tenants: Mapping[str, Step] = _NONE
    made: Mapping[str, Step] = _NONE
    groups: Mapping[str, Step] = _NONE

    def of(self, route: Route, tenant: str) -> Step | None:
        """Where calls of a tenant to this route step down to; never to the same route."""
        of_tenant = self.tenants.get(tenant) or self.made.get(tenant) or self.groups.get(tenant)
        step = self.routes.get(route.name) or of_tenant
        return None if step is None or step.route == route.name else step
