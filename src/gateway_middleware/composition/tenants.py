"""Who is calling: by key or everybody, as configured, or as a resolver of the host says."""

from __future__ import annotations

from collections.abc import Awaitable, Container, Sequence
from typing import TYPE_CHECKING

from gateway_middleware.composition.config import revealed
from gateway_middleware.composition.part import Commit, Lifeless
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import PathNotFoundError
from gateway_middleware.intake.ownership import ResponseOwners
from gateway_middleware.tenancy.resolvers import OPEN, ApiKeyResolver, CredentialFree, OpenResolver

if TYPE_CHECKING:
    from gateway_middleware.composition.revocations import Revocations
    from gateway_middleware.core.asgi import Scope
    from gateway_middleware.intake.ownership import OwnerStore
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.credential import Credential
    from gateway_middleware.tenancy.resolvers import TenantResolver


class Tenants(Lifeless):
    """The resolver of the tenant layer, and who owns what is stored at providers.

    A reload gives it other tenants and keys, also the step from nobody listed to keys and back. With a `resolver` of
    the host it is the host alone that says who calls.
    """

    def __init__(
        self, settings: Settings, resolver: TenantResolver | None, *, revocations: Revocations, owners: OwnerStore
    ) -> None:
        self._is_host = resolver is not None
        self._revocations = revocations
        self.resolver = Switch(resolver or make_resolver(settings, revocations.digests))
        self._digests = _digests(settings)
        revocations.subscribe(self.resolver.forget)
        self.owners = ResponseOwners(owners, is_shared=self._is_shared(settings), stateless=_stateless(settings))
        self._listed = _by_name(settings)

    @property
    def takes(self) -> frozenset[str]:
        """Nothing, where the host says who calls."""
        return frozenset() if self._is_host else frozenset({"tenants", "is_open", "key_secret"})

    def prepare(self, new: Settings) -> Commit:
        """Other tenants and keys."""
        resolver = None if self._is_host else make_resolver(new, self._revocations.digests)
        digests = _digests(new)

        def commit() -> None:
            if resolver is not None:
                self.resolver.to(resolver)
                self._take(digests)
            self.owners.is_shared = self._is_shared(new)
            self.owners.stateless = _stateless(new)
            self._listed = _by_name(new)

        return commit

    def _take(self, digests: frozenset[str]) -> None:
        """To let everybody in says nothing about any key."""
        if digests:
            self._revocations.listing_changed(self._digests, digests)
            self._digests = digests

    def named(self, name: str) -> Tenant:
        """The tenant of a name; any name, where the host says who calls. Raises `PathNotFoundError`."""
        if self._is_host:
            return Tenant(name=name)
        if name not in self._listed:
            raise PathNotFoundError(f"No tenant is called `{name}`.", code="unknown_tenant")
        return self._listed[name]

    def _is_shared(self, settings: Settings) -> bool:
        return self._is_host or len(settings.tenants) > 1


class Switch:
    """A resolver that passes every call to the resolver of the moment."""

    def __init__(self, resolver: TenantResolver) -> None:
        self.to(resolver)

    def to(self, resolver: TenantResolver) -> None:
        """Ask this one from now on."""
        self._resolver = resolver
        self.ignores_credentials = isinstance(resolver, CredentialFree) and resolver.ignores_credentials

    def forget(self) -> None:
        """Some keys that were known are not, or the other way round."""
        if isinstance(self._resolver, ApiKeyResolver):
            self._resolver.forget()

    def __call__(self, credential: Credential | None, scope: Scope, /) -> Tenant | Awaitable[Tenant | None] | None:
        return self._resolver(credential, scope)


def make_resolver(settings: Settings, revoked: Container[str]) -> ApiKeyResolver | OpenResolver:
    """By key, or everybody."""
    if not settings.tenants:
        return OpenResolver()
    secret = revealed(settings.key_secret)
    return ApiKeyResolver(_listed(settings), key_secret=None if secret is None else secret.encode(), revoked=revoked)


def _digests(settings: Settings) -> frozenset[str]:
    return frozenset(digest for tenant in settings.tenants for digest in tenant.keys)


def _stateless(settings: Settings) -> frozenset[str]:
    """Providers that keep nothing that a request could name."""
    return frozenset(provider.name for provider in settings.providers if provider.is_stateless)


def _by_name(settings: Settings) -> dict[str, Tenant]:
    tenants = [tenant for tenant, _ in _listed(settings)] or [OPEN]
    return {tenant.name: tenant for tenant in tenants}


def _listed(settings: Settings) -> list[tuple[Tenant, Sequence[str]]]:
    """Every tenant with the digests of its keys."""
    return [(Tenant(name=t.name, models=t.models), t.keys) for t in settings.tenants]
