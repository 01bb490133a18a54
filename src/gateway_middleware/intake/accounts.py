"""Has the calls of tenants made with credentials of their own, where they have some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Payer, account_of, client_account_of, key_account_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway_middleware.core.domain import Deployment, Route


class Accounts:
    """`accounts` says, by tenant and provider, who brings the credential, where that is not the gateway.

    `keys` are the names of the keys of each provider that has several.
    """

    def __init__(self, accounts: Mapping[str, Mapping[str, Payer]], keys: Mapping[str, Collection[str]]) -> None:
        self._accounts = accounts
        self._keys = keys

    def charged(self, route: Route, tenant: str) -> Route:
        """The route with the tenant's accounts, in failover and hedging as well; itself where it has none."""
        payers = self._accounts.get(tenant)
        if payers is None:
            return route
        lists = (route.deployments, route.on_context_window, route.on_content_policy)
        held = [tuple(_charged(deployment, tenant, payers) for deployment in listed) for listed in lists]
        return msgspec.structs.replace(
            route,
            deployments=held[0],
            on_context_window=held[1],
            on_content_policy=held[2],
            takes_client_credential=any(d.payer is Payer.CLIENT for listed in held for d in listed),
        )

    def by_key(self, deployment: Deployment, key: str | None) -> Deployment:
        """The deployment with this key of its provider's and no other; itself where there is no such key to choose."""
        if key is None or deployment.payer is not Payer.GATEWAY or key not in self._keys.get(deployment.provider, ()):
            return deployment
        account = key_account_of(deployment.provider, key)
        return msgspec.structs.replace(deployment, account=account, credential="", key_name=key)


def _charged(deployment: Deployment, tenant: str, payers: Mapping[str, Payer]) -> Deployment:
    payer = payers.get(deployment.provider)
    if payer is None:
        return deployment
    provider = deployment.provider
    account = client_account_of(provider) if payer is Payer.CLIENT else account_of(provider, tenant)
    return msgspec.structs.replace(deployment, account=account, credential="", payer=payer)
