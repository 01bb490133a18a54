"""How the tests are shared out where several processes run them (`pytest -n 2`).

Those that start servers run in one process, one test after the other, so that no two of them fight for the machine, and
first, as they take longest. Everything else is handed out file by file.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_ROOT = Path(__file__).parents[1]
_starts_processes = re.compile(
    r"^(import subprocess|from (served|console_scene) import|from server_process import .*\bServer\b)", re.MULTILINE
).search


class Sharing(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Tests of one scope run in one process; the scopes are begun in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "servers" if _rank(file) == 0 else file


def put_servers_first(config: pytest.Config, items: list[pytest.Item]) -> None:
    """After them the other tests of the whole. Nothing where one process runs all."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.nodeid.partition("::")[0]))


@lru_cache(1024)
def _rank(file: str) -> int:
    if file.startswith(("tests/deploy/", "tests/drills/")):
        return 0
    if not file.startswith("tests/whole/"):
        return 2
    return 0 if _starts_processes((_ROOT / file).read_text()) else 1
