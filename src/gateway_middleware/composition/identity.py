"""How it is known who calls: put together from settings."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.composition.config import revealed
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.settings.root import NO_TENANT
from gateway_middleware.settings.scalars import host_of, is_loopback
from gateway_middleware.tenancy.jwks import Jwks
from gateway_middleware.tenancy.resolvers import ApiKeyResolver, OpenResolver
from gateway_middleware.tenancy.sources import SeveralSources
from gateway_middleware.tenancy.tokens import TokenResolver, TokenRules
from gateway_middleware.tenancy.trusted_header import TenantHeader, TrustedProxies

if TYPE_CHECKING:
    from gateway_middleware.composition.keys import RuntimeKeys
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.settings import Settings

_FETCH_SECONDS = 5.0
_MAX_DOCUMENT = 512 * 1024
_OK = 200
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Identities:
    """Makes the resolver that a configuration asks for.

    `revoked` are digests of keys that are refused, `keys` those that were made at run time.
    `on_refusal` hears why a tenant's header was not believed, `on_jwks_failure` why keys of tokens were not fetched.
    """

    def __init__(
        self,
        clocks: Clocks,
        fetch: Fetch,
        *,
        revoked: Container[str],
        keys: RuntimeKeys,
        on_refusal: Callable[[str], None],
        on_jwks_failure: Callable[[str], None],
    ) -> None:
        self._clocks = clocks
        self._fetch = fetch
        self._revoked = revoked
        self._keys = keys
        self._on_refusal = on_refusal
        self._on_jwks_failure = on_jwks_failure

    def resolver(self, settings: Settings) -> ApiKeyResolver | OpenResolver | SeveralSources:
        """By key, header and token as configured; everybody, where that is. Raises `SettingsError`."""
        if not settings.knows_tenants:
            if not settings.is_open:
                raise SettingsError([f"GATEWAY_TENANTS: {NO_TENANT}"])
            return OpenResolver()
        secret = revealed(settings.key_secret)
        keys = ApiKeyResolver(
            settings.listed,
            key_secret=None if secret is None else secret.encode(),
            revoked=self._revoked,
            store=self._keys,
            wall=self._clocks.wall,
        )
        if settings.tenant_header is None and settings.jwt_issuer is None:
            return keys
        tenant_of = Names(settings, self._keys)
        return SeveralSources(
            keys=keys, tenant_of=tenant_of, header=self._header(settings), tokens=self._tokens(settings, tenant_of)
        )

    def _header(self, settings: Settings) -> TenantHeader | None:
        secret = revealed(settings.tenant_header_secret)
        if settings.tenant_header is None or secret is None:
            return None
        return TenantHeader(
            settings.tenant_header,
            proxies=TrustedProxies(settings.trusted_proxies),
            secret=secret.encode(),
            wall=self._clocks.wall,
            on_refusal=self._on_refusal,
        )

    def _tokens(self, settings: Settings, tenant_of: Callable[[str], Tenant]) -> TokenResolver | None:
        if settings.jwt_issuer is None or settings.jwt_audience is None:
            return None
        _require_pyjwt()
        source = JwksSource(settings.jwt_issuer, settings.jwt_jwks_url, self._fetch)
        clocks = self._clocks
        return TokenResolver(
            TokenRules(
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                algorithms=settings.jwt_algorithms,
                claim=settings.jwt_tenant_claim,
            ),
            lambda read, on_change: Jwks(
                source,
                read,
                clock=clocks.monotonic,
                random=clocks.random,
                on_change=on_change,
                on_failure=self._on_jwks_failure,
            ),
            tenant_of=tenant_of,
            clock=clocks.monotonic,
            wall=clocks.wall,
        )


class Names:
    """The tenant of a name that somebody trusted has vouched for: as it is listed or was made, or one by default."""

    def __init__(self, settings: Settings, keys: RuntimeKeys) -> None:
        self._keys = keys
        self._listed = {tenant.name: tenant for tenant, _ in settings.listed}

    def __call__(self, name: str) -> Tenant:
        return self._listed.get(name) or self._keys.tenant(name) or Tenant(name=name)


class JwksSource:
    """Fetches the keys of an issuer, where the configuration or the issuer itself says that they are.

    Raises `FetchError` and `ValueError`.
    """

    def __init__(self, issuer: str, url: str | None, fetch: Fetch) -> None:
        self._issuer = issuer
        self._url = url
        self._fetch = fetch

    async def __call__(self) -> bytes:
        url = self._url or await self._discovered()
        return await self._get(url)

    async def _discovered(self) -> str:
        """OpenID Connect Discovery 1.0, section 4.3: the document must name the very issuer that it was asked of."""
        found = _decode(await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"))
        url = found.get("jwks_uri")
        if found.get("issuer") != self._issuer or not isinstance(url, str) or not _is_safe(url):
            raise ValueError("the issuer's openid-configuration names another issuer, or no https jwks_uri")
        return url

    async def _get(self, url: str) -> bytes:
        answer = await self._fetch("GET", url, deadline=_FETCH_SECONDS, max_bytes=_MAX_DOCUMENT)
        if answer.status != _OK:
            raise FetchError(f"HTTP {answer.status}")
        return answer.body


def _is_safe(url: str) -> bool:
    return url.startswith("https://") or (url.startswith("http://") and is_loopback(host_of(url)))


def _require_pyjwt() -> None:
    try:
        import jwt  # noqa: F401
    except ImportError:
        raise SettingsError(
            ["GATEWAY_JWT_ISSUER: needs the extra jwt: pip install 'gateway-middleware[jwt]'"]
        ) from None
