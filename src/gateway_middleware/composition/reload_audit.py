"""The audit of reloads: who had the configuration read again, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from gateway_middleware.composition.part import Fixed
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.metering.audit_event import AuditEvent, AuditOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway_middleware.composition.audit_store import AuditStore
    from gateway_middleware.core.clocks import Clocks

ACTION = "configuration.reloaded"
_WAIT_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_MAX_WAITING = 1000
_MAX_REASON = 2000


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a configuration read again. `reload` is the same in all processes that are asked for one reload."""

    actor: str = "admin"
    """`admin`, `signal`, `file watch` or `host`."""
    by: str
    """What the line in the log calls it."""
    client: str | None = None
    request_id: str | None = None
    reload: str | None = None
    is_asked_here: bool = False
    """An operator has asked this very process."""


class ReloadAudit(Fixed):
    """Has each reload written down, once for all processes that share a journal.

    Nothing waits for it but the answer to an operator, and that a second at most: a configuration that is to put
    things right is taken whether it can be written down or not. What cannot be written is tried again.
    """

    def __init__(self, store: AuditStore, clocks: Clocks, *, host: str) -> None:
        self._store = store
        self._wall = clocks.wall
        self._host = host
        self._waiting: deque[tuple[AuditEvent, str | None]] = deque(maxlen=_MAX_WAITING)
        self._wake = asyncio.Event()
        self._is_written = asyncio.Event()
        self._is_written.set()
        self._is_running = False

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Write inside the block; at its end what is left."""
        writing = asyncio.get_running_loop().create_task(self._run())
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False
            writing.cancel()
            await asyncio.wait([writing])
            with contextlib.suppress(UnavailableError):
                await self._write()

    def taken(self, cause: Cause, before: str, document: dict[str, Any]) -> None:
        """This process has another configuration. That all stays as it was is told where an operator asked for it."""
        after = document["config_hash"]
        changes = {name: document[name] for name in ("config_hash", "changed", "need_restart")}
        if before != after:
            self._note(cause, AuditOutcome.SUCCESS, f"{before} {after}", config_hash_before=before, **changes)
        elif cause.is_asked_here:
            self._note(cause, AuditOutcome.SUCCESS, None, config_hash_before=before, **changes)

    def refused(self, cause: Cause, before: str, reason: str) -> None:
        """This process could not take the configuration, and keeps what it has."""
        fact = None if cause.is_asked_here else f"refused {sha256(reason.encode()).hexdigest()}"
        self._note(cause, AuditOutcome.FAILURE, fact, config_hash=before, reason=reason[:_MAX_REASON])

    async def written(self) -> None:
        """Wait until all is on disk, for a second at most."""
        if self._is_running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_SECONDS):
                    await self._is_written.wait()

    def _note(self, cause: Cause, outcome: AuditOutcome, fact: str | None, **changes: Any) -> None:
        shared = {} if cause.reload is None else {"reload": cause.reload}
        event = AuditEvent(
            id=f"audit-{uuid4().hex}", time=self._wall(), action=ACTION, actor=cause.actor, client=cause.client,
            request_id=cause.request_id, changes={**changes, "host": self._host, **shared}, outcome=outcome,
        )  # fmt: skip
        self._waiting.append((event, fact))
        self._is_written.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._write()
            except UnavailableError:
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _write(self) -> None:
        while self._waiting:
            event, fact = self._waiting[0]
            await self._store.add_reload(event, fact=fact)
            if self._waiting and self._waiting[0][0] is event:
                self._waiting.popleft()
        self._is_written.set()
