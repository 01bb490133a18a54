"""How an admitted call came to its end: with a usage event, with one made up after a crash, or with nothing to bill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple, Self, TypeAlias

import msgspec
from msgspec.structs import asdict

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import NOT_STATED
from gateway_middleware.metering.usage_event import Attempted, OpenCall, UsageEvent, UsageSource, beginning

encode = msgspec.json.Encoder().encode
decode_open = msgspec.json.Decoder(OpenCall).decode
decode_event = msgspec.json.Decoder(UsageEvent).decode
decode_id = msgspec.json.Decoder(str).decode
_beginning = attrgetter(*Attempted.__struct_fields__)


class EndKind(StrEnum):
    """CLOSED: with a usage event; ORPHANED: with one that was made up after a crash; VOIDED: nothing to bill."""

    CLOSED = "closed"
    ORPHANED = "orphaned"
    VOIDED = "voided"


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """A usage event without what the entry of its call tells already: the compact record of a close."""

    id: str
    outcome: str
    usage: Usage
    usage_source: UsageSource
    model_served: str | None
    status: int | None
    raw_usage: msgspec.Raw
    cost: str | None
    price_version: str | None
    ttft: float | None
    duration: float | None
    upstream_request_id: str | None
    flags: tuple[str, ...]
    unit_prices: msgspec.Raw = NOT_STATED

    @classmethod
    def of(cls, event: UsageEvent, call: OpenCall) -> Self | None:
        """The ending that makes `call` this event; None where the event contradicts its entry."""
        if _beginning(event) != _beginning(call):
            return None
        return cls(*_told(event))

    def event(self, call: OpenCall) -> UsageEvent:
        """The whole event."""
        return UsageEvent(**beginning(call) | asdict(self))


_told = attrgetter(*Ending.__struct_fields__)
decode_ending = msgspec.json.Decoder(Ending).decode


class CallEnd(NamedTuple):
    """The end of one call. `sequence` is that of its record in the journal, None where that could not be written."""

    sequence: int | None
    kind: EndKind
    id: str
    tenant: str
    time: float
    event: UsageEvent | None = None
    body: bytes = b""


OnEnds: TypeAlias = "Callable[[Sequence[CallEnd]], None]"
"""Is given what has just come into the spool, from the thread that brings it. Must not block."""


def closed(sequence: int | None, event: UsageEvent, body: bytes) -> CallEnd:
    """The end that a usage event tells of; `body` is the event as JSON on one line."""
    return CallEnd(sequence, EndKind.CLOSED, event.id, event.tenant, event.time, event, body)


def orphaned(event: UsageEvent) -> CallEnd:
    """The end of a call whose process died."""
    return CallEnd(None, EndKind.ORPHANED, event.id, event.tenant, event.time, event, encode(event))


def voided(sequence: int | None, call: OpenCall) -> CallEnd:
    """The end of a call that cost nothing."""
    return CallEnd(sequence, EndKind.VOIDED, call.id, call.tenant, call.time)
