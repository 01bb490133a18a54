"""The tables of the spool, and what is done to them inside one transaction of the caller's."""
# ruff: noqa: S608 - only our own names and question marks are put into statements

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway_middleware.metering.journal.call_end import CallEnd, EndKind
from gateway_middleware.metering.journal.daily_line import lines_of
from gateway_middleware.metering.journal.daily_total import DailyTotal, merged, summed
from gateway_middleware.metering.journal.lines import LineTable
from gateway_middleware.metering.journal.rows import chunks, insert_rows, many, places

TABLES = {
    "events": "seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time REAL NOT NULL, body BLOB NOT NULL",
    "dead": "id TEXT PRIMARY KEY, time REAL NOT NULL, body BLOB NOT NULL, reason TEXT NOT NULL, died REAL NOT NULL",
    "totals": (
        "day TEXT, tenant TEXT, closed INTEGER, orphaned INTEGER, voided INTEGER, unpriced INTEGER,"
        " input_tokens INTEGER, output_tokens INTEGER, cached_input_tokens INTEGER, cost TEXT,"
        " PRIMARY KEY (day, tenant)"
    ),
    "owners": "owner TEXT PRIMARY KEY, sequence INTEGER NOT NULL, is_done INTEGER NOT NULL",
    "settled": "owner TEXT, id TEXT, PRIMARY KEY (owner, id)",
    "marks": "name TEXT PRIMARY KEY, value REAL NOT NULL",
}
BACKLOG, _DEAD, _TIME = "backlog", "dead", "time"
"""Marks: the rows of `events` and of `dead`, so that nobody has to count them, and the time of day agreed upon."""
_COLUMNS = DailyTotal.__struct_fields__
_NAMES = ", ".join(_COLUMNS)
_CHUNK = 64
_EXPIRED_PART = 512


class Progress(NamedTuple):
    """The highest record of a process that is in the spool; whether all are; the ids settled without a record."""

    sequence: int = 0
    is_done: bool = False
    settled: frozenset[str] = frozenset()


class Folded(NamedTuple):
    """How many events are new, how many were there already, and how many calls cost nothing."""

    added: int
    known: int
    voided: int = 0


def prepare(connection: sqlite3.Connection, synchronous: str) -> None:
    """Make a connection ours."""
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute(f"PRAGMA synchronous={synchronous}")
    create_tables(connection)


def create_tables(connection: sqlite3.Connection) -> None:
    """The tables, where there are none."""
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")


