"""Reads the credential of a provider that a client sends beside the gateway's key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.client_credential import ClientCredential
from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.core.secret import Secret
from gateway_middleware.tenancy.credential import GATEWAY_KEY, MAX_TOKEN_BYTES, bearer_of, is_visible
from gateway_middleware.tenancy.keys import public_id

if TYPE_CHECKING:
    from gateway_middleware.core.domain import HeaderList

_CODE = "client_credential_missing"
_NO_GATEWAY_KEY = (
    "This model is called with a credential of your own at its provider. Send the gateway's key as 'x-gateway-key', "
    "and your own as 'Authorization: Bearer', 'x-api-key' or 'api-key'."
)
_MISSING = (
    "This model is called with a credential of your own at its provider, and the request carries none. Send it as "
    "'Authorization: Bearer', 'x-api-key' or 'api-key', beside 'x-gateway-key'."
)
_TWO = "The request carries two different credentials for the provider. Send one."
_KEYS = (b"x-api-key", b"api-key")


def client_credential_of(headers: HeaderList) -> ClientCredential:
    """The one credential beside `x-gateway-key`.

    A key of this gateway's making, or what stands in `x-gateway-key` as well, is none of a provider's. Raises
    `AuthenticationError` where there is none, where two differ, and for what cannot be one.
    """
    own = {value.strip() for name, value in headers if name == GATEWAY_KEY}
    if not any(own):
        raise AuthenticationError(_NO_GATEWAY_KEY, code=_CODE)
    bearers = {bearer_of(value) for name, value in headers if name == b"authorization"}
    keys = {value.strip() for name, value in headers if name in _KEYS}
    sent = {secret for secret in bearers | keys if secret and secret not in own and not _is_ours(secret)}
    if not sent:
        raise AuthenticationError(_MISSING, code=_CODE)
    if len(sent) > 1:
        raise AuthenticationError(_TWO)
    (secret,) = sent
    if len(secret) > MAX_TOKEN_BYTES or not is_visible(secret):
        raise AuthenticationError("The credential for the provider is not valid.")
    return ClientCredential(Secret(secret.decode("ascii"), source="client"), is_bearer=secret not in keys)


def _is_ours(secret: bytes) -> bool:
    return public_id(secret.decode("latin-1")) is not None
