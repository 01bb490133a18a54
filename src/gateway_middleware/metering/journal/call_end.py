"""How an admitted call came to its end: with a usage event, with one made up after a crash, or with nothing to bill."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from gateway_middleware.metering.usage_event import OpenCall, UsageEvent

encode = msgspec.json.Encoder().encode
decode_open = msgspec.json.Decoder(OpenCall).decode
decode_event = msgspec.json.Decoder(UsageEvent).decode


class EndKind(StrEnum):
    """CLOSED: with a usage event; ORPHANED: with one that was made up after a crash; VOIDED: nothing to bill."""

    CLOSED = "closed"
    ORPHANED = "orphaned"
    VOIDED = "voided"


class CallEnd(NamedTuple):
    """The end of one call. `sequence` is that of its record in the journal, None where that could not be written."""

    sequence: int | None
    kind: EndKind
    id: str
    tenant: str
    time: float
    event: UsageEvent | None = None
    body: bytes = b""


def closed(sequence: int | None, event: UsageEvent, body: bytes) -> CallEnd:
    """The end that a usage event tells of; `body` is the event as JSON on one line."""
    return CallEnd(sequence, EndKind.CLOSED, event.id, event.tenant, event.time, event, body)


def orphaned(event: UsageEvent) -> CallEnd:
    """The end of a call whose process died."""
    return CallEnd(None, EndKind.ORPHANED, event.id, event.tenant, event.time, event, encode(event))


def voided(sequence: int | None, call: OpenCall) -> CallEnd:
    """The end of a call that cost nothing."""
    return CallEnd(sequence, EndKind.VOIDED, call.id, call.tenant, call.time)


def one_line(body: bytes) -> bytes:
    """The same JSON without newlines, which a provider's raw object may hold between its values."""
    return body.replace(b"\n", b" ") if b"\n" in body else body
