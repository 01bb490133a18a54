"""Tenants and keys that operators make while the gateway runs: kept and told by the fleet's shared log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway_middleware.composition.part import Commit
from gateway_middleware.composition.quotas import quota_of_stored, written_limits
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import PathNotFoundError, UnavailableError
from gateway_middleware.limiting.quota import StoredQuotas
from gateway_middleware.tenancy.stored_keys import (
    Statement,
    StoredKey,
    StoredKeys,
    StoredTenant,
    decode_statement,
)

if TYPE_CHECKING:
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.fleet.entries import Entry
    from gateway_middleware.intake.step_downs import Step
    from gateway_middleware.settings import Settings
    from gateway_middleware.tenancy.keys import TenantKey

KIND = "tenant-key"


def absent(message: str, code: str, *, is_known: bool) -> PathNotFoundError | UnavailableError:
    """A 404 where the store has been asked; while it is away another process may have made it."""
    if is_known:
        return PathNotFoundError(message, code=code)
    return UnavailableError(
        f"{message} Another process may have made it: the store of keys is away.",
        code="key_store_unavailable",
        retry_after=1.0,
    )


class RuntimeKeys:
    """Knows these keys; a `KeyStore` for those who look them up.

    `steps` is kept as the tenants are changed: where their calls go on when a budget is spent.
    Everything is in the log of this process and in every store of the fleet: a store that is away or was emptied takes
    nothing away. What the configuration says of a tenant, or of a digest, is stronger.
    """

    takes: frozenset[str] = frozenset()
    """All of it is among what tenants and limits take."""

    def __init__(self, settings: Settings, fleet: Fleet, *, steps: dict[str, Step]) -> None:
        self._fleet = fleet
        self._steps = steps
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
        configured = self.configured.get(name)
        if configured is not None:
            return configured[0]
        made = self.stored.tenants.get(name)
        if made is None:
            return Tenant(name=name) if self._has_unlisted else None
        return Tenant(name=name, models=made.models)

    def names(self) -> Iterable[str]:
        """Of tenants that were made at run time."""
        return self.stored.tenants.keys()

    # How it is told.

    async def look(self) -> bool:
        """Hear what other processes have told until now; False where that cannot be known."""
        return await self._fleet.look()

    async def tell(self, *statements: Statement) -> bool:
        """Have these hold here, and wait for the store that the other processes read; whether it has them."""
        return await self.told([self.say(statement) for statement in statements])

    async def told(self, entries: Iterable[Entry]) -> bool:
        """Whether the store that the other processes read has these."""
        return self._fleet.is_alone or await self._fleet.told(entries)

    def say(self, statement: Statement, *, seconds: float | None = None) -> Entry:
        """Have this hold here, and everywhere soon; it is remembered for `seconds`, None: for ever."""
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
        self._steps.pop(tenant.name, None)
        if tenant.is_void:
            return
        self.quotas.tenants[tenant.name] = quota_of_stored(tenant.limits, tenant.per_key, self.settings)
        if tenant.on_budget is not None and tenant.name not in self.configured:
            self._steps[tenant.name] = tenant.on_budget

    def _take_settings(self, settings: Settings) -> None:
        self.settings = settings
        self._has_unlisted = settings.tenant_header is not None or settings.jwt_issuer is not None
        self.configured: dict[str, tuple[Tenant, tuple[Any, ...]]] = {
            tenant.name: (tenant, tuple(keys)) for tenant, keys in settings.listed
        }
        for tenant in self.stored.tenants.values():
            self._take_quotas(tenant)
