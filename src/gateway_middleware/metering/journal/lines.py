"""The table of what calls were charged, day by day: what is done to it inside one transaction of the caller's."""
# ruff: noqa: S608 - only our own names and question marks are put into statements

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gateway_middleware.metering.journal.daily_line import DailyLine, LineKey, coarser, merged
from gateway_middleware.metering.journal.daily_total import MAX_COUNT
from gateway_middleware.metering.journal.rows import has_table, insert_rows, many, places
from gateway_middleware.metering.prices.parts import Quantities

LINES = "lines"
"""A table that is made when it is needed: all that stands on the first page is lost with it."""
MAX_LINES = 2_000
"""Of one tenant on one day; what comes then is told without what clients may make up."""
MAX_COARSE_LINES = 4_000
"""Of one tenant on one day in all; what comes then is in its total alone."""
MAX_DAYS = 400
"""On which there were calls; lines of days before them are dropped, and their totals are told as a whole."""
_WIDTH = len(LineKey._fields)
_KEYS = ", ".join(LineKey._fields)
_COUNTS = tuple(f"{kind}_count" for kind in Quantities._fields)
_NAMES = f"{_KEYS}, {', '.join(_COUNTS)}"
_SUMS = ", ".join(f"{name} = min({name} + excluded.{name}, {MAX_COUNT})" for name in _COUNTS)
_ADD = f"ON CONFLICT ({_KEYS}) DO UPDATE SET {_SUMS}"
_MAX_SEEN = 20_000


def create_lines(connection: sqlite3.Connection) -> None:
    """The table, where there is none."""
    keys = ", ".join(f"{name} TEXT" for name in LineKey._fields)
    counts = ", ".join(f"{name} INTEGER" for name in _COUNTS)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {LINES} ({keys}, {counts}, PRIMARY KEY ({_KEYS}))")


def lines_between(connection: sqlite3.Connection, first: str, last: str) -> list[DailyLine]:
    """Those of the days from first to last."""
    return _found(connection, "day BETWEEN ? AND ?", (first, last))


def lines_of_tenant(connection: sqlite3.Connection, tenant: str, days: Sequence[str]) -> list[DailyLine]:
    """Those of one tenant on these days, without a look at those of others."""
    return _found(connection, f"day IN ({places(days)}) AND tenant = ?", (*days, tenant))


def _found(connection: sqlite3.Connection, condition: str, values: Sequence[str]) -> list[DailyLine]:
    if not has_table(connection, LINES):
        return []
    rows = connection.execute(f"SELECT {_NAMES} FROM {LINES} WHERE {condition} ORDER BY {_KEYS}", values)
    return [_line(row) for row in rows]


class LineTable:
    """Adds to the table. Remembers which lines it has seen there, so that they are not looked for again.

    They are remembered by their hashes: of two alike the second finds room where there may be none, and no more.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._days: set[str] = set()

    def add(self, connection: sqlite3.Connection, lines: Sequence[DailyLine]) -> None:
        """Add to what is there. Where a tenant has too many lines, to coarser ones."""
        if not lines:
            return
        create_lines(connection)
        rest = self._add(connection, lines, MAX_LINES)
        self._add(connection, merged(map(coarser, rest)), MAX_COARSE_LINES)
        days = {line.key.day for line in lines}
        if not days <= self._days:
            self._days |= days
            _drop_old(connection)

    def _add(self, connection: sqlite3.Connection, lines: Sequence[DailyLine], most: int) -> list[DailyLine]:
        """Returns those for which there is no room."""
        unseen = [line.key for line in lines if hash(line.key) not in self._seen]
        new = _not_there(connection, unseen)
        room = _room(connection, {(key.day, key.tenant) for key in new}, most)
        refused = set()
        for key in new:
            owner = key.day, key.tenant
            if room[owner] <= 0:
                refused.add(key)
            room[owner] -= 1
        _put(connection, [line for line in lines if line.key not in refused])
        self._remember({hash(key) for key in unseen if key not in refused})
        return [line for line in lines if line.key in refused]

    def _remember(self, hashes: set[int]) -> None:
        if len(self._seen) > _MAX_SEEN:
            self._seen.clear()
        self._seen |= hashes


def _drop_old(connection: sqlite3.Connection) -> None:
    """Counted in days that there are, for a clock that has jumped would take all of them for old."""
    kept = f"SELECT DISTINCT day FROM {LINES} ORDER BY day DESC LIMIT {MAX_DAYS}"
    connection.execute(f"DELETE FROM {LINES} WHERE day < (SELECT MIN(day) FROM ({kept}))")


def _put(connection: sqlite3.Connection, lines: Sequence[DailyLine]) -> None:
    rows = [(*key, *used) for key, used in lines]
    insert_rows(connection, f"INSERT INTO {LINES} ({_NAMES})", rows, otherwise=_ADD)


def _not_there(connection: sqlite3.Connection, keys: Sequence[LineKey]) -> list[LineKey]:
    if not keys:
        return []
    rows = connection.execute(  # so joined, each is found by the index; with IN the table would be scanned
        f"WITH asked ({_KEYS}) AS (VALUES {many(keys)}) SELECT {_KEYS} FROM asked CROSS JOIN {LINES} USING ({_KEYS})",
        [part for key in keys for part in key],
    )
    known = set(rows.fetchall())
    return [key for key in keys if key not in known]


def _room(connection: sqlite3.Connection, owners: Iterable[tuple[str, str]], most: int) -> Counter[tuple[str, str]]:
    count = f"SELECT COUNT(*) FROM {LINES} WHERE day = ? AND tenant = ?"
    return Counter({owner: most - connection.execute(count, owner).fetchone()[0] for owner in owners})


def _line(row: tuple[Any, ...]) -> DailyLine:
    return DailyLine(LineKey(*row[:_WIDTH]), Quantities(*row[_WIDTH:]))
