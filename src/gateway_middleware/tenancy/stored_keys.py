"""Tenants and keys that were made at run time: which statements there are, and which keys hold. Does no I/O.

Processes tell each other statements, in any order and more than once; whoever has all of them comes to the same keys.
A key is one `StoredKey` and its secrets: a rotation adds a secret, and by that alone every older one ends after the
grace of the new one. So two rotations at a time are one after the other, and nothing has to be locked.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from gateway_middleware.tenancy.keys import TenantKey


class StoredStep(msgspec.Struct, frozen=True):
    """The route that calls go on with when a limit on spend is reached, or `percent` of it."""

    route: str
    percent: int = 100


class StoredTenant(msgspec.Struct, frozen=True, kw_only=True, tag="tenant", tag_field="what"):
    """A tenant. `limits` and `per_key` are in the notation of `GATEWAY_TENANTS`; times are seconds since the epoch."""

    name: str
    created: float
    models: tuple[str, ...] = ("*",)
    limits: dict[str, Any] = {}
    per_key: dict[str, Any] = {}
    on_budget: StoredStep | None = None
    is_void: bool = False
    """It could not be told to the others, so that it was not made."""

    @property
    def place(self) -> str:
        """What a newer statement takes the place of."""
        return f"tenant/{self.name}"


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, tag="key", tag_field="what"):
    """What is known of a key besides its secrets. `limits` are for this key alone, `models` narrow its tenant's."""

    key_id: str
    tenant: str
    created: float
    name: str | None = None
    expires: float | None = None
    models: tuple[str, ...] = ("*",)
    limits: dict[str, Any] = {}
    revoked: float | None = None

    @property
    def place(self) -> str:
        """What a newer statement takes the place of."""
        return f"key/{self.key_id}"


class StoredSecret(msgspec.Struct, frozen=True, kw_only=True, tag="secret", tag_field="what"):
    """One secret of a key, by its digest. Those with an earlier `created` end `grace` seconds after it.

    `ends`: it has ended by then, whatever else is known. `is_void`: it could not be told to the others, so that nobody
    was given it; it neither holds nor ends others.
    """

    key_id: str
    digest: str
    created: float
    grace: float = 0.0
    ends: float | None = None
    is_void: bool = False

    @property
    def place(self) -> str:
        """What a newer statement takes the place of."""
        return f"secret/{self.key_id}/{self.digest[-16:]}"


Statement: TypeAlias = StoredTenant | StoredKey | StoredSecret
decode_statement = msgspec.json.Decoder(Statement).decode


class HeldSecret(msgspec.Struct, frozen=True):
    """A secret, and when it ends: by a newer one, by what was said of itself, or with its key; None: never."""

    secret: StoredSecret
    ends: float | None


class StoredKeys:
    """All statements, put together. `find` is what calls need: the key of a digest."""

    def __init__(self) -> None:
        self.tenants: dict[str, StoredTenant] = {}
        self._keys: dict[str, StoredKey] = {}
        self._secrets: dict[str, dict[str, StoredSecret]] = {}
        self._by_digest: dict[str, tuple[StoredKey, TenantKey]] = {}

    def __len__(self) -> int:
        """How many keys there are, revoked ones that are still remembered too."""
        return len(self._keys)

    def take(self, statement: Statement) -> bool:
        """Know this as well, the newest of its place; whether it changes what calls may have been told before."""
        if isinstance(statement, StoredTenant):
            self.tenants.pop(statement.name, None)
            if not statement.is_void:
                self.tenants[statement.name] = statement
            return True
        if isinstance(statement, StoredKey):
            is_news = statement.key_id in self._keys
            self._keys[statement.key_id] = statement
        else:
            secrets = self._secrets.setdefault(statement.key_id, {})
            is_news = bool(secrets)
            secrets[statement.place] = statement
        self._renew(statement.key_id)
        return is_news

    def forget(self, revoked_before: float) -> None:
        """Revoked keys need not be remembered for ever."""
        for key_id in [k.key_id for k in self._keys.values() if k.revoked is not None and k.revoked < revoked_before]:
            del self._keys[key_id]
            self._secrets.pop(key_id, None)

    def find(self, digest: str) -> tuple[StoredKey, TenantKey] | None:
        """The key with this secret, and what its digest is listed as; its `expires` may be over."""
        return self._by_digest.get(digest)

    def key(self, tenant: str, key_id: str) -> StoredKey | None:
        """A key of this tenant that is not revoked."""
        key = self._keys.get(key_id)
        return key if key is not None and key.tenant == tenant and key.revoked is None else None

    def is_taken(self, key_id: str) -> bool:
        """Whether there is, or was, such a key."""
        return key_id in self._keys or key_id in self._secrets

    def revoked(self) -> list[StoredKey]:
        """Those of all tenants that were revoked and are still remembered."""
        return [key for key in self._keys.values() if key.revoked is not None]

    def living(self) -> list[StoredKey]:
        """Those of all tenants that are not revoked."""
        return [key for key in self._keys.values() if key.revoked is None]

    def keys(self, tenant: str) -> list[StoredKey]:
        """Those of a tenant that are not revoked, the oldest first."""
        keys = [key for key in self._keys.values() if key.tenant == tenant and key.revoked is None]
        return sorted(keys, key=lambda key: (key.created, key.key_id))

    def secrets(self, key_id: str) -> list[HeldSecret]:
        """Those of a key, the oldest first."""
        secrets = sorted(self._secrets.get(key_id, {}).values(), key=lambda secret: (secret.created, secret.digest))
        key, held = self._keys.get(key_id), list[HeldSecret]()
        end = None if key is None else key.expires
        for secret in reversed(secrets):
            if not secret.is_void:
                held.append(HeldSecret(secret, _earliest(end, secret.ends)))
                end = _earliest(end, secret.created + secret.grace)
        return held[::-1]

    def _renew(self, key_id: str) -> None:
        """Work out anew which secrets of a key there are, and until when."""
        for secret in self._secrets.get(key_id, {}).values():
            self._by_digest.pop(secret.digest, None)
        key = self._keys.get(key_id)
        if key is None or key.revoked is not None:
            return
        for held in self.secrets(key_id):
            digest = held.secret.digest
            self._by_digest[digest] = key, TenantKey(digest, key_id, held.ends)


def _earliest(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)
