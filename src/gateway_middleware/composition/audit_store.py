"""Where audit events are kept until they are delivered: the journal's database, or nowhere."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway_middleware.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway_middleware.metering.audit_event import AuditEvent
    from gateway_middleware.metering.journal.spool import Spool

_T = TypeVar("_T")
_NAMES = {"key.expired": "expiries", "key.deleted": "deletions"}
_CONFIGURATION = "configuration"
_SAME_SECONDS = 300.0
"""Within this time all processes of a host have read the same files, or were asked to."""


class AuditStore(Protocol):
    """Each raises `UnavailableError` when it cannot be written."""

    async def announce(self, event: AuditEvent, /) -> None:
        """A change is about to be made: from now on something of it is told, whatever happens to this process."""
        ...

    async def settle(self, event: AuditEvent, /) -> None:
        """What became of it."""
        ...

    async def add_due(self, events: Sequence[AuditEvent], /) -> Sequence[AuditEvent]:
        """What was due, all of one kind, in order of time; that of which no process of this host has told before."""
        ...

    async def add_reload(self, event: AuditEvent, /, *, fact: str | None) -> None:
        """A reload. Of a `fact` that processes of this host have in common one tells; None: it is of this one alone."""
        ...


class NoAudits:
    """Nothing is kept."""

    async def announce(self, event: AuditEvent, /) -> None:
        """Nothing to do."""

    async def settle(self, event: AuditEvent, /) -> None:
        """Nothing to do."""

    async def add_due(self, events: Sequence[AuditEvent], /) -> Sequence[AuditEvent]:
        """All of them, for nobody knows of those before."""
        return events

    async def add_reload(self, event: AuditEvent, /, *, fact: str | None) -> None:
        """Nothing to do."""


class JournaledAudits:
    """In the database beside the usage events. `on_news`: there is something to deliver."""

    def __init__(self, spool: Spool, *, on_news: Callable[[], None]) -> None:
        self._spool = spool
        self._on_news = on_news

    async def announce(self, event: AuditEvent, /) -> None:
        await _written(lambda: self._spool.announce(event))

    async def settle(self, event: AuditEvent, /) -> None:
        await _written(lambda: self._spool.settle(event))
        self._on_news()

    async def add_due(self, events: Sequence[AuditEvent], /) -> Sequence[AuditEvent]:
        name = _NAMES[events[0].action]
        news = await _written(lambda: self._spool.add_since(name, events))
        self._on_news()
        return [event for event in events if event.id in news]

    async def add_reload(self, event: AuditEvent, /, *, fact: str | None) -> None:
        if fact is None:
            await _written(lambda: self._spool.add(event))
        else:
            told = fact
            await _written(lambda: self._spool.add_unless_last(_CONFIGURATION, told, event, within=_SAME_SECONDS))
        self._on_news()


async def _written(write: Callable[[], _T]) -> _T:
    try:
        return await asyncio.to_thread(write)
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            "The change cannot be written down for audit now.", code="journal_unavailable", retry_after=1.0
        ) from error
