"""Has the expiry of each key written down once it is due, and that a revoked one is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway_middleware.composition.key_admin import REVOKED_SECONDS
from gateway_middleware.composition.part import Fixed
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.metering.audit_event import AuditEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway_middleware.composition.audit import Audit
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.tenancy.stored_keys import StoredKeys

_LOOK_SECONDS = 30.0
_BACK_SECONDS = 86400.0
"""So far back a process looks when it starts: it may have been away meanwhile."""


class KeyExpiries(Fixed):
    """Looks through the keys that were made at run time twice a minute."""

    def __init__(self, keys: StoredKeys, audit: Audit, clocks: Clocks) -> None:
        self._keys = keys
        self._audit = audit
        self._wall = clocks.wall
        self._seen = clocks.wall() - _BACK_SECONDS

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Look until the end of the block."""
        looking = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(UnavailableError):  # the next look tries again
                await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Write down what was due since the last look. Raises `UnavailableError`."""
        now = self._wall()
        for due in (self._expired(now), self._forgotten(now)):
            if due:
                await self._audit.note_due(sorted(due, key=lambda event: event.time))
        self._keys.forget(now - REVOKED_SECONDS)
        self._seen = now

    def _expired(self, now: float) -> list[AuditEvent]:
        return [
            AuditEvent.of_expiry(tenant=key.tenant, key_id=key.key_id, name=key.name, expires=expires)
            for key in self._keys.living()
            if (expires := key.expires) is not None and self._seen < expires <= now
        ]

    def _forgotten(self, now: float) -> list[AuditEvent]:
        return [
            AuditEvent.of_deletion(tenant=key.tenant, key_id=key.key_id, name=key.name, deleted=deleted)
            for key in self._keys.revoked()
            if self._seen < (deleted := (key.revoked or 0.0) + REVOKED_SECONDS) <= now
        ]
