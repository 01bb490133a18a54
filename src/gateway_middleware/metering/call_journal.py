"""Where the metering layers write calls down, and how they name them."""

from __future__ import annotations

import asyncio
import secrets
from itertools import count
from typing import TYPE_CHECKING, Protocol

from gateway_middleware.metering.journal.state import JournalUnavailableError

if TYPE_CHECKING:
    from gateway_middleware.core.outbox import Entry
    from gateway_middleware.metering.usage_event import OpenCall, UsageEvent

PATIENCE = 5.0
"""Seconds for which a call waits for a slow disk. Then it is refused; one that has ended, ends."""

_SLOW = "The call cannot be metered now: the disk of the call journal is slow."


class CallJournal(Protocol):
    """Where calls are written down."""

    def open(self, entry: OpenCall) -> Entry | None:
        """Before the provider is asked. Raises `UnavailableError`: then it must not be.

        Where an `Entry` with `written` is returned, the disk is slow, and the provider is asked after that.
        """
        ...

    def close(self, event: UsageEvent) -> None:
        """What was used. Never raises."""
        ...

    def void(self, call_id: str) -> None:
        """Nothing that anybody bills. Never raises."""
        ...


class TurnJournal(CallJournal, Protocol):
    """One that may write what a turn of the event loop records at its end."""

    def enter(self, entry: OpenCall) -> Entry:
        """As `open`, but on disk only with the next commit."""
        ...

    def commit(self) -> None:
        """Have everything on disk that was recorded so far; while the disk is slow, soon."""
        ...

    @property
    def pending(self) -> asyncio.Future[None] | None:
        """While the disk is slow: done when all is on disk that was recorded so far. It does not fail."""
        ...


async def on_disk(written: asyncio.Future[None], *, patience: float = PATIENCE) -> bool:
    """Wait for a slow disk, for so many seconds; False where it takes longer."""
    done, _ = await asyncio.wait([written], timeout=patience)
    return bool(done)


async def recorded(journal: CallJournal, call_id: str, entry: Entry, *, patience: float = PATIENCE) -> None:
    """Wait until an entry is on a disk that is slow. Raises `UnavailableError`: then the provider must not be asked.

    A call that does not wait so long, or is cancelled meanwhile, costs nothing.
    """
    is_written = False
    try:
        is_written = entry.written is None or await on_disk(entry.written, patience=patience)
    finally:
        if not is_written:
            entry.fault = JournalUnavailableError(_SLOW, retry_after=1.0)
            journal.void(call_id)
    if entry.fault is not None:
        raise entry.fault


class CallIds:
    """Ids that no other call of any process has. Nothing that a client sends is part of them."""

    __slots__ = ("_numbers", "_prefix")

    def __init__(self) -> None:
        self._prefix, self._numbers = secrets.token_hex(8), count(1)

    def next(self) -> str:
        """A new id."""
        return f"{self._prefix}{next(self._numbers):x}"
