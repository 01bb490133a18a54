"""What operators may do to tenants and keys while the gateway runs, each step of it audited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway_middleware.composition.keys import absent
from gateway_middleware.composition.quotas import written_limits
from gateway_middleware.core.errors import ConflictError, InvalidRequestError, UnavailableError
from gateway_middleware.operations.key_rows import configured_key_row, key_row, step_row, tenant_row
from gateway_middleware.settings.faults import nearest
from gateway_middleware.tenancy.keys import digest, new_key, new_public_id
from gateway_middleware.tenancy.stored_keys import StoredKey, StoredSecret, StoredStep, StoredTenant

if TYPE_CHECKING:
    import msgspec

    from gateway_middleware.composition.audit import Audit
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.keys import RuntimeKeys
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.fleet.entries import Entry
    from gateway_middleware.operations.admin import Requester
    from gateway_middleware.operations.keys import KeyChange, NewKey, NewTenant, Rotation, TenantChange, WrittenStep

MAX_KEYS = 30_000
"""Keys of all tenants, those that were revoked within `REVOKED_SECONDS` too: the shared log has room for them."""
MAX_TENANTS = 10_000
MAX_ENTRIES = 90_000
"""Of the shared log, in which rotations within their grace take room as well: it would forget the oldest keys."""
REVOKED_SECONDS = 30 * 86400.0
"""For how long processes remember that a key was revoked."""
_MARGIN_SECONDS = 86400.0
"""Stores do for so much longer: a process that was away when it was over tells of it when it is back."""
_ENDED_SECONDS = 3600.0
_TICK = 1e-6


class KeyAdmin:
    """Makes, lists, changes, rotates and revokes keys. `has_resolver`: the host says who calls.

    Nothing new is acknowledged until the store that the other processes read has it. So what one process has
    acknowledged every other one finds there: what is to be shown or changed is looked up in the store first, and what
    this process does not know is no 404 before.
    """

    def __init__(self, keys: RuntimeKeys, fleet: Fleet, audit: Audit, clocks: Clocks, *, has_resolver: bool) -> None:
        self._keys = keys
        self._stored = keys.stored
        self._fleet = fleet
        self._audit = audit
        self._wall = clocks.wall
        self._has_resolver = has_resolver

    async def list_tenants(self) -> dict[str, Any]:
        """Every tenant that is configured or was made."""
        await self._keys.look()
        configured = self._keys.configured
        rows = [tenant_row(name, t.models, self._count(name), source="configuration")
                for name, (t, _) in configured.items()]  # fmt: skip
        rows += [self._row(made) for made in self._stored.tenants.values() if made.name not in configured]
        return {"tenants": sorted(rows, key=lambda row: str(row["name"]))}

    async def create_tenant(self, new: NewTenant, by: Requester) -> dict[str, Any]:
        """Raises `ConflictError` where there is one of this name, `InvalidRequestError` for what is no limit."""
        limits, per_key, step = new.limits.as_written, new.per_key.as_written, _stored(new.on_budget)
        self._check_limits(limits, per_key)
        self._check_step(step)
        await self._keys.look()
        if new.name in self._keys.configured or new.name in self._stored.tenants:
            raise ConflictError(f"There is a tenant `{new.name}` already.", code="tenant_exists", param="name")
        if len(self._stored.tenants) >= MAX_TENANTS:
            raise ConflictError(f"There are {MAX_TENANTS} tenants already.", code="too_many_tenants")
        self._check_store()
        tenant = StoredTenant(
            name=new.name, created=self._wall(), models=new.models, limits=limits, per_key=per_key, on_budget=step
        )  # fmt: skip
        made: dict[str, Any] = {"models": new.models, "limits": limits, "per_key": per_key}
        made |= {} if step is None else {"on_budget": step_row(step)}
        async with self._audit.change("tenant.created", by, tenant=new.name, **made):
            if not await self._keys.tell(tenant):
                self._keys.say(replace(tenant, is_void=True), seconds=_ENDED_SECONDS)
                raise self._away()
        return self._row(tenant)

    async def change_tenant(self, name: str, change: TenantChange, by: Requester) -> dict[str, Any]:
        """Other limits or models of a tenant that was made at run time. Raises as `create_tenant`."""
        is_known = await self._keys.look()
        before = self._stored.tenants.get(name)
        if before is None or name in self._keys.configured:
            raise absent(f"No tenant `{name}` was made at run time.", "unknown_tenant", is_known=is_known)
        changes = change.given
        self._check_limits(changes.get("limits", {}), changes.get("per_key", {}))
        audited = dict(changes)
        if "on_budget" in changes:
            changes["on_budget"] = step = _stored(change.on_budget or None)
            self._check_step(step)
            audited["on_budget"] = step_row(step)
        self._check_store()
        after = replace(before, **changes)
        async with self._audit.change("tenant.changed", by, tenant=name, **audited):
            if not await self._keys.tell(after):
                self._keys.say(before)
                raise self._away()
        return self._row(after)

    async def list_keys(self, tenant: str) -> dict[str, Any]:
        """The keys of a tenant, none of them itself. Raises `PathNotFoundError`."""
        self._check_tenant(tenant, is_known=await self._keys.look())
        rows = [configured_key_row(tenant, key) for key in self._keys.configured.get(tenant, (None, ()))[1]]
        rows += [key_row(key, self._stored.secrets(key.key_id), self._wall()) for key in self._stored.keys(tenant)]
        return {"tenant": tenant, "keys": rows}

    async def create_key(self, tenant: str, new: NewKey, by: Requester) -> dict[str, Any]:
        """A new key; this answer is the only one that holds it. Raises `PathNotFoundError` and `UnavailableError`."""
        if self._keys.tenant(tenant) is None:
            self._check_tenant(tenant, is_known=await self._keys.look())
        limits = new.limits.as_written
        self._check_limits(limits)
        self._check_room()
        self._check_store()
        key = StoredKey(
            key_id=self._new_id(), tenant=tenant, created=self._wall(), name=new.name, expires=new.expires_at,
            models=new.models, limits=limits,
        )  # fmt: skip
        text = new_key(public=key.key_id)
        secret = StoredSecret(key_id=key.key_id, digest=digest(text.encode()), created=key.created)
        made: dict[str, Any] = {"models": new.models, "limits": limits, "expires": new.expires}
        async with self._audit.change("key.created", by, **_named(key), **made):
            if not await self._keys.tell(key, secret):
                self._void(key)
                raise self._away()
        return self._shown(text, key)

    async def change_key(self, tenant: str, key_id: str, change: KeyChange, by: Requester) -> dict[str, Any]:
        """Other limits, models or end of a key. Raises as `create_key`."""
        before, changes = self._existing(tenant, key_id, is_known=await self._keys.look()), change.given
        self._check_limits(changes.get("limits", {}))
        self._check_store()
        after = replace(before, **changes)
        audited = changes | ({"expires": change.expires} if "expires" in changes else {})
        async with self._audit.change("key.changed", by, **_named(after), **audited):
            if not await self._keys.tell(after):
                self._keys.say(before)
                raise self._away()
        return key_row(after, self._stored.secrets(key_id), self._wall())

    async def rotate_key(self, tenant: str, key_id: str, rotation: Rotation, by: Requester) -> dict[str, Any]:
        """A new secret of a key; the others work for the grace. Raises `PathNotFoundError`, `UnavailableError`."""
        key = self._existing(tenant, key_id, is_known=await self._keys.look())
        self._check_store()
        self._drop_ended(key_id)
        text = new_key(public=key_id)
        async with self._audit.change("key.rotated", by, **_named(key), grace=rotation.grace):
            newest = self._stored.secrets(key_id)[-1].secret.created
            created = max(self._wall(), newest + _TICK)
            secret = StoredSecret(
                key_id=key_id, digest=digest(text.encode()), created=created, grace=rotation.grace
            )  # fmt: skip
            if not await self._keys.tell(secret):
                self._keys.say(replace(secret, is_void=True), seconds=_ENDED_SECONDS)
                raise self._away()
        return self._shown(text, key)

    async def revoke_key(self, tenant: str, key_id: str, by: Requester) -> dict[str, Any]:
        """Refuse a key from now on. While a store is away: here at once, elsewhere when it is back, and a 503."""
        # What is known is revoked without a look: nothing is to delay it.
        is_known = self._stored.key(tenant, key_id) is not None or await self._keys.look()
        key = self._existing(tenant, key_id, is_known=is_known)
        async with self._audit.change("key.revoked", by, **_named(key), is_urgent=True):
            entries = self._void(key)
        if not await self._keys.told(entries):
            raise UnavailableError(
                "The key is refused by this process; the others hear of it when their store is back.",
                code="key_store_unavailable",
                retry_after=1.0,
            )
        return {"tenant": tenant, "key_id": key_id, "is_revoked": True}

    def _void(self, key: StoredKey) -> list[Entry]:
        """A key that is revoked, or was never told: its secrets need not be remembered any longer."""
        entries = [self._keys.say(replace(key, revoked=self._wall()), seconds=REVOKED_SECONDS + _MARGIN_SECONDS)]
        secrets = self._stored.secrets(key.key_id)
        return entries + [self._keys.say(held.secret, seconds=_ENDED_SECONDS) for held in secrets]

    def _drop_ended(self, key_id: str) -> None:
        """Secrets whose grace is over need not be remembered for ever; each says that it has ended."""
        for held in self._stored.secrets(key_id)[:-1]:
            if held.ends is not None and held.ends <= self._wall():
                self._keys.say(replace(held.secret, ends=held.ends), seconds=_ENDED_SECONDS)

    # What is shown.

    def _row(self, tenant: StoredTenant) -> dict[str, Any]:
        return tenant_row(tenant.name, tenant.models, self._count(tenant.name), source="stored", made=tenant)

    def _shown(self, text: str, key: StoredKey) -> dict[str, Any]:
        store = "memory" if self._fleet.is_alone else self._fleet.links[-1].store.name
        return {"key": text, **key_row(key, self._stored.secrets(key.key_id), self._wall()), "stored": store}

    def _count(self, tenant: str) -> int:
        return len(self._keys.configured.get(tenant, (None, ()))[1]) + len(self._stored.keys(tenant))

    # What is checked.

    def _check_tenant(self, tenant: str, *, is_known: bool) -> None:
        if self._keys.tenant(tenant) is None:
            raise absent(f"No tenant is called `{tenant}`.", "unknown_tenant", is_known=is_known)

    def _existing(self, tenant: str, key_id: str, *, is_known: bool) -> StoredKey:
        self._check_tenant(tenant, is_known=is_known)
        key = self._stored.key(tenant, key_id)
        if key is None:
            message = f"The tenant `{tenant}` has no key `{key_id}` that was made at run time."
            raise absent(message, "unknown_key", is_known=is_known)
        return key

    def _check_room(self) -> None:
        if len(self._stored) >= MAX_KEYS:
            self._stored.forget(self._wall() - REVOKED_SECONDS)
        if len(self._stored) >= MAX_KEYS:
            raise ConflictError(f"There are {MAX_KEYS} keys already, counting revoked ones.", code="too_many_keys")

    def _check_store(self) -> None:
        settings = self._keys.settings
        if self._keys.is_away:
            raise self._away()
        if self._has_resolver or not settings.knows_tenants:
            raise ConflictError("Keys are not looked at here: everybody is let in, or the host says who calls.",
                                code="keys_not_used")  # fmt: skip
        if self._fleet.entry_count >= MAX_ENTRIES:
            raise ConflictError("There is no room for more keys and rotations.", code="too_many_keys")
        if self._fleet.is_alone and settings.workers > 1:
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
            written_limits(limits, self._keys.settings)

    def _check_step(self, step: StoredStep | None) -> None:
        names = [route.name for route in self._keys.settings.routes]
        if step is not None and step.route not in names:
            raise InvalidRequestError(
                f"No route is called `{step.route}`{nearest(step.route, names)}.", param="on_budget.route"
            )

    def _new_id(self) -> str:
        key_id = new_public_id()
        while self._stored.is_taken(key_id):
            key_id = new_public_id()
        return key_id


def _stored(step: WrittenStep | msgspec.UnsetType | None) -> StoredStep | None:
    return StoredStep(step.route, step.percent) if step else None


def _named(key: StoredKey) -> dict[str, Any]:
    return {"tenant": key.tenant, "key_id": key.key_id, "name": key.name}
