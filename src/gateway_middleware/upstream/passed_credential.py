"""Passes the caller's own credential on, in the form that its provider takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.core.provider_api import Auth

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway_middleware.core.client_credential import ClientCredential
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.provider_api import UpstreamRequest
    from gateway_middleware.upstream.credential import Open
    from gateway_middleware.upstream.exchange import Answer

_OF_KIND = {Dialect.OPENAI: Auth.BEARER, Dialect.ANTHROPIC: Auth.X_API_KEY, Dialect.AZURE: Auth.API_KEY}
_NAMES = {Auth.BEARER: b"authorization", Auth.X_API_KEY: b"x-api-key", Auth.API_KEY: b"api-key"}


class PassedCredential:
    """Calls carry `ModelRequest.client_credential`, and go nowhere without.

    `auth` is the form that the provider's configuration asks for; None: a bearer token stays one where the client
    speaks the provider's own `dialect` (a subscription's, say), everything else is sent as the vendor takes keys.
    """

    def __init__(self, auth: Auth | None, dialect: Dialect) -> None:
        self._auth = auth if auth in _NAMES else None
        self._dialect = dialect

    def open(
        self, upstream: UpstreamRequest, request: ModelRequest | None, first: Open, again: Open
    ) -> Awaitable[Answer]:
        """See `UpstreamCredential`. Raises `AuthenticationError` where the call has none."""
        own = None if request is None else request.client_credential
        if own is None or request is None:
            raise AuthenticationError("The request carries no credential for the provider.")
        key = own.secret.reveal().encode()
        form = self._form(own, request.dialect)
        header = (_NAMES[form], b"Bearer " + key if form is Auth.BEARER else key)
        return first(msgspec.structs.replace(upstream, headers=(*upstream.headers, header)))

    def _form(self, own: ClientCredential, dialect: Dialect) -> Auth:
        if self._auth is not None:
            return self._auth
        stays = own.is_bearer and (dialect is self._dialect or own.is_token)
        return Auth.BEARER if stays else _OF_KIND[self._dialect]


if TYPE_CHECKING:
    from gateway_middleware.upstream.credential import UpstreamCredential

    _: type[UpstreamCredential] = PassedCredential
