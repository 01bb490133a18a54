"""The headers that say to a provider who calls: the credential, in one of the usual forms, and fixed headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.provider_api import Auth
from gateway_middleware.providers.targets import header_value

if TYPE_CHECKING:
    from gateway_middleware.core.provider_api import ProviderConfig
    from gateway_middleware.providers.targets import Headers

_NAMES = {Auth.BEARER: b"authorization", Auth.X_API_KEY: b"x-api-key", Auth.API_KEY: b"api-key"}


def credential_headers(config: ProviderConfig, default: Auth) -> Headers:
    """The credential as `config.auth` says, else in the form of the kind (`default`).

    Raises `ValueError`, which does not repeat the credential.
    """
    auth = config.auth or default
    if auth in {Auth.NONE, Auth.SIGV4}:  # nothing, or nothing that is the same for two calls
        return ()
    key = header_value(config.api_key.reveal(), "an API key")
    return ((_NAMES[auth], b"Bearer " + key if auth is Auth.BEARER else key),)


def fixed_headers(config: ProviderConfig) -> Headers:
    """What goes with every call besides. Raises `ValueError`."""
    return tuple((name.encode(), header_value(value.reveal(), f"header {name}")) for name, value in config.headers)
