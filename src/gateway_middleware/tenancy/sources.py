"""Several ways to know a tenant at a time: the header of a trusted proxy, a token, a key."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.tenancy.credential import GATEWAY_KEY, credentials_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway_middleware.core.asgi import Scope
    from gateway_middleware.tenancy.credential import Credential
    from gateway_middleware.tenancy.resolvers import ApiKeyResolver
    from gateway_middleware.tenancy.tokens import TokenResolver
    from gateway_middleware.tenancy.trusted_header import TenantHeader

_TWO_TENANTS = "The request names two different tenants."
_TWO_KEYS = "The request carries two different API keys. Send one."


class SeveralSources:
    """Who is calling: by `x-gateway-key`, a trusted proxy's header, a token, or a key, in this order.

    What comes first decides; what comes after it must not name another tenant. Where a trusted proxy has named the
    tenant, a credential that nobody here knows is none of our business; everywhere else it is a 401. Raises
    `AuthenticationError`, `InvalidRequestError` and `UnavailableError`.
    """

    ignores_credentials = True
    """It reads them itself: a token and a key may come together."""

    def __init__(
        self,
        *,
        keys: ApiKeyResolver,
        tenant_of: Callable[[str], Tenant],
        header: TenantHeader | None = None,
        tokens: TokenResolver | None = None,
    ) -> None:
        self._keys = keys
        self._tenant_of = tenant_of
        self._header = header
        self._tokens = tokens

    def forget(self) -> None:
        """Look every key up again."""
        self._keys.forget()

    async def aclose(self) -> None:
        """Stop what is being fetched."""
        if self._tokens is not None:
            await self._tokens.jwks.aclose()

    def __call__(self, credential: Credential | None, scope: Scope, /) -> Tenant | Awaitable[Tenant]:
        name = None if self._header is None else self._header.take(scope)
        named = None if name is None else self._tenant_of(name)
        try:
            shown = self._sorted(credentials_of(scope["headers"]))
            if named is None and len(shown) < 2:
                return self._resolve(shown[0] if shown else None, scope)
        except AuthenticationError:
            if named is None or _has_own_key(scope):
                raise
            return named
        if named is not None and not shown:
            return named
        return self._agreed(named, shown, scope)

    async def _agreed(self, named: Tenant | None, shown: Sequence[Credential], scope: Scope) -> Tenant:
        """The tenant of the first source, after all have named the same one."""
        tenants = [] if named is None else [named]
        is_own = _has_own_key(scope)
        for credential in shown:
            try:
                resolved = self._resolve(credential, scope)
                tenants.append(resolved if isinstance(resolved, Tenant) else await resolved)
            except AuthenticationError:
                if named is None or is_own:
                    raise
        if len({tenant.name for tenant in tenants}) > 1:
            raise AuthenticationError(_TWO_TENANTS, code="conflicting_credentials")
        return tenants[-1] if is_own else tenants[0]

    def _sorted(self, shown: Sequence[Credential]) -> Sequence[Credential]:
        """A token before a key. Raises `AuthenticationError` for two of a kind."""
        if len(shown) > 1:
            tokens = [c for c in shown if self._is_token(c)]
            keys = [c for c in shown if not self._is_token(c)]
            if len(tokens) > 1 or len(keys) > 1:
                raise AuthenticationError(_TWO_KEYS)
            return tokens + keys
        return shown

    def _is_token(self, credential: Credential) -> bool:
        return self._tokens is not None and credential.is_token

    def _resolve(self, credential: Credential | None, scope: Scope) -> Tenant | Awaitable[Tenant]:
        if self._tokens is not None and credential is not None and credential.is_token:
            return self._tokens(credential)
        return self._keys(credential, scope)


def _has_own_key(scope: Scope) -> bool:
    return any(name == GATEWAY_KEY and value.strip() for name, value in scope["headers"])
