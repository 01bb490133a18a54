"""Finds the usage events of one call in a spool, without standing in the way of whoever writes it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from gateway_middleware.metering.journal.call_end import decode_event, encode
from gateway_middleware.metering.usage_event import UsageEvent

_BUSY_SECONDS = 1.0
_MAX_EVENTS = 256
_FIND = (
    "SELECT body FROM (SELECT seq AS place, body FROM events UNION ALL SELECT 0, body FROM dead)"
    " WHERE instr(body, ?) > 0 ORDER BY place DESC LIMIT ?"
)


def events_of_call(spool: Path, tenant: str | None, request_id: str) -> list[UsageEvent]:
    """The events of a call's attempts in their order, as long as they are in the spool.

    Where a client has given several calls the same id, those of the last one. `tenant` None: whosever call it was.
    Reads all events there are: some 100 ms at the most that a spool holds. Blocks. Raises `sqlite3.Error`.
    """
    needle = b'"request_id":' + encode(request_id)
    with closing(sqlite3.connect(f"{spool.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as database:
        rows = database.execute(_FIND, (needle, _MAX_EVENTS)).fetchall()
    events = [event for (body,) in rows if (event := _decoded(body)) is not None]
    own = [e for e in events if e.request_id == request_id and tenant in (None, e.tenant)]
    return sorted((e for e in own if _call(e) == _call(own[0])), key=lambda event: event.attempt)


def _decoded(body: bytes) -> UsageEvent | None:
    try:
        return decode_event(body)
    except (msgspec.MsgspecError, ValueError):
        return None


def _call(event: UsageEvent) -> str:
    """What the ids of all attempts of a call begin with."""
    return event.id.rpartition("-")[0]
