"""When a store is asked for what is new, and when it need not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway_middleware.fleet.directory import DirectoryStore
from gateway_middleware.fleet.entries import Process
from gateway_middleware.fleet.link import StoreLink
from gateway_middleware.fleet.shared_log import SharedLog
from gateway_middleware.fleet.store import News

pytestmark = pytest.mark.anyio
ME = Process(id="p1", host="h", pid=1, started=1.0, version="0", config_hash="abc")


class CountedStore(DirectoryStore):
    """Is as still as it is told to be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.stillness = True
        self.looks = self.asked = 0

    def is_still(self, process: Process) -> bool:
        self.looks += 1
        return self.stillness

    async def news(self, position: int, process: Process) -> News:
        self.asked += 1
        return await super().news(position, process)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_a_store_is_asked_only_when_it_is_not_still(tmp_path: Path) -> None:
    store = CountedStore(tmp_path)
    log = SharedLog(ME.id, clock=lambda: 0.0, wall=lambda: 0.0)
    link = StoreLink(store, log, on_entries=lambda link, entries: None, describe=lambda: ME, interval=0.0)
    running = asyncio.ensure_future(link.run())
    await until(lambda: store.looks >= 100)
    assert store.asked == 1
    entry = log.write("x", "k", b"{}", None)
    link.post(entry.name)
    await until(lambda: link.is_told(entry.name) and store.asked == 2)
    looks = store.looks
    await until(lambda: store.looks >= looks + 100)
    assert store.asked == 2
    store.stillness = False
    await until(lambda: store.asked >= 4)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await link.aclose()
