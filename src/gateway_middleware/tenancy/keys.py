"""Tenant keys `gw-<public id>-<secret>`: how they are made, named and stored.

Any string a client sends can be a key; ours only carry 256 bits of randomness and a public id that may be shown.
Stored is a digest of the whole key, never the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable

import msgspec

_OURS = re.compile(r"gw-([a-z2-7]{8})-[A-Za-z0-9_-]{43}")


class TenantKey(msgspec.Struct, frozen=True):
    """A key as it is listed: its `digest`, a `name` for logs, events and limits by key, and when it `expires`.

    Several keys of a tenant may have one name: the old and the new key of a rotation count as one. `expires` is in
    seconds since the epoch.
    """

    digest: str
    name: str | None = None
    expires: float | None = None


def new_public_id(token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """The part of a key that may be shown: eight letters and digits."""
    return b32encode(token_bytes(5)).decode().lower()


def new_key(token_bytes: Callable[[int], bytes] = secrets.token_bytes, *, public: str | None = None) -> str:
    """A new key, with a public id of its own or with this one. `token_bytes(n)` gives n random bytes."""
    public = public or new_public_id(token_bytes)
    secret = urlsafe_b64encode(token_bytes(32)).decode().rstrip("=")
    return f"gw-{public}-{secret}"


def public_id(key: str) -> str | None:
    """The part of one of our keys that may be shown in logs and records; None for any other string."""
    parts = _OURS.fullmatch(key)
    return parts[1] if parts else None


def digest(key: bytes) -> str:
    """`sha256:<hex>` of the whole key, as listed in `GATEWAY_TENANTS`."""
    return "sha256:" + hashlib.sha256(key).hexdigest()


def hmac_digest(key: bytes, secret: bytes) -> str:
    """`hmac-sha256:<hex>` of the whole key under `GATEWAY_KEY_SECRET`."""
    return "hmac-sha256:" + hmac.digest(secret, key, "sha256").hex()
