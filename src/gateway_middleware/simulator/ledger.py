"""The store of the simulated usage collector: every usage event once, with how often it arrived."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    source TEXT NOT NULL, id TEXT NOT NULL, event BLOB NOT NULL,
    seen INTEGER NOT NULL DEFAULT 1, differing INTEGER NOT NULL DEFAULT 0, UNIQUE (source, id))
"""
_STORE = """
INSERT INTO events (source, id, event) VALUES (?, ?, ?)
ON CONFLICT (source, id) DO UPDATE SET seen = seen + 1, differing = differing + (event <> excluded.event)
"""


class Stored(msgspec.Struct, frozen=True):
    """An event, and its bytes as they came."""

    source: str
    id: str
    event: msgspec.Raw

    @property
    def document(self) -> dict[str, Any]:
        """The event decoded."""
        event: dict[str, Any] = msgspec.json.decode(self.event)
        return event


class Totals(msgspec.Struct, kw_only=True):
    """What a tenant used. `cost` is exact, in US dollars."""

    events: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    cost: Decimal = Decimal(0)


class _Used(msgspec.Struct, kw_only=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    cost: Decimal | None = None


class _Event(msgspec.Struct, kw_only=True):
    """The required attributes of CloudEvents, and what a usage event needs besides."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str = ""
    datacontenttype: str
    data: _Used


_USAGE, _BUDGET, _AUDIT = "gateway.llm.usage.v1", "gateway.llm.budget.v1", "gateway.llm.audit.v1"
_SUMS = tuple(name for name in Totals.__struct_fields__ if name != "events")
_decode = msgspec.json.Decoder(_Event).decode
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_batch(body: bytes) -> list[Stored]:
    """The events of a batch. Raises `ValueError` for the first that is no CloudEvent about usage."""
    batch = []
    for at, raw in enumerate(_decode_batch(body)):
        try:
            event = _decode(raw)
            _check(event)
        except ValueError as error:
            raise ValueError(f"event {at}: {error}") from None
        batch.append(Stored(event.source, event.id, raw.copy()))
    return batch


def _check(event: _Event) -> None:
    if event.specversion != "1.0" or event.type not in {_USAGE, _BUDGET, _AUDIT}:
        raise ValueError("not a usage event of CloudEvents 1.0")
    if not (event.id and event.source and event.subject):
        raise ValueError("an empty id, source or subject")
    if event.datacontenttype != "application/json":
        raise ValueError("data that is not JSON")
    if event.type == _BUDGET:
        return
    if not event.time:
        raise ValueError("a usage event without `time`")
    if datetime.fromisoformat(event.time).utcoffset() != timedelta(0):
        raise ValueError("a time that is not UTC")


class Ledger:
    """In an SQLite file, or in memory. What `store` has returned from survives kill -9."""

    def __init__(self, database: str) -> None:
        self._connection = sqlite3.connect(database, check_same_thread=False)  # it may be closed by any thread's GC
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(_SCHEMA)
        self.close = weakref.finalize(self, self._connection.close)
        """Close the file, once."""

    def __len__(self) -> int:
        return self.count("1")

    def store(self, batch: Sequence[Stored]) -> None:
        """Write all of them, or none."""
        with self._connection:
            self._connection.executemany(_STORE, [(each.source, each.id, bytes(each.event)) for each in batch])

    def knows_any(self, batch: Sequence[Stored]) -> bool:
        """Whether one of them is here already."""
        query = "SELECT 1 FROM events WHERE source = ? AND id = ?"
        return any(self._connection.execute(query, (each.source, each.id)).fetchone() for each in batch)

    def events(self) -> list[Stored]:
        """In the order they came."""
        rows = self._connection.execute("SELECT source, id, event FROM events ORDER BY rowid")
        return [Stored(source, name, msgspec.Raw(event)) for source, name, event in rows]

    def count(self, what: str) -> int:
        """The sum of an expression over all events."""
        total: int = self._connection.execute(f"SELECT COALESCE(SUM({what}), 0) FROM events").fetchone()[0]  # noqa: S608  # ours
        return total

    def totals(self) -> dict[str, Totals]:
        """By tenant."""
        totals: dict[str, Totals] = {}
        for stored in self.events():
            event = _decode(stored.event)
            if event.type != _USAGE:
                continue
            sums = totals.setdefault(event.subject, Totals())
            sums.events += 1
            for name in _SUMS:
                setattr(sums, name, getattr(sums, name) + (getattr(event.data, name) or 0))
        return totals
