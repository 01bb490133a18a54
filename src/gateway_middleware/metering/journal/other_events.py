"""Events in the spool that are no call's: what is done to its tables inside one transaction of the caller's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

from gateway_middleware.metering.journal.rows import has_table
from gateway_middleware.metering.journal.tables import BACKLOG, mark, move_mark, set_mark

Row: TypeAlias = tuple[str, float, bytes]
"""Id, time and body of an event."""
ANNOUNCED, _FACTS = "announced", "facts"
"""Tables that are made when they are needed: all that stands on the first page is lost with it."""


def add(connection: sqlite3.Connection, row: Row) -> int:
    """Add an event that is no call's; returns how many were added: none, where one with that id waits already."""
    added = connection.execute(
        "INSERT OR IGNORE INTO events (id, time, body) SELECT ?, ?, ? WHERE NOT EXISTS"
        " (SELECT 1 FROM dead WHERE id = ?)",
        (*row, row[0]),
    ).rowcount
    move_mark(connection, BACKLOG, added)
    return added


def announce(connection: sqlite3.Connection, row: Row) -> None:
    """Keep an event apart until it is settled or released."""
    create_announced(connection)
    connection.execute("INSERT OR REPLACE INTO announced (id, time, body) VALUES (?, ?, ?)", row)


def create_announced(connection: sqlite3.Connection) -> None:
    """The table, where there is none."""
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {ANNOUNCED} (id TEXT PRIMARY KEY, time REAL NOT NULL, body BLOB NOT NULL)"
    )


def settle(connection: sqlite3.Connection, row: Row) -> int:
    """Add an announced event as it is now; returns how many were added: none, where it is announced no more."""
    if not has_table(connection, ANNOUNCED):
        return 0
    was_announced = connection.execute("DELETE FROM announced WHERE id = ?", (row[0],)).rowcount
    return add(connection, row) if was_announced else 0


def release(connection: sqlite3.Connection, before: float) -> int:
    """Add the announced events from before a time as they are; returns how many were added."""
    if not has_table(connection, ANNOUNCED):
        return 0
    rows = connection.execute("SELECT id, time, body FROM announced WHERE time < ?", (before,)).fetchall()
    return sum(settle(connection, row) for row in rows)


def add_since(connection: sqlite3.Connection, name: str, rows: Sequence[Row]) -> frozenset[str]:
    """Add the events that are later than the last ones of that name; returns the ids of what was added."""
    last = mark(connection, name)
    later = [row for row in rows if last is None or row[1] > last]
    if later:
        set_mark(connection, name, max(time for _, time, _ in later))
    return frozenset(row[0] for row in later if add(connection, row))


def add_unless_last(connection: sqlite3.Connection, name: str, fact: str, row: Row, *, within: float) -> int:
    """Add an event unless the last one of that name was about the same fact, within so many seconds before or after.

    Returns how many were added.
    """
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {_FACTS} (name TEXT PRIMARY KEY, time REAL NOT NULL, fact TEXT NOT NULL)"
    )
    last = connection.execute("SELECT time, fact FROM facts WHERE name = ?", (name,)).fetchone()
    if last is not None and last[1] == fact and abs(row[1] - last[0]) < within:
        return 0
    connection.execute("INSERT OR REPLACE INTO facts (name, time, fact) VALUES (?, ?, ?)", (name, row[1], fact))
    return add(connection, row)
