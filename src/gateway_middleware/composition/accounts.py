"""Accounts at providers: the provider's own, and those of tenants that bring a key of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import account_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.core.secret import Secret
    from gateway_middleware.settings import ProviderSettings, Settings


def tenant_accounts(settings: Settings) -> dict[str, tuple[ProviderSettings, Secret]]:
    """The provider and the key of each account that is a tenant's, by its name."""
    providers = {provider.name: provider for provider in settings.providers}
    return {
        account_of(name, tenant.name): (providers[name], key)
        for tenant in settings.tenants
        for name, key in tenant.credentials
    }


def provider_configs(settings: Settings) -> dict[str, ProviderSettings]:
    """What each adapter is made of, by account: a tenant's differs from the provider's in its credential only."""
    own = {provider.name: provider for provider in settings.providers}
    return own | {account: _with_key(provider, key) for account, (provider, key) in tenant_accounts(settings).items()}


def accounts_by_tenant(settings: Settings) -> Mapping[str, frozenset[str]]:
    """The providers for which each tenant has a key of its own."""
    return {t.name: frozenset(name for name, _ in t.credentials) for t in settings.tenants if t.credentials}


def _with_key(provider: ProviderSettings, key: Secret) -> ProviderSettings:
    """A key in the usual form of the kind stands in for tokens."""
    auth = None if provider.entra is not None else provider.auth
    return msgspec.structs.replace(provider, api_key=key, auth=auth, entra=None)
