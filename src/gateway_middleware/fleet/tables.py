"""The tables of a fleet's directory, and what is done to them inside one transaction of the caller's."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway_middleware.fleet.entries import Entry, Owned, Owner, Process
from gateway_middleware.fleet.store import MAX_OWNED, OWNED_SECONDS, PAGE, SILENT_SECONDS

_TABLES = {
    "entries": (
        "kind TEXT, key TEXT, body BLOB NOT NULL, origin TEXT NOT NULL, version INTEGER NOT NULL, expires REAL,"
        " position INTEGER NOT NULL UNIQUE, PRIMARY KEY (kind, key)"
    ),
    "processes": "id TEXT PRIMARY KEY, body BLOB NOT NULL, seen REAL NOT NULL",
    "owned": (
        "number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, deployment TEXT NOT NULL,"
        " ends REAL NOT NULL"
    ),
    "marks": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
}
_CHUNK = 500
_SWEPT_AT_ONCE = 512
_encode = msgspec.json.Encoder().encode
_decode_process = msgspec.json.Decoder(Process).decode


def create(connection: sqlite3.Connection) -> None:
    """The tables, where there are none, and the epoch of this file."""
    for name, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
    connection.execute("INSERT OR IGNORE INTO marks VALUES ('epoch', ?)", (secrets.token_hex(8),))
    connection.execute("INSERT OR IGNORE INTO marks VALUES ('position', '0')")


def epoch(connection: sqlite3.Connection) -> str:
    """Made once with the file."""
    value: str = connection.execute("SELECT value FROM marks WHERE name = 'epoch'").fetchone()[0]
    return value


def append(connection: sqlite3.Connection, entries: Iterable[Entry], now: float) -> None:
    """Store entries that are newer than what is there."""
    connection.execute("DELETE FROM entries WHERE expires <= ?", (now,))
    position = int(connection.execute("SELECT value FROM marks WHERE name = 'position'").fetchone()[0])
    for entry in entries:
        position += 1
        expires = None if entry.seconds is None else now + entry.seconds
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET body=excluded.body,"
            " origin=excluded.origin, version=excluded.version, expires=excluded.expires, position=excluded.position"
            " WHERE (excluded.version, excluded.origin) > (version, origin)",
            (entry.kind, entry.key, entry.body, entry.origin, entry.version, expires, position),
        )
    connection.execute("UPDATE marks SET value = ? WHERE name = 'position'", (str(position),))


def entries_after(connection: sqlite3.Connection, position: int, now: float) -> tuple[int, list[Entry]]:
    """The next page of what holds, and where it ends."""
    rows = connection.execute(
        "SELECT kind, key, body, origin, version, expires, position FROM entries WHERE position > ?"
        " AND (expires IS NULL OR expires > ?) ORDER BY position LIMIT ?",
        (position, now, PAGE),
    ).fetchall()
    entries = [
        Entry(kind=kind, key=key, body=body, origin=origin, version=version, seconds=_left(expires, now))
        for kind, key, body, origin, version, expires, _ in rows
    ]
    return (rows[-1][-1] if rows else position), entries


def _left(expires: float | None, now: float) -> float | None:
    return None if expires is None else expires - now


def note_process(connection: sqlite3.Connection, process: Process, now: float) -> None:
    """It lives. Forgets those that were silent for too long, or that a clock which was set back has put ahead."""
    connection.execute("INSERT OR REPLACE INTO processes VALUES (?, ?, ?)", (process.id, _encode(process), now))
    connection.execute(
        "DELETE FROM processes WHERE seen NOT BETWEEN ? AND ?", (now - SILENT_SECONDS, now + SILENT_SECONDS)
    )


def forget_process(connection: sqlite3.Connection, process: Process) -> None:
    """It has ended."""
    connection.execute("DELETE FROM processes WHERE id = ?", (process.id,))


def processes(connection: sqlite3.Connection, now: float) -> list[Process]:
    """Those that were heard of."""
    rows = connection.execute("SELECT body, seen FROM processes WHERE seen > ?", (now - SILENT_SECONDS,)).fetchall()
    return [msgspec.structs.replace(_decode_process(body), silent=max(now - seen, 0.0)) for body, seen in rows]


def remember(connection: sqlite3.Connection, owned: Sequence[Owned], now: float) -> None:
    """Store owners; forget the expired and the oldest above the bound, a few more than came."""
    connection.executemany(
        "INSERT OR REPLACE INTO owned (digest, tenant, deployment, ends) VALUES (?, ?, ?, ?)",
        [(one.digest, one.owner.tenant, one.owner.place, now + OWNED_SECONDS) for one in owned],
    )
    oldest = "SELECT number FROM owned ORDER BY number LIMIT ?"
    connection.execute(
        f"DELETE FROM owned WHERE number IN ({oldest}) AND"  # noqa: S608 - nothing of it comes from outside
        " (ends <= ? OR number <= (SELECT MAX(number) FROM owned) - ?)",
        (len(owned) + _SWEPT_AT_ONCE, now, MAX_OWNED),
    )


def owners(connection: sqlite3.Connection, digests: Sequence[bytes], now: float) -> Mapping[bytes, Owner]:
    """Those that are known."""
    found: dict[bytes, Owner] = {}
    for start in range(0, len(digests), _CHUNK):
        part = digests[start : start + _CHUNK]
        places = ", ".join("?" * len(part))
        rows = connection.execute(
            f"SELECT digest, tenant, deployment FROM owned WHERE digest IN ({places}) AND ends > ?",  # noqa: S608
            (*part, now),
        )
        found |= {bytes(digest): Owner(tenant, place) for digest, tenant, place in rows}
    return found