def check(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` as SQLite does where the file is not whole, or cannot be written."""
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        error = sqlite3.DatabaseError(answer)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    connection.execute("DELETE FROM owners WHERE owner = ''")
    recount(connection)


def gauge(connection: sqlite3.Connection) -> tuple[int, float | None, int]:
    """Backlog, time of the oldest event, dead letters."""
    oldest = connection.execute("SELECT time FROM events ORDER BY seq LIMIT 1").fetchone()
    backlog, dead = mark(connection, BACKLOG), mark(connection, _DEAD)
    if backlog is None or dead is None or (backlog > 0) != (oldest is not None):
        backlog, dead = recount(connection)
    return int(backlog), oldest[0] if oldest else None, int(dead)


def recount(connection: sqlite3.Connection) -> tuple[int, int]:
    """Count all events and all dead letters, and remember both. Reads the whole of two indices."""
    backlog: int = connection.execute("SELECT COUNT(*) FROM events").fetchone()[0]
    dead: int = connection.execute("SELECT COUNT(*) FROM dead").fetchone()[0]
    set_mark(connection, BACKLOG, backlog)
    set_mark(connection, _DEAD, dead)
    return backlog, dead


def known_time(connection: sqlite3.Connection) -> float | None:
    """The time of day that was agreed on last, or that of the newest event; None where there is neither."""
    newest = connection.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    marked = mark(connection, _TIME)
    return marked if marked is not None or newest is None else newest[0]


def mark_time(connection: sqlite3.Connection, seconds: float) -> None:
    """Remember a time of day; never an earlier one than before."""
    set_mark(connection, _TIME, max(seconds, mark(connection, _TIME) or seconds))


def mark(connection: sqlite3.Connection, name: str) -> float | None:
    """A number that is remembered by name."""
    row = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def set_mark(connection: sqlite3.Connection, name: str, value: float) -> None:
    """Remember a number by name."""
    connection.execute("INSERT OR REPLACE INTO marks (name, value) VALUES (?, ?)", (name, value))


def move_mark(connection: sqlite3.Connection, name: str, change: int) -> None:
    """Change a remembered number."""
    if change:
        connection.execute("UPDATE marks SET value = value + ? WHERE name = ?", (change, name))


def oldest(connection: sqlite3.Connection, limit: int, exclude: Collection[str]) -> list[tuple[str, bytes]]:
    """Ids and bodies of the events that came first, without some."""
    without = msgspec.json.encode(list(exclude)).decode()
    return connection.execute(
        "SELECT id, body FROM events WHERE id NOT IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
        (without, limit),
    ).fetchall()


def remove(connection: sqlite3.Connection, ids: Sequence[str]) -> int:
    """Delete events; returns how many were there."""
    removed = sum(
        connection.execute(f"DELETE FROM events WHERE id IN ({places(part)})", part).rowcount
        for part in chunks(ids, _CHUNK)
    )
    move_mark(connection, BACKLOG, -removed)
    return removed


def bury(connection: sqlite3.Connection, event_id: str, reason: str, now: float) -> int:
    """Move an event to the dead letters; returns how many were moved."""
    buried = connection.execute(
        "INSERT OR IGNORE INTO dead (id, time, body, reason, died) SELECT id, time, body, ?, ? FROM events WHERE id=?",
        (reason, now, event_id),
    )
    move_mark(connection, _DEAD, buried.rowcount)
    return remove(connection, [event_id])


def shed(connection: sqlite3.Connection, max_events: int) -> int:
    """Delete the oldest events above a number; returns how many."""
    surplus = max(0, int(mark(connection, BACKLOG) or 0) - max_events)
    oldest_rows = "SELECT seq FROM events ORDER BY seq LIMIT ?"
    dropped = connection.execute(f"DELETE FROM events WHERE seq IN ({oldest_rows})", (surplus,)).rowcount
    move_mark(connection, BACKLOG, -dropped)
    return dropped


def expire(connection: sqlite3.Connection, before: float) -> int:
    """Delete the events of calls older than a time, from the front as long as there are any; returns how many."""
    dropped, part = 0, _EXPIRED_PART
    while part == _EXPIRED_PART:
        first_rows = f"SELECT seq FROM events ORDER BY seq LIMIT {_EXPIRED_PART}"
        part = connection.execute(f"DELETE FROM events WHERE seq IN ({first_rows}) AND time < ?", (before,)).rowcount
        dropped += part
    move_mark(connection, BACKLOG, -dropped)
    return dropped


def fold(
    connection: sqlite3.Connection, owner: str, ends: Sequence[CallEnd], *, is_last: bool, lines: LineTable
) -> Folded:
    """Add events and sums, and how far the process is taken in with them."""
    before = progress(connection, owner)
    if before.is_done:
        return Folded(0, 0)
    added = known = voided = 0
    for part in chunks(ends, _CHUNK):
        fresh = [s for s in part if s.sequence is None or s.sequence > before.sequence]
        new = _unknown(connection, owner, fresh)
        known += len(fresh) - len(new)
        inserted = _insert(connection, owner, new)
        lines.add(connection, lines_of(new))
        added += inserted
        voided += len(new) - inserted
    reached = max((s.sequence or 0 for s in ends), default=0)
    connection.execute(
        "INSERT OR REPLACE INTO owners (owner, sequence, is_done) VALUES (?, ?, ?)",
        (owner, max(reached, before.sequence), is_last),
    )
    return Folded(added, known, voided)


def progress(connection: sqlite3.Connection, owner: str) -> Progress:
    """How far a process is taken in."""
    row = connection.execute("SELECT sequence, is_done FROM owners WHERE owner=?", (owner,)).fetchone()
    if row is None:
        return Progress()
    settled = connection.execute("SELECT id FROM settled WHERE owner=?", (owner,))
    return Progress(row[0], bool(row[1]), frozenset(event_id for (event_id,) in settled))


def forget(connection: sqlite3.Connection, owner: str) -> None:
    """Nothing of this process can come again."""
    connection.execute("DELETE FROM owners WHERE owner=?", (owner,))
    connection.execute("DELETE FROM settled WHERE owner=?", (owner,))


def totals(connection: sqlite3.Connection, first: str, last: str) -> list[DailyTotal]:
    """The sums of the days from first to last."""
    rows = connection.execute(
        f"SELECT {_NAMES} FROM totals WHERE day BETWEEN ? AND ? ORDER BY day, tenant", (first, last)
    )
    return [_total(row) for row in rows]


def _unknown(connection: sqlite3.Connection, owner: str, part: Sequence[CallEnd]) -> list[CallEnd]:
    ids = [s.id for s in part]
    ours = places(ids)
    rows = connection.execute(
        f"SELECT id FROM events WHERE id IN ({ours}) UNION SELECT id FROM dead WHERE id IN ({ours})"
        f" UNION SELECT id FROM settled WHERE owner=? AND id IN ({ours})",
        [*ids, *ids, owner, *ids],
    )
    known = {event_id for (event_id,) in rows.fetchall()}
    fresh: dict[str, CallEnd] = {}
    for end in part:
        if end.id not in known:
            fresh.setdefault(end.id, end)
    return list(fresh.values())


def _insert(connection: sqlite3.Connection, owner: str, new: Sequence[CallEnd]) -> int:
    if not new:
        return 0
    events = [(s.id, s.time, s.body) for s in new if s.kind is not EndKind.VOIDED]
    insert_rows(connection, "INSERT INTO events (id, time, body)", events)
    unwritten = [(owner, s.id) for s in new if s.sequence is None and s.kind is not EndKind.ORPHANED]
    insert_rows(connection, "INSERT INTO settled (owner, id)", unwritten)
    _add(connection, summed(new))
    move_mark(connection, BACKLOG, len(events))
    return len(events)


def _add(connection: sqlite3.Connection, sums: list[DailyTotal]) -> None:
    keys = [key for total in sums for key in (total.day, total.tenant)]
    rows = connection.execute(  # so joined, each is found by the index; with IN the table would be scanned
        f"WITH asked (day, tenant) AS (VALUES {many([('day', 'tenant')] * len(sums))})"
        f" SELECT {_NAMES} FROM asked CROSS JOIN totals USING (day, tenant)",
        keys,
    )
    known = {(total.day, total.tenant): total for total in map(_total, rows.fetchall())}
    after = [merged(known[key], one) if (key := (one.day, one.tenant)) in known else one for one in sums]
    values = [tuple(getattr(total, name) for name in _COLUMNS) for total in after]
    insert_rows(connection, f"INSERT OR REPLACE INTO totals ({_NAMES})", values)


def _total(row: tuple[Any, ...]) -> DailyTotal:
    return DailyTotal(**dict(zip(_COLUMNS, row, strict=True)))
