"""Has the calls of tenants that bring a key of their own made with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import account_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from gateway_middleware.core.domain import Deployment, Route


class Accounts:
    """`accounts` are the providers for which a tenant, by its name, has a key of its own."""

    def __init__(self, accounts: Mapping[str, AbstractSet[str]]) -> None:
        self._accounts = accounts

    def charged(self, route: Route, tenant: str) -> Route:
        """The route with the tenant's accounts, in failover and hedging as well; itself where it has none."""
        own = self._accounts.get(tenant)
        if own is None:
            return route
        lists = (route.deployments, route.on_context_window, route.on_content_policy)
        held = [tuple(_charged(deployment, tenant, own) for deployment in listed) for listed in lists]
        return msgspec.structs.replace(route, deployments=held[0], on_context_window=held[1], on_content_policy=held[2])


def _charged(deployment: Deployment, tenant: str, own: AbstractSet[str]) -> Deployment:
    if deployment.provider not in own:
        return deployment
    return msgspec.structs.replace(deployment, account=account_of(deployment.provider, tenant))
