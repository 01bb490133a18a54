"""What has ended in the segments of other processes, and whether their keeper has taken it into the spool."""

from __future__ import annotations

import os
from pathlib import Path

from gateway_middleware.metering.journal.segment import OPEN, key_of, owner_of, scan, segments_of, whole
from gateway_middleware.metering.journal.spool import Spool

_READ_BYTES = 256 * 1024


class EndsBeside:
    """What other processes had written when this was made. Everything blocks."""

    def __init__(self, spool: Spool, *, own: str) -> None:
        self._spool = spool
        others = [path for path in segments_of(spool.path) if owner_of(path, spool.path) != own]
        self._ends = {path: end for path in others if (end := _last_end(path)) > 0}

    @property
    def are_taken(self) -> bool:
        """Whether the spool has all of them. Raises `sqlite3.Error`."""
        self._ends = {path: end for path, end in self._ends.items() if not self._is_taken(path, end)}
        return not self._ends

    def _is_taken(self, path: Path, end: int) -> bool:
        return self._spool.progress(key_of(path, self._spool.path)).sequence >= end or not path.exists()


def _last_end(path: Path) -> int:
    """The number of the last record that ends a call; 0 where there is none, or no file any more."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _READ_BYTES))
            records, _ = scan(whole(file.read()))
    except OSError:
        return 0
    return max((record.sequence for record in records if record.kind != OPEN), default=0)
