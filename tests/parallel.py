"""How the tests are shared out where several processes run them (`pytest -n 2`).

What starts servers runs in one process, one test after the other, so that no two of them fight for the machine, and
first, as it takes longest. Everything else is handed out file by file.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_SERVERS = ("tests/deploy/", "tests/drills/", "tests/whole/")


class Sharing(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Tests of one scope run in one process; the scopes are begun in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if nodeid.startswith(_SERVERS) else nodeid.partition("::")[0]


def put_servers_first(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nothing where one process runs all."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(_SERVERS))
