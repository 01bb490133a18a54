"""Reads the credentials of a call from any of the headers in which SDKs and gateways send them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.core.secret import REDACTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway_middleware.core.domain import HeaderList

MAX_BYTES = 1024
MAX_TOKEN_BYTES = 8192
"""Of a JSON Web Token."""
GATEWAY_KEY = b"x-gateway-key"
"""The header that is for this gateway alone: where it is sent, `Authorization` may be meant for somebody else."""
_BEARER = b"bearer "
_NAMES = frozenset({b"authorization", b"x-api-key", b"api-key", GATEWAY_KEY})
is_visible = re.compile(rb"[\x21-\x7e]*").fullmatch
"""Finds a match where a credential is visible ASCII alone."""
_TWO = "The request carries two different API keys. Send one."


class Credential:
    """What the client showed, as it was sent. Does not print itself."""

    __slots__ = ("secret",)

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Credential({REDACTED})"

    @property
    def is_token(self) -> bool:
        """Whether it has the form of a signed JSON Web Token: three parts, the first of them a JSON object."""
        return is_token(self.secret)


def is_token(secret: bytes) -> bool:
    """Whether a credential has the form of a signed JSON Web Token."""
    return secret.startswith(b"eyJ") and secret.count(b".") == 2


def credential_of(headers: HeaderList) -> Credential | None:
    """The one credential in the headers, or None.

    `x-gateway-key` alone counts where it is sent; otherwise `Authorization: Bearer`, `x-api-key` and `api-key` count
    alike. Raises `AuthenticationError` when two differ and for what cannot be a key: another scheme, more than 1 KiB
    (a token: 8 KiB), anything but visible ASCII.
    """
    fields = dict(headers)
    names = fields.keys() & _NAMES
    if len(names) < 2 and len(fields) == len(headers):
        return _shown(names.pop(), fields) if names else None
    shown = credentials_of(headers)
    if len(shown) > 1:
        raise AuthenticationError(_TWO)
    return shown[0] if shown else None


def credentials_of(headers: Iterable[tuple[bytes, bytes]]) -> Sequence[Credential]:
    """The credentials in the headers that differ from each other: `x-gateway-key` alone, or what the others hold.

    Raises `AuthenticationError` for what cannot be one, and for two values of `x-gateway-key`.
    """
    sent = [pair for pair in headers if pair[0] in _NAMES]
    own = _distinct(value.strip() for name, value in sent if name == GATEWAY_KEY)
    if len(own) > 1:
        raise AuthenticationError(_TWO)
    secrets = own or _distinct(bearer_of(value) if name == b"authorization" else value.strip() for name, value in sent)
    return [_checked(secret) for secret in secrets]


def _shown(name: bytes, fields: Mapping[bytes, bytes]) -> Credential | None:
    value = fields[name]
    secret = bearer_of(value) if name == b"authorization" else value.strip()
    return _checked(secret) if secret else None


def _distinct(secrets: Iterable[bytes]) -> list[bytes]:
    return [secret for secret in dict.fromkeys(secrets) if secret]


def _checked(secret: bytes) -> Credential:
    is_long = len(secret) > MAX_BYTES
    if (is_long and not _is_long_token(secret)) or not is_visible(secret):
        raise AuthenticationError("The API key is not valid.")
    return Credential(secret)


def _is_long_token(secret: bytes) -> bool:
    return len(secret) <= MAX_TOKEN_BYTES and is_token(secret)


def bearer_of(value: bytes) -> bytes:
    """The token of an `Authorization` header; empty where it holds none. Raises `AuthenticationError`."""
    value = value.strip()
    if value[: len(_BEARER)].lower() == _BEARER:
        return value[len(_BEARER) :].strip()
    if not value or value.lower() == b"bearer":
        return b""
    raise AuthenticationError("The Authorization header must be 'Bearer <API key>'.")
