"""When delivery reads its store and sends a batch: now, in a while, or never again."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection

from gateway_middleware.core.clocks import Clocks
from gateway_middleware.metering.delivery.backoff import Backoff


class Schedule:
    """Belongs to one event loop, but for `notify`.

    A batch that is not full waits until `linger` seconds after the batch before it. Without `notify` the store is read
    each `poll` seconds. While delivery fails one batch is under way at a time, as `backoff` says.
    """

    def __init__(self, *, backoff: Backoff, linger: float, poll: float, clocks: Clocks) -> None:
        self._backoff = backoff
        self._linger = linger
        self._poll = poll
        self._clock = clocks.monotonic
        self._sleep = clocks.sleep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_notified = False
        self._news, self._settled, self._closing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._closes_at = math.inf
        self._not_before = 0.0

    def begin(self) -> None:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """New events are in the store. From any thread, at any time."""
        if self._is_notified or self._loop is None:
            return
        self._is_notified = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: the next process reads the store
            self._loop.call_soon_threadsafe(self._news.set)

    def close(self, seconds: float) -> None:
        """End when all is delivered, or after some seconds. One more attempt is made at once."""
        self._closes_at = self._clock() + seconds
        self._backoff.hurry()
        self._closing.set()
        self._news.set()

    @property
    def is_closing(self) -> bool:
        """Whether it ends when nothing is left."""
        return self._closing.is_set()

    def reading(self) -> None:
        """The store is about to be read: what is told from now on is news."""
        self._is_notified = False
        self._news.clear()
        self._settled.clear()

    def has_read(self, count: int, limit: int) -> None:
        """So many events were there of as many as were asked for."""
        self._not_before = self._clock() + self._linger if 0 < count < limit else 0.0

    def settled(self) -> None:
        """A batch is no longer under way."""
        self._settled.set()

    async def idle(self) -> None:
        """Nothing was there: wait until something may be."""
        await self._first_of(self._settled if self.is_closing else self._news, self._poll)

    async def may_send(self, in_flight: Collection[str]) -> bool:
        """Wait until a batch may be sent. False when that is too late."""
        while True:
            until = max(self._backoff.until, 0.0 if self.is_closing else self._not_before)
            now = self._clock()
            if self.is_closing and max(until, now) >= self._closes_at:
                return False
            if until > now:
                await self._wait(until - now)
            elif self._backoff.failures and in_flight:
                self._settled.clear()
                await self._settled.wait()
            else:
                return True

    async def _wait(self, seconds: float) -> None:
        if self.is_closing:
            await self._sleep(seconds)
        else:
            await self._first_of(self._closing, seconds)

    async def _first_of(self, event: asyncio.Event, seconds: float) -> None:
        ends = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._sleep(seconds))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
