"""The files of a spool: opened, locked, moved aside."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

_BUSY_SECONDS = 5.0


def connect(path: Path) -> sqlite3.Connection:
    """A connection for all threads, each transaction of which is begun and ended by the caller."""
    return sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def lock_file(path: Path, suffix: str) -> int:
    """A file beside the spool, open, to lock."""
    return os.open(path.with_name(f"{path.name}.{suffix}"), os.O_CREAT | os.O_RDWR, 0o600)


def inode_of(path: Path) -> int:
    """Which file is there; -1 for none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def move_aside(path: Path, aside: Path) -> None:
    """Move a spool with what SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
