"""Where the metering layers write calls down, and how they name them."""

from __future__ import annotations

import secrets
from itertools import count
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway_middleware.core.outbox import Entry
    from gateway_middleware.metering.usage_event import OpenCall, UsageEvent


class CallJournal(Protocol):
    """Where calls are written down."""

    def open(self, entry: OpenCall) -> None:
        """Before the provider is asked. Raises `UnavailableError`: then it must not be."""
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
        """Have everything on disk that was recorded so far."""
        ...


class CallIds:
    """Ids that no other call of any process has. Nothing that a client sends is part of them."""

    __slots__ = ("_numbers", "_prefix")

    def __init__(self) -> None:
        self._prefix, self._numbers = secrets.token_hex(8), count(1)

    def next(self) -> str:
        """A new id."""
        return f"{self._prefix}{next(self._numbers):x}"
