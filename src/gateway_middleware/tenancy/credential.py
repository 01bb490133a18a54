"""Reads the API key of a call from any of the headers in which SDKs send it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.core.errors import AuthenticationError
from gateway_middleware.core.secret import REDACTED

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 1024
_BEARER = b"bearer "
_NAMES = frozenset({b"authorization", b"x-api-key", b"api-key"})
_VISIBLE = bytes(range(0x21, 0x7F))


class Credential:
    """What the client showed, as it was sent. Does not print itself."""

    __slots__ = ("secret",)

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Credential({REDACTED})"


def credential_of(headers: Iterable[tuple[bytes, bytes]]) -> Credential | None:
    """The one credential in the headers, or None.

    `Authorization: Bearer`, `x-api-key` and `api-key` count alike. Raises `AuthenticationError` when two differ and for
    what cannot be a key: another scheme, more than 1 KiB, anything but visible ASCII.
    """
    credential: bytes | None = None
    for name, value in headers:
        if name in _NAMES:
            secret = _bearer(value) if name == b"authorization" else value.strip()
            if credential is not None and secret and secret != credential:
                raise AuthenticationError("The request carries two different API keys. Send one.")
            credential = secret or credential
    if credential is None:
        return None
    if len(credential) > MAX_BYTES or credential.translate(None, _VISIBLE):
        raise AuthenticationError("The API key is not valid.")
    return Credential(credential)


def _bearer(value: bytes) -> bytes:
    value = value.strip()
    if value[: len(_BEARER)].lower() == _BEARER:
        return value[len(_BEARER) :].strip()
    if not value or value.lower() == b"bearer":
        return b""
    raise AuthenticationError("The Authorization header must be 'Bearer <API key>'.")
