"""A file that one process leaves for others."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway_middleware.metering.journal.left_file import leave


def test_the_last_one_stands_there_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.db.told"
    for content, draft in ((b"a long first one", "1"), (b"second", "2")):
        leave(path, content, draft=draft)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.db.told"
    leave(path, b"first")
    (tmp_path / "journal.db.told.new").mkdir()
    with pytest.raises(OSError, match="new"):
        leave(path, b"second")
    assert path.read_bytes() == b"first"
