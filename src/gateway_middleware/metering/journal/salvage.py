"""Reading the rows that can still be read of a corrupt spool: none where its first page, with the schema, is torn."""
# ruff: noqa: S608 - only our own names and question marks are put into statements

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway_middleware.metering.journal.lines import LINES, create_lines
from gateway_middleware.metering.journal.other_events import ANNOUNCED, create_announced
from gateway_middleware.metering.journal.rows import has_table
from gateway_middleware.metering.journal.tables import TABLES, recount

_PAGE = 4096


def copy_of(path: Path) -> Path:
    """A copy to work on, with its write-ahead log. Raises OSError."""
    copy = path.with_name(f"{path.name}.salvage")
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            copy.with_name(copy.name + suffix).chmod(0o600)
    return copy


def salvage(copy: Path, fresh: sqlite3.Connection) -> int:
    """Bring all readable rows from a copy into a new spool, and remove the copy; returns how many rows."""
    try:
        _lengthen(copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as broken:
            fresh.execute("BEGIN IMMEDIATE")
            copied = sum(_bring(broken, fresh, table) for table in TABLES)
            for table, create in {ANNOUNCED: create_announced, LINES: create_lines}.items():
                if _has(broken, table):
                    create(fresh)
                    copied += _bring(broken, fresh, table)
            recount(fresh)
            fresh.execute("COMMIT")
        return copied
    finally:
        for suffix in ("", "-wal", "-shm"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _has(broken: sqlite3.Connection, table: str) -> bool:
    try:
        return has_table(broken, table)
    except sqlite3.Error:
        return False


def _lengthen(copy: Path) -> None:
    """SQLite does not open a file that has fewer pages than its header says."""
    with copy.open("r+b") as file:
        header = file.read(32)
        size = int.from_bytes(header[28:32]) * _PAGE
        have = copy.stat().st_size
        if have < size <= 2 * have + 2 * _PAGE:
            file.truncate(size)


def _bring(broken: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> int:
    """Read from the front until something is broken, then from the back."""
    copied = 0
    for order in ("ASC", "DESC"):
        rows, is_whole = _readable(broken, f"SELECT * FROM {table} NOT INDEXED ORDER BY rowid {order}")
        for row in rows:
            copied += _put(fresh, table, row)
        if is_whole:
            break
    return copied


def _put(fresh: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> int:
    try:
        return fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row).rowcount
    except sqlite3.IntegrityError:
        return 0


def _readable(broken: sqlite3.Connection, query: str) -> tuple[list[tuple[Any, ...]], bool]:
    rows: list[tuple[Any, ...]] = []
    try:
        cursor = broken.execute(query)
        while part := cursor.fetchmany(1):
            rows += part
    except (sqlite3.Error, UnicodeDecodeError):
        return rows, False
    return rows, True
