"""Tenants and keys that operators make while the gateway runs: kept and told by the fleet's shared log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway_middleware.composition.listed import listed
from gateway_middleware.composition.part import Commit
from gateway_middleware.composition.quotas import quota_of_stored, written_limits
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import ConflictError, PathNotFoundError, UnavailableError
from gateway_middleware.limiting.quota import StoredQuotas
from gateway_middleware.operations.key_rows import configured_key_row, key_row, tenant_row
from gateway_middleware.tenancy.keys import digest, new_key, new_public_id
from gateway_middleware.tenancy.stored_keys import (
    Statement,
    StoredKey,
    StoredKeys,
    StoredSecret,
    StoredTenant,
    decode_statement,
)

if TYPE_CHECKING:
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.fleet.entries import Entry
    from gateway_middleware.operations.admin import Requester
    from gateway_middleware.operations.keys import NewKey, NewTenant, Rotation
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.keys import TenantKey

KIND = "tenant-key"
MAX_KEYS = 30_000
"""Keys of all tenants, those that were revoked within `REVOKED_SECONDS` too: the shared log has room for them."""
MAX_TENANTS = 10_000
MAX_ENTRIES = 90_000
"""Of the shared log, in which rotations within their grace take room as well: it would forget the oldest keys."""
REVOKED_SECONDS = 30 * 86400.0
"""For how long stores and processes remember that a key was revoked."""
_ENDED_SECONDS = 3600.0
_TICK = 1e-6


class RuntimeKeys:
    """Makes, lists, rotates and revokes keys; a `KeyStore` for those who look them up.

    Everything is in the log of this process and in every store of the fleet: a store that is away or was emptied takes
    nothing away. Nothing new is acknowledged until the store that the other processes read has it. What the
    configuration says of a tenant, or of a digest, is stronger. `has_resolver`: the host says who calls.
    """

    takes: frozenset[str] = frozenset()
    """All of it is among what tenants and limits take."""

    def __init__(self, settings: Settings, fleet: Fleet, clocks: Clocks, log: Log, *, has_resolver: bool) -> None:
        self._has_resolver = has_resolver
        self._fleet = fleet
        self._wall = clocks.wall
        self._log = log.lines
        self._listeners: list[Callable[[], None]] = []
        self.stored = StoredKeys()
        self.quotas = StoredQuotas()
        self._take_settings(settings)
        fleet.on(KIND, self._hear)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """The fleet starts and stops what this needs."""
        yield

    def prepare(self, new: Settings) -> Commit:
        """Other tenants of the configuration."""
        return lambda: self._take_settings(new)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call this whenever a key that may be known, or a tenant, has changed."""
        self._listeners.append(listener)

    # Who calls.

    @property
    def is_away(self) -> bool:
        """Whether other processes may have made keys that this one has not heard of."""
        return not self._fleet.is_alone and self._fleet.links[-1].is_away

    def find(self, digest: str, /) -> tuple[TenantKey, Tenant] | None:
        """The key with this digest and its tenant, if there is such a tenant."""
        found = self.stored.find(digest)
        if found is None:
            return None
        stored, key = found
        tenant = self.tenant(stored.tenant)
        if tenant is None:
            return None
        return key, replace(tenant, key_models=stored.models)

    def tenant(self, name: str) -> Tenant | None:
        """The tenant of a name, where it is known: as it is configured, or as it was made."""
        configured = self._configured.get(name)
        if configured is not None:
            return configured[0]
        made = self.stored.tenants.get(name)
        if made is None:
            return Tenant(name=name) if self._has_unlisted else None
        return Tenant(name=name, models=made.models)

    def names(self) -> Iterable[str]:
        """Of tenants that were made at run time."""
        return self.stored.tenants.keys()

    # What operators ask for.

    async def list_tenants(self) -> dict[str, Any]:
        """Every tenant that is configured or was made."""
        rows = [tenant_row(name, t.models, self._count(name), source="configuration")
                for name, (t, _) in self._configured.items()]  # fmt: skip
        rows += [
            tenant_row(t.name, t.models, self._count(t.name), source="stored", made=t)
            for t in self.stored.tenants.values()
            if t.name not in self._configured
        ]
        return {"tenants": sorted(rows, key=lambda row: str(row["name"]))}

    async def create_tenant(self, new: NewTenant, by: Requester) -> dict[str, Any]:
        """Raises `ConflictError` where there is one of this name, `InvalidRequestError` for what is no limit."""
        limits, per_key = new.limits.as_written, new.per_key.as_written
        self._check_limits(limits, per_key)
        if new.name in self._configured or new.name in self.stored.tenants:
            raise ConflictError(f"There is a tenant `{new.name}` already.", code="tenant_exists", param="name")
        if len(self.stored.tenants) >= MAX_TENANTS:
            raise ConflictError(f"There are {MAX_TENANTS} tenants already.", code="too_many_tenants")
        self._check_store()
        tenant = StoredTenant(name=new.name, created=self._wall(), models=new.models, limits=limits, per_key=per_key)
        if not await self._tell(tenant):
            self._say(replace(tenant, is_void=True), seconds=_ENDED_SECONDS)
            raise self._away()
        self._log.audit("tenant made", tenant=new.name, client=by.client, request_id=by.request_id)
        return tenant_row(tenant.name, tenant.models, 0, source="stored", made=tenant)

    async def list_keys(self, tenant: str) -> dict[str, Any]:
        """The keys of a tenant, none of them itself. Raises `PathNotFoundError`."""
        self._known(tenant)
        rows = [configured_key_row(tenant, key) for key in self._configured.get(tenant, (None, ()))[1]]
        rows += [key_row(key, self.stored.secrets(key.key_id), self._wall()) for key in self.stored.keys(tenant)]
        return {"tenant": tenant, "keys": rows}

    async def create_key(self, tenant: str, new: NewKey, by: Requester) -> dict[str, Any]:
        """A new key; this answer is the only one that holds it. Raises `PathNotFoundError` and `UnavailableError`."""
        self._known(tenant)
        limits = new.limits.as_written
        self._check_limits(limits)
        if len(self.stored) >= MAX_KEYS:
            self.stored.forget(self._wall() - REVOKED_SECONDS)
        if len(self.stored) >= MAX_KEYS:
            raise ConflictError(f"There are {MAX_KEYS} keys already, counting revoked ones.", code="too_many_keys")
        self._check_store()
        key = StoredKey(
            key_id=self._new_id(), tenant=tenant, created=self._wall(), name=new.name, expires=new.expires_at,
            models=new.models, limits=limits,
        )  # fmt: skip
        text = new_key(public=key.key_id)
        secret = StoredSecret(key_id=key.key_id, digest=digest(text.encode()), created=key.created)
        if not await self._tell(key, secret):
            self._void(key)
            raise self._away()
        self._audit("key made", key, by)
        return {"key": text, **key_row(key, self.stored.secrets(key.key_id), self._wall()), "stored": self._store}

    async def rotate_key(self, tenant: str, key_id: str, rotation: Rotation, by: Requester) -> dict[str, Any]:
        """A new secret of a key; the others work for the grace. Raises `PathNotFoundError`, `UnavailableError`."""
        key = self._existing(tenant, key_id)
        self._check_store()
        self._drop_ended(key_id)
        newest = self.stored.secrets(key_id)[-1].secret.created
        text = new_key(public=key_id)
        secret = StoredSecret(
            key_id=key_id, digest=digest(text.encode()), created=max(self._wall(), newest + _TICK), grace=rotation.grace
        )
        if not await self._tell(secret):
            self._say(replace(secret, is_void=True), seconds=_ENDED_SECONDS)
            raise self._away()
        self._audit("key rotated", key, by, grace=rotation.grace)
        return {"key": text, **key_row(key, self.stored.secrets(key_id), self._wall()), "stored": self._store}

    async def revoke_key(self, tenant: str, key_id: str, by: Requester) -> dict[str, Any]:
        """Refuse a key from now on. While a store is away: here at once, elsewhere when it is back, and a 503."""
        key = self._existing(tenant, key_id)
        entries = self._void(key)
        self._audit("key revoked", key, by)
        if not self._fleet.is_alone and not await self._fleet.told(entries):
            raise UnavailableError(
                "The key is refused by this process; the others hear of it when their store is back.",
                code="key_store_unavailable",
                retry_after=1.0,
            )
        return {"tenant": tenant, "key_id": key_id, "is_revoked": True}

    # How it is told.

    async def _tell(self, *statements: Statement) -> bool:
        entries = [self._say(statement) for statement in statements]
        return self._fleet.is_alone or await self._fleet.told(entries)

    def _say(self, statement: Statement, *, seconds: float | None = None) -> Entry:
        entry = self._fleet.post(KIND, statement.place, statement, seconds=seconds)
        self._take(statement)
        return entry

    def _hear(self, entry: Entry) -> None:
        self._take(decode_statement(entry.body))

    def _take(self, statement: Statement) -> None:
        # Limits first: a key whose limits cannot be read is not let in.
        if isinstance(statement, StoredTenant):
            self._take_quotas(statement)
        elif isinstance(statement, StoredKey):
            self._take_key_limits(statement)
        if self.stored.take(statement):
            for listener in self._listeners:
                listener()

    def _take_key_limits(self, key: StoredKey) -> None:
        limits = () if key.revoked is not None else written_limits(key.limits)
        self.quotas.keys.pop((key.tenant, key.key_id), None)
        if limits:
            self.quotas.keys[key.tenant, key.key_id] = limits

    def _take_quotas(self, tenant: StoredTenant) -> None:
        self.quotas.tenants.pop(tenant.name, None)
        if not tenant.is_void:
            self.quotas.tenants[tenant.name] = quota_of_stored(tenant.limits, tenant.per_key, self._settings)

    def _take_settings(self, settings: Settings) -> None:
        self._settings = settings
        self._has_unlisted = settings.tenant_header is not None or settings.jwt_issuer is not None
        self._configured: dict[str, tuple[Tenant, tuple[Any, ...]]] = {
            tenant.name: (tenant, tuple(keys)) for tenant, keys in listed(settings)
        }
        for tenant in self.stored.tenants.values():
            self._take_quotas(tenant)

    def _void(self, key: StoredKey) -> list[Entry]:
        """A key that is revoked, or was never told: its secrets need not be remembered any longer."""
        entries = [self._say(replace(key, revoked=self._wall()), seconds=REVOKED_SECONDS)]
        secrets = self.stored.secrets(key.key_id)
        return entries + [self._say(held.secret, seconds=_ENDED_SECONDS) for held in secrets]

    def _drop_ended(self, key_id: str) -> None:
        """Secrets whose grace is over need not be remembered for ever; each says that it has ended."""
        for held in self.stored.secrets(key_id)[:-1]:
            if held.ends is not None and held.ends <= self._wall():
                self._say(replace(held.secret, ends=held.ends), seconds=_ENDED_SECONDS)

    # What is checked.

    @property
    def _store(self) -> str:
        return "memory" if self._fleet.is_alone else self._fleet.links[-1].store.name

    def _count(self, tenant: str) -> int:
        return len(self._configured.get(tenant, (None, ()))[1]) + len(self.stored.keys(tenant))

    def _known(self, tenant: str) -> None:
        if self.tenant(tenant) is None:
            raise PathNotFoundError(f"No tenant is called `{tenant}`.", code="unknown_tenant")

    def _existing(self, tenant: str, key_id: str) -> StoredKey:
        self._known(tenant)
        key = self.stored.key(tenant, key_id)
        if key is None:
            raise PathNotFoundError(
                f"The tenant `{tenant}` has no key `{key_id}` that was made at run time.", code="unknown_key"
            )
        return key

    def _check_store(self) -> None:
        if self.is_away:
            raise self._away()
        if self._has_resolver or not self._settings.knows_tenants:
            raise ConflictError("Keys are not looked at here: everybody is let in, or the host says who calls.",
                                code="keys_not_used")  # fmt: skip
        if self._fleet.entry_count >= MAX_ENTRIES:
            raise ConflictError("There is no room for more keys and rotations.", code="too_many_keys")
        if self._fleet.is_alone and self._settings.workers > 1:
            raise ConflictError(
                "The workers of this server share nothing: set GATEWAY_JOURNAL or GATEWAY_FLEET_DIRECTORY.",
                code="keys_not_shared",
            )

    def _away(self) -> UnavailableError:
        return UnavailableError(
            "Nothing was made: the store of keys is away.", code="key_store_unavailable", retry_after=1.0
        )

    def _check_limits(self, *written: dict[str, Any]) -> None:
        for limits in written:
            written_limits(limits, self._settings)

    def _new_id(self) -> str:
        key_id = new_public_id()
        while self.stored.is_taken(key_id):
            key_id = new_public_id()
        return key_id

    def _audit(self, action: str, key: StoredKey, by: Requester, **fields: Any) -> None:
        self._log.audit(
            action, tenant=key.tenant, key_id=key.key_id, name=key.name, client=by.client, request_id=by.request_id,
            **fields,
        )  # fmt: skip
