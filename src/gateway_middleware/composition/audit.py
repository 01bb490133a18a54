"""The audit of changes to tenants and keys: a line in the log and a durable event for each."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from msgspec.structs import replace

from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.metering.audit_event import AuditEvent, AuditOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway_middleware.composition.audit_store import AuditStore
    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.operations.admin import Requester

_URGENT_SECONDS = 1.0
"""For so long a revocation waits for the disk."""
_LINES = {
    "tenant.created": "tenant made", "tenant.changed": "tenant changed", "key.created": "key made",
    "key.changed": "key changed", "key.rotated": "key rotated", "key.revoked": "key revoked",
    "key.expired": "key expired", "key.deleted": "key deleted",
}  # fmt: skip
"""What the log calls each action."""


class Audit:
    """Writes down who has changed what: before the change, so that a crash in between is told too, and after it."""

    def __init__(self, store: AuditStore, log: Log, clocks: Clocks) -> None:
        self._store = store
        self._log = log.lines
        self._wall = clocks.wall

    @asynccontextmanager
    async def change(
        self,
        action: str,
        by: Requester,
        *,
        tenant: str,
        key_id: str | None = None,
        name: str | None = None,
        is_urgent: bool = False,
        **changes: Any,
    ) -> AsyncIterator[None]:
        """The block makes the change; what it raises says that it was not made.

        Raises `UnavailableError` where it cannot be written down: nothing is changed then, unless it `is_urgent`.
        """  # fmt: skip
        event = AuditEvent(
            id=f"audit-{uuid4().hex}", time=self._wall(), action=action, tenant=tenant, client=by.client,
            request_id=by.request_id, key_id=key_id, name=name, changes=changes,
        )  # fmt: skip
        await self._announce(event, is_urgent=is_urgent)
        outcome = AuditOutcome.UNKNOWN
        try:
            yield
            outcome = AuditOutcome.SUCCESS
            self._write_line(event)
        except Exception:
            outcome = AuditOutcome.FAILURE
            raise
        finally:
            await asyncio.shield(self._settle(replace(event, outcome=outcome)))

    async def note_due(self, events: list[AuditEvent]) -> None:
        """Keys have expired, or have been forgotten: all of one kind, in order of time. Raises `UnavailableError`."""
        for event in await self._store.add_due(events):
            self._write_line(event)

    async def _announce(self, event: AuditEvent, *, is_urgent: bool) -> None:
        try:
            async with asyncio.timeout(_URGENT_SECONDS if is_urgent else None):
                await self._store.announce(event)
        except (UnavailableError, TimeoutError):
            if not is_urgent:
                raise

    async def _settle(self, event: AuditEvent) -> None:
        """What cannot be settled is released a minute later, as unknown, if it was announced."""
        try:
            await self._store.settle(event)
        except UnavailableError:
            self._log.event(
                "audit_event", level="error", message=f"The audit event of `{event.action}` cannot be written",
                id=event.id,
            )  # fmt: skip

    def _write_line(self, event: AuditEvent) -> None:
        fields = {"tenant": event.tenant, "key_id": event.key_id, "name": event.name, "client": event.client}
        if event.key_id is None:
            del fields["key_id"], fields["name"]
        self._log.audit(_LINES[event.action], **fields, request_id=event.request_id, **event.changes)
