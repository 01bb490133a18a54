"""Statements about many rows at once: each statement gives the interpreter lock to the event loop and waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


def insert_rows(
    connection: sqlite3.Connection, insert: str, rows: Sequence[tuple[Any, ...]], otherwise: str = ""
) -> None:
    """Complete a statement `INSERT INTO table (columns)` with the values of some rows; nothing where there are none.

    `otherwise`: an `ON CONFLICT` clause.
    """
    if rows:
        connection.execute(f"{insert} VALUES {many(rows)} {otherwise}", [value for row in rows for value in row])


def many(rows: Sequence[Sequence[Any]]) -> str:
    """The question marks of some rows."""
    return ", ".join([f"({places(rows[0])})"] * len(rows))


def places(values: Sequence[Any]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(values))


def chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Some at a time."""
    return (values[start : start + size] for start in range(0, len(values), size))


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table that is made when it is needed."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None
