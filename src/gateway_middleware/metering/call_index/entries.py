"""How the usage events of a call stand in the index. Does no I/O.

An entry belongs to a request id and holds, for each tenant that has used that id, the last call of it: a block whose
first line is the tenant, the second what the ids of the call's events begin with, and each further line an event.
Blocks are in the order in which they were written, with an empty line between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from gateway_middleware.metering.usage_event import UsageEvent

BUCKETS = 16
"""Keys of one bucket lie on one node of a cluster, so that they are written together."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(UsageEvent).decode


class Indexed(msgspec.Struct, frozen=True):
    """Events of one call, all of the same tenant and request id: `events` are their bodies as JSON."""

    request_id: str
    tenant: str
    call: str
    events: tuple[bytes, ...]

    @property
    def head(self) -> bytes:
        """The first two lines of its block."""
        return _encode(self.tenant) + b"\n" + _encode(self.call)

    @property
    def lines(self) -> bytes:
        """The other lines of its block."""
        return b"\n".join(self.events)


def call_of(event_id: str) -> str:
    """What the ids of all events of a call begin with."""
    return event_id.rpartition("-")[0]


def key_of(request_id: str, prefix: str) -> tuple[int, bytes]:
    """The bucket of a request id and its key, which has a fixed length and holds nothing that a client wrote."""
    digest = sha256(request_id.encode()).hexdigest()[:32]
    bucket = int(digest[0], 16) % BUCKETS
    return bucket, f"{prefix}{{calls:{bucket}}}:{digest}".encode()


def grouped(events: Iterable[tuple[UsageEvent, bytes]]) -> list[Indexed]:
    """The events of each call together. Of an id that a tenant has used again the last call."""
    calls: dict[tuple[str, str], tuple[str, list[bytes]]] = {}
    for event, body in events:
        name, call = (event.request_id, event.tenant), call_of(event.id)
        known = calls.get(name)
        if known is None or known[0] != call:
            calls[name] = call, [body]
        else:
            known[1].append(body)
    return [Indexed(request_id, tenant, call, tuple(bodies)) for (request_id, tenant), (call, bodies) in calls.items()]


def events_in(entry: bytes, tenant: str | None, request_id: str) -> list[UsageEvent]:
    """The events of a tenant's call in an entry; `tenant` None: of the call that was written last, whosever it was."""
    for block in reversed(entry.split(b"\n\n")):
        events = _read(block.split(b"\n")[2:])
        own = {e.id: e for e in events if e.request_id == request_id and tenant in (None, e.tenant)}
        if own:
            return list(own.values())
    return []


def _read(lines: Sequence[bytes]) -> list[UsageEvent]:
    """What is no event is left out: another version of the gateway may have written it."""
    events = []
    for line in lines:
        try:
            events.append(_decode(line))
        except (msgspec.MsgspecError, ValueError):
            continue
    return events
