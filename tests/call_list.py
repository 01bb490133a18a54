"""A journal in memory, and attempts to end."""

from __future__ import annotations

from typing import Any

from gateway_middleware.core.domain import Deployment
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.core.outbox import Entry
from gateway_middleware.core.record import Attempt
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent


class CallList:
    """Keeps what it is given; refuses to open while `is_full`."""

    def __init__(self) -> None:
        self.opened: list[OpenCall] = []
        self.closed: list[UsageEvent] = []
        self.voided: list[str] = []
        self.is_full = False
        self.commits = 0

    def open(self, entry: OpenCall) -> None:
        if self.is_full:
            raise UnavailableError("full")
        self.opened.append(entry)

    def enter(self, entry: OpenCall) -> Entry:
        self.open(entry)
        return Entry()

    def commit(self) -> None:
        self.commits += 1

    @property
    def pending(self) -> None:
        return None

    def close(self, event: UsageEvent) -> None:
        self.closed.append(event)

    def void(self, call_id: str) -> None:
        self.voided.append(call_id)


def attempt_at(provider: str = "openai", **fields: Any) -> Attempt:
    return Attempt(**{"deployment": Deployment(provider=provider, model="m"), "started": 10.0, **fields})
