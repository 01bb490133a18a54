"""One process's way to one store: what is to be said goes there, what is new comes back, every quarter of a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway_middleware.fleet.store import StoreAwayError

if TYPE_CHECKING:
    from gateway_middleware.fleet.entries import Entry, Process
    from gateway_middleware.fleet.shared_log import SharedLog
    from gateway_middleware.fleet.store import FleetStore

INTERVAL = 0.25
"""Seconds between two looks at a store."""
_AWAY_FAILURES = 2
_log = logging.getLogger("gateway_middleware")


class StoreLink:
    """Exchanges entries between the log of this process and a store, from `run` and whenever `exchange` is called.

    A store that can say that it is still (`FleetStore.is_still`) is not asked for news then.

    What could not be said while the store was away is said when it is back; a store that has lost everything is told
    again what this process knows. `on_entries` is given this link and what was read, `describe` says who this process
    is.
    """

    def __init__(
        self,
        store: FleetStore,
        log: SharedLog,
        *,
        on_entries: Callable[[StoreLink, Sequence[Entry]], None],
        describe: Callable[[], Process],
        interval: float = INTERVAL,
    ) -> None:
        self.store = store
        self._log = log
        self._on_entries = on_entries
        self._describe = describe
        self._interval = interval
        self._unsaid: dict[tuple[str, str], None] = {}
        self._epoch: str | None = None
        self._position = 0
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.processes: Sequence[Process] = ()
        self._failures = 0
        self.is_away = False

    def post(self, name: tuple[str, str]) -> None:
        """Tell the store, soon, what the log holds by this name."""
        self._unsaid[name] = None
        self._wake.set()

    def is_told(self, name: tuple[str, str]) -> bool:
        """Whether the store knows what was posted."""
        return name not in self._unsaid

    async def exchange(self) -> bool:
        """Say what is unsaid and read what is new; False where the store is away."""
        async with self._turn:
            try:
                await self._say()
                while await self._read():
                    pass
            except StoreAwayError as error:
                self._note(error)
                return False
            self._note(None)
            return True

    async def tell(self) -> bool:
        """Say what is unsaid, and read nothing; False where the store is away.

        Whoever has waited while somebody else said it all does nothing more.
        """
        async with self._turn:
            if self._unsaid:
                try:
                    await self._say()
                except StoreAwayError as error:
                    self._note(error)
                    return False
            return True

    async def run(self) -> None:
        """Exchange for ever."""
        while True:
            self._wake.clear()
            await self.exchange()
            await self._pause()

    async def _pause(self) -> None:
        # A timer, not `asyncio.wait_for`: looks at a store that is still make no task and no change of tasks.
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)
        try:
            await self._wake.wait()
        finally:
            self._timer.cancel()

    def _look(self) -> None:
        if self.store.is_still(self._describe()):
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)
        else:
            self._wake.set()

    async def aclose(self) -> None:
        """Say what is unsaid, and goodbye."""
        try:
            async with self._turn:
                await self._say()
                await self.store.leave(self._describe())
        except StoreAwayError:
            pass  # it learns from silence
        finally:
            await self.store.aclose()

    async def _say(self) -> None:
        names = list(self._unsaid)
        if not names:
            return
        entries = {name: entry for name in names if (entry := self._log.find(*name)) is not None}
        if entries:
            await self.store.append(list(entries.values()))
        for name in names:
            sent, now = entries.get(name), self._log.find(*name)
            if now is None or (sent is not None and sent.order == now.order):
                self._unsaid.pop(name, None)

    async def _read(self) -> bool:
        """One page; whether there is more to do."""
        news = await self.store.news(self._position, self._describe())
        if self._epoch not in {None, news.epoch}:
            self._epoch, self._position = news.epoch, 0
            await self.store.append(self._log.live())
            return True
        self._epoch, self._position, self.processes = news.epoch, news.position, news.processes
        self._on_entries(self, news.entries)
        return news.has_more

    def _note(self, error: StoreAwayError | None) -> None:
        """One failure may be a connection that was lost; two in a row are the store."""
        self._failures = 0 if error is None else self._failures + 1
        if self._failures == _AWAY_FAILURES:
            _log.error("Fleet: %s is away: %s. Other processes hear nothing of this one.", self.store.name, error)
        if self.is_away and error is None:
            _log.warning("Fleet: %s is back.", self.store.name)
        self.is_away = self._failures >= _AWAY_FAILURES
