"""Writes what has ended into the index of calls: from any thread, in batches, and never more than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice

from gateway_middleware.metering.call_index.entries import grouped
from gateway_middleware.metering.call_index.redis_index import CallIndex, NoCallIndex
from gateway_middleware.metering.journal.call_end import CallEnd
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.redis.caller import RedisError

MAX_WAITING = 5_000
"""Events; the oldest give way."""
_AT_ONCE = 500
_LINGER_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_FLUSH_SECONDS = 1.0
_log = logging.getLogger("gateway_middleware")


class NoIndexWriter:
    """There is no index."""

    dropped = 0

    def note(self, ends: Iterable[CallEnd]) -> None:
        """Nothing to do."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Nothing starts, nothing stops."""
        yield


class IndexWriter:
    """`note` takes what has ended; a task of the loop in which `lifespan` was entered writes it.

    While the index is away the newest `MAX_WAITING` events wait; `dropped` counts the others.
    """

    def __init__(
        self, index: CallIndex, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, room: int = MAX_WAITING
    ) -> None:
        self.dropped = 0
        self._index = index
        self._sleep = sleep
        self._room = room
        self._waiting: deque[tuple[UsageEvent, bytes]] = deque()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_away = False

    def note(self, ends: Iterable[CallEnd]) -> None:
        """These calls have ended. From any thread; waits for nothing."""
        loop = self._loop
        events = [(end.event, end.body) for end in ends if end.event is not None]
        if loop is not None and events:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody writes any more
                loop.call_soon_threadsafe(self._take, events)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Write until the end of the block, then the rest, for a second at most."""
        self._loop = loop = asyncio.get_running_loop()
        writing = loop.create_task(self._run())
        try:
            yield
        finally:
            await asyncio.sleep(0)  # what other threads have noted by now is taken
            self._loop = None
            writing.cancel()
            await asyncio.wait([writing])
            with contextlib.suppress(RedisError, TimeoutError):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._write()
            await self._index.aclose()

    def _take(self, events: list[tuple[UsageEvent, bytes]]) -> None:
        self._waiting.extend(events)
        while len(self._waiting) > self._room:
            self._waiting.popleft()
            self.dropped += 1
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._sleep(_LINGER_SECONDS)
            self._wake.clear()
            try:
                await self._write()
            except RedisError as error:
                self._tell(str(error))
                await self._sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _write(self) -> None:
        while self._waiting:
            part = list(islice(self._waiting, _AT_ONCE))
            await self._index.keep(grouped(part))
            for one in part:
                if self._waiting and self._waiting[0] is one:
                    self._waiting.popleft()
            self._tell("")

    def _tell(self, trouble: str) -> None:
        if bool(trouble) != self._is_away:
            self._is_away = bool(trouble)
            _log.warning(
                "The index of calls cannot be written (%s): GET /v1/usage/{request_id} is answered by the server that "
                "took the call" if trouble else "The index of calls is written again%s", trouble,
            )  # fmt: skip


def index_writer(index: CallIndex) -> IndexWriter | NoIndexWriter:
    """The writer of an index."""
    return NoIndexWriter() if isinstance(index, NoCallIndex) else IndexWriter(index)
