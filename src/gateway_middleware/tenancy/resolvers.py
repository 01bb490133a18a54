"""Resolvers of tenants: by API key, by the host application's user, or everybody as one tenant."""

from __future__ import annotations

import hmac
import time
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msgspec.structs import replace

from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import AuthenticationError, UnavailableError
from gateway_middleware.tenancy.credential import Credential
from gateway_middleware.tenancy.keys import TenantKey, digest, hmac_digest, public_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gateway_middleware.core.asgi import Scope
    from gateway_middleware.core.domain import Clock

__all__ = [
    "ApiKeyResolver",
    "Credential",
    "CredentialFree",
    "KeyStore",
    "OpenResolver",
    "ScopeUserResolver",
    "TenantKey",
    "TenantResolver",
]

OPEN = Tenant(name="open")
"""The one tenant of a gateway that lets everybody in."""
_MAX_REMEMBERED = 10_000
_SHOWN_DIGITS = 8
_MISSING = "No API key. Send it as 'Authorization: Bearer <key>', 'x-api-key: <key>' or 'api-key: <key>'."
_UNKNOWN = "The API key is not valid."
_AWAY = "The API key cannot be looked up at the moment."


class TenantResolver(Protocol):
    """Says who is calling. Any callable of this form will do, also `async def`.

    None, or `AuthenticationError` raised, is a 401. `CredentialFree` says how a resolver does without the credential.
    """

    def __call__(self, credential: Credential | None, scope: Scope, /) -> Tenant | Awaitable[Tenant | None] | None:
        """The tenant of this call."""
        ...


@runtime_checkable
class CredentialFree(Protocol):
    """What a resolver has that may go by the rest of the call alone.

    While `ignores_credentials` is true it is called with None, and no header of a credential can make the call fail.
    """

    ignores_credentials: bool


class KeyStore(Protocol):
    """Keys that are kept outside of the configuration, and change while the gateway runs."""

    @property
    def is_away(self) -> bool:
        """Whether keys may exist that cannot be looked up at the moment."""
        ...

    def find(self, digest: str, /) -> tuple[TenantKey, Tenant] | None:
        """The key with this `sha256:` digest and its tenant."""
        ...


class NoKeyStore:
    """There are no keys but those of the configuration."""

    is_away = False

    def find(self, digest: str, /) -> tuple[TenantKey, Tenant] | None:
        """None."""
        return None


class ApiKeyResolver:
    """Tenants by the digests of their keys: `sha256:<hex>`, or `hmac-sha256:<hex>` made with `key_secret`.

    A key that has no end and was found once is remembered, whole, until `replace`; there are never more of them than
    tenants' keys. An unknown key is not remembered at all. Digests in `revoked` are refused though they are listed;
    whoever changes it calls `forget`, and so does whoever changes a key of `store`, where keys are looked up that are
    not listed. `wall` is seconds since the epoch. Raises `AuthenticationError`, and `UnavailableError` for a key that
    might be in a store that is away.
    """

    def __init__(
        self,
        tenants: Iterable[tuple[Tenant, Sequence[str | TenantKey]]],
        *,
        key_secret: bytes | None = None,
        revoked: Container[str] = frozenset(),
        store: KeyStore = NoKeyStore(),  # noqa: B008  it has no state
        wall: Clock = time.time,
    ) -> None:
        self._revoked = revoked
        self._store = store
        self._wall = wall
        self.replace(tenants, key_secret=key_secret)

    def replace(
        self, tenants: Iterable[tuple[Tenant, Sequence[str | TenantKey]]], *, key_secret: bytes | None = None
    ) -> None:
        """Take other tenants from now on; whoever is not among them is unknown at once."""
        listed = ((tenant, _as_key(key)) for tenant, keys in tenants for key in keys)
        self._by_digest = {key.digest: (key, tenant) for tenant, key in listed}
        self._key_secret = key_secret
        self.forget()

    def forget(self) -> None:
        """Look every key up again at its next call."""
        self._remembered: dict[bytes, Tenant] = {}

    def __call__(self, credential: Credential | None, scope: Scope) -> Tenant:
        if credential is None:
            raise AuthenticationError(_MISSING)
        return self._remembered.get(credential.secret) or self._find(credential.secret)

    def _find(self, secret: bytes) -> Tenant:
        for text in self._digests(secret):
            key, tenant = self._by_digest.get(text, (_NO_KEY, None))
            if tenant is not None and hmac.compare_digest(key.digest, text) and text not in self._revoked:
                return self._admit(secret, tenant, key)
        return self._find_stored(secret)

    def _find_stored(self, secret: bytes) -> Tenant:
        text = digest(secret)
        stored = self._store.find(text)
        if stored is not None and text not in self._by_digest and text not in self._revoked:
            key, tenant = stored
            return self._admit(secret, tenant, key)
        if self._store.is_away and public_id(secret.decode("ascii", "replace")) is not None:
            raise UnavailableError(_AWAY, code="key_store_unavailable", retry_after=1.0)
        raise AuthenticationError(_UNKNOWN)

    def _digests(self, secret: bytes) -> list[str]:
        digests = [digest(secret)]
        if self._key_secret is not None:
            digests.append(hmac_digest(secret, self._key_secret))
        return digests

    def _admit(self, secret: bytes, tenant: Tenant, key: TenantKey) -> Tenant:
        named = replace(tenant, key_id=_key_id(secret, key))
        if key.expires is None:
            return self._remember(secret, named)
        if self._wall() >= key.expires:
            raise AuthenticationError("The API key has expired.", code="expired_api_key")
        return named

    def _remember(self, secret: bytes, tenant: Tenant) -> Tenant:
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[secret] = tenant
        return tenant


_NO_KEY = TenantKey("")


def _as_key(key: str | TenantKey) -> TenantKey:
    return TenantKey(key) if isinstance(key, str) else key


def _key_id(secret: bytes, key: TenantKey) -> str:
    """Its name, the public part of one of our keys, or how its digest begins."""
    ours = key.name or public_id(secret.decode("ascii", "replace"))
    return ours or key.digest.partition(":")[2][:_SHOWN_DIGITS]


class ScopeUserResolver:
    """The tenant is whom the host application has authenticated: `scope["user"]`.

    `tenant_of` is the attribute (or the key, when users are mappings) that holds the tenant's name, or a function that
    makes a `Tenant`, a name or None of the user. Nobody, or a user whose `is_authenticated` is false, is a 401.
    """

    ignores_credentials = True

    def __init__(self, tenant_of: str | Callable[[Any], Tenant | str | None]) -> None:
        self._tenant_of = _attribute(tenant_of) if isinstance(tenant_of, str) else tenant_of

    def __call__(self, credential: Credential | None, scope: Scope) -> Tenant:
        user = scope.get("user")
        if user is None or not getattr(user, "is_authenticated", True):
            raise AuthenticationError("The call is not authenticated.", code="unauthenticated")
        tenant = self._tenant_of(user)
        if isinstance(tenant, Tenant):
            return tenant
        if not tenant:
            raise AuthenticationError("The authenticated user belongs to no tenant.", code="unauthenticated")
        return Tenant(name=tenant)


def _attribute(name: str) -> Callable[[Any], str | None]:
    def read(user: Any) -> str | None:
        value = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        return value if isinstance(value, str) else None

    return read


class OpenResolver:
    """Everybody is the one tenant `open`; credentials are not looked at."""

    ignores_credentials = True

    def __init__(self, tenant: Tenant | None = None) -> None:
        self._tenant = tenant or OPEN

    def __call__(self, credential: Credential | None, scope: Scope) -> Tenant:
        return self._tenant
