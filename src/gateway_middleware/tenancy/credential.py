"""The credential of a call, wherever the SDKs put it."""

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
    found: bytes | None = None
    for name, value in headers:
        if name in _NAMES:
            secret = _bearer(value) if name == b"authorization" else value.strip()
            if found is not None and secret and secret != found:
                raise AuthenticationError("The request carries two different API keys. Send one.")
            found = secret or found
    if found is None:
        return None
    if len(found) > MAX_BYTES or found.translate(None, _VISIBLE):
        raise AuthenticationError("The API key is not valid.")
    return Credential(found)


def _bearer(value: bytes) -> bytes:
    value = value.strip()
    if value[: len(_BEARER)].lower() == _BEARER:
        return value[len(_BEARER) :].strip()
    if not value or value.lower() == b"bearer":
        return b""
    raise AuthenticationError("The Authorization header must be 'Bearer <API key>'.")
