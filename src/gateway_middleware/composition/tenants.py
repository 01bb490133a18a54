"""Who is calling: by key, header or token as configured, everybody, or as a resolver of the host says."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from gateway_middleware.composition.identity import Identities
from gateway_middleware.composition.keys import absent
from gateway_middleware.composition.part import Commit
from gateway_middleware.core.domain import Tenant
from gateway_middleware.intake.ownership import ResponseOwners
from gateway_middleware.operations.metric import Counter
from gateway_middleware.tenancy.resolvers import OPEN, ApiKeyResolver, CredentialFree, OpenResolver
from gateway_middleware.tenancy.sources import SeveralSources

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway_middleware.composition.keys import RuntimeKeys
    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.revocations import Revocations
    from gateway_middleware.core.asgi import Scope
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.intake.ownership import OwnerStore
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.credential import Credential
    from gateway_middleware.tenancy.resolvers import TenantResolver

HEADERS_REFUSED = Counter(
    "model_gateway_tenant_headers_refused",
    "Calls whose header named a tenant and was not believed.",
    labels=("reason",),
)
JWKS_FAILURES = Counter("model_gateway_jwks_failures", "Failed fetches of the keys by which tokens are verified.")


class Tenants(Collector):
    """The resolver of the tenant layer, and who owns what is stored at providers.

    A reload gives it other tenants, keys and ways to know them, also the step from nobody listed to keys and back. With
    a `resolver` of the host it is the host alone that says who calls. Raises `SettingsError` where nobody could call.
    """

    def __init__(
        self,
        settings: Settings,
        resolver: TenantResolver | None,
        *,
        revocations: Revocations,
        keys: RuntimeKeys,
        owners: OwnerStore,
        clocks: Clocks,
        fetch: Fetch,
        log: Log,
    ) -> None:
        self._is_host = resolver is not None
        self._revocations = revocations
        self._keys = keys
        self._log = log.lines
        self._refused: Counts[str] = Counts()
        self._jwks_failures = 0
        self._identities = Identities(
            clocks,
            fetch,
            revoked=revocations.digests,
            keys=keys,
            on_refusal=self._note_refusal,
            on_jwks_failure=self._note_jwks_failure,
        )
        self.resolver = Switch(resolver or self._identities.resolver(settings))
        self._digests = _digests(settings)
        revocations.subscribe(self.resolver.forget)
        keys.subscribe(self.resolver.forget)
        keys.subscribe(self._take_stored)
        self.owners = ResponseOwners(owners, is_shared=self._is_shared(settings), stateless=_stateless(settings))
        self._settings = settings
        self._listed = _by_name(settings)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out nothing is fetched any more."""
        try:
            yield
        finally:
            await self.resolver.aclose()

    @property
    def takes(self) -> frozenset[str]:
        """Nothing, where the host says who calls."""
        return frozenset() if self._is_host else _TAKEN

    def prepare(self, new: Settings) -> Commit:
        """Other tenants and keys."""
        resolver = self._made_anew(new)
        digests = _digests(new)

        def commit() -> None:
            if resolver is not None:
                self.resolver.to(resolver)
                self._take(digests)
            self.owners.is_shared = self._is_shared(new)
            self.owners.stateless = _stateless(new)
            self._settings = new
            self._listed = _by_name(new)

        return commit

    def _made_anew(self, new: Settings) -> ApiKeyResolver | OpenResolver | SeveralSources | None:
        """Nothing where nothing of it has changed: what is known of keys and tokens stays known."""
        if self._is_host or all(getattr(new, name) == getattr(self._settings, name) for name in _TAKEN):
            return None
        return self._identities.resolver(new)

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        yield HEADERS_REFUSED.family({(reason,): count for reason, count in self._refused.items()})
        yield JWKS_FAILURES.family(self._jwks_failures)

    def _note_refusal(self, reason: str) -> None:
        self._refused[reason] += 1
        count = self._refused[reason]
        if count & (count - 1) == 0:  # each time they have doubled
            message = f"A header that names the tenant was not believed: {reason} ({count} so far)"
            self._log.event("tenant_header_refused", level="warning", message=message, reason=reason, count=count)

    def _note_jwks_failure(self, reason: str) -> None:
        self._jwks_failures += 1
        message = f"The keys of the token issuer could not be fetched: {reason}"
        self._log.event("jwks_failed", level="error", message=message, reason=reason)

    def _take(self, digests: frozenset[str]) -> None:
        """To let everybody in says nothing about any key."""
        if digests:
            self._revocations.listing_changed(self._digests, digests)
            self._digests = digests

    async def named(self, name: str) -> Tenant:
        """The tenant of a name; any name, where the host says who calls.

        Raises `PathNotFoundError`, and `UnavailableError` where another process may have made it.
        """
        if self._is_host:
            return Tenant(name=name)
        tenant = self._known(name)
        if tenant is None:
            is_known = await self._keys.look()
            tenant = self._known(name)
            if tenant is None:
                raise absent(f"No tenant is called `{name}`.", "unknown_tenant", is_known=is_known)
        return tenant

    def _known(self, name: str) -> Tenant | None:
        return self._listed.get(name) or self._keys.tenant(name)

    def names(self) -> Collection[str]:
        """Of all that are configured or were made; none, where the host says who calls."""
        return () if self._is_host else {*self._listed, *self._keys.names()}

    def _take_stored(self) -> None:
        self.owners.is_shared = self._is_shared(self._settings)

    def _is_shared(self, settings: Settings) -> bool:
        has_unlisted = settings.tenant_header is not None or settings.jwt_issuer is not None
        names = {*(tenant.name for tenant in settings.tenants), *self._keys.names()}
        return self._is_host or has_unlisted or len(names) > 1


_TAKEN = frozenset({
    "tenants", "is_open", "key_secret", "tenant_header", "trusted_proxies", "tenant_header_secret", "jwt_issuer",
    "jwt_audience", "jwt_jwks_url", "jwt_tenant_claim", "jwt_algorithms",
})  # fmt: skip


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
        if isinstance(self._resolver, ApiKeyResolver | SeveralSources):
            self._resolver.forget()

    async def aclose(self) -> None:
        """Stop what the resolver of the moment has under way."""
        if isinstance(self._resolver, SeveralSources):
            await self._resolver.aclose()

    def __call__(self, credential: Credential | None, scope: Scope, /) -> Tenant | Awaitable[Tenant | None] | None:
        return self._resolver(credential, scope)


def _digests(settings: Settings) -> frozenset[str]:
    return frozenset(key.digest for tenant in settings.tenants for key in tenant.keys)


def _stateless(settings: Settings) -> frozenset[str]:
    """Providers that keep nothing that a request could name."""
    return frozenset(provider.name for provider in settings.providers if provider.is_stateless)


def _by_name(settings: Settings) -> dict[str, Tenant]:
    tenants = [tenant for tenant, _ in settings.listed] or [OPEN]
    return {tenant.name: tenant for tenant in tenants}
