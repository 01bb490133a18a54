"""Accounts at providers: the provider's own, one for each of its keys; those of tenants with keys; those of callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.credentials import PooledKey
from gateway_middleware.core.domain import Payer, account_of, client_account_of, key_account_of
from gateway_middleware.core.provider_api import Auth
from gateway_middleware.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.settings import ProviderSettings, Settings

_COMES_WITH_CALLS = Secret("", source="client")


def tenant_accounts(settings: Settings) -> dict[str, tuple[ProviderSettings, Secret]]:
    """The provider and the key of each account that is a tenant's, by its name."""
    providers = {provider.name: provider for provider in settings.providers}
    return {
        account_of(name, tenant.name): (providers[name], key)
        for tenant in settings.tenants
        for name, key in tenant.credentials
    }


def key_accounts(settings: Settings) -> dict[str, tuple[ProviderSettings, Secret]]:
    """The provider and the key of each of several keys, by the name of its account."""
    return {
        key_account_of(provider.name, key.name): (provider, key.secret)
        for provider in settings.providers
        for key in provider.keys
    }


def pools(settings: Settings) -> dict[str, tuple[PooledKey, ...]]:
    """The keys of each provider that has several."""
    return {
        provider.name: tuple(
            PooledKey(
                name=key.name,
                account=key_account_of(provider.name, key.name),
                weight=key.weight,
                identity=key.secret.fingerprint,
            )
            for key in provider.keys
        )
        for provider in settings.providers
        if provider.keys
    }


def client_accounts(settings: Settings) -> dict[str, ProviderSettings]:
    """The provider of each account whose credentials come with the calls, by its name."""
    names = {tenant.client_provider for tenant in settings.tenants}
    return {client_account_of(provider.name): provider for provider in settings.providers if provider.name in names}


def provider_configs(settings: Settings) -> dict[str, ProviderSettings]:
    """What each adapter is made of, by account: others than the provider's differ from it in their credential only."""
    own = {provider.name: provider for provider in settings.providers}
    keyed = tenant_accounts(settings) | key_accounts(settings)
    with_keys = {account: _with_key(provider, key) for account, (provider, key) in keyed.items()}
    return own | with_keys | {account: _without(p) for account, p in client_accounts(settings).items()}


def payers_by_tenant(settings: Settings) -> Mapping[str, Mapping[str, Payer]]:
    """Who brings the credential, by tenant and provider, where that is not the gateway."""
    payers = {t.name: {name: Payer.TENANT for name, _ in t.credentials} for t in settings.tenants if t.credentials}
    for tenant in settings.tenants:
        if tenant.client_provider is not None:
            payers.setdefault(tenant.name, {})[tenant.client_provider] = Payer.CLIENT
    return payers


def _with_key(provider: ProviderSettings, key: Secret) -> ProviderSettings:
    """A key in the usual form of the kind stands in for tokens and signatures."""
    has_other = provider.entra is not None or provider.aws is not None
    auth = None if has_other else provider.auth
    return msgspec.structs.replace(provider, api_key=key, auth=auth, entra=None, aws=None)


def _without(provider: ProviderSettings) -> ProviderSettings:
    """No call carries the gateway's."""
    return msgspec.structs.replace(provider, api_key=_COMES_WITH_CALLS, auth=Auth.NONE, entra=None, aws=None)
