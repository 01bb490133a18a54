"""Who owns what is stored at providers: known here at once, to all processes a moment later, for thirty days."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING

from cachetools import TTLCache

from gateway_middleware.fleet.entries import FORGOTTEN, Owned, Owner, id_digest
from gateway_middleware.fleet.store import OWNED_SECONDS, StoreAwayError

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.fleet.store import FleetStore

MAX_REMEMBERED = 100_000
"""Owners that a process knows by itself."""
_MAX_UNSTORED = 100_000
_AT_ONCE = 1000
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 2.0
_log = logging.getLogger("gateway_middleware")


class StoredOwners:
    """Remembers owners in every store, and asks the stores for those that it does not know.

    `remember` and `forget` wait for nothing: a task writes. What could not be stored while a store was away is stored
    later, the newest `_MAX_UNSTORED` of it. Without a store it remembers the latest `max_remembered` itself.
    """

    def __init__(
        self, stores: Sequence[FleetStore], *, clock: Clock = time.monotonic, max_remembered: int = MAX_REMEMBERED
    ) -> None:
        self._remembered: TTLCache[bytes, Owner] = TTLCache(max_remembered, OWNED_SECONDS, timer=clock)
        self._fresh: list[tuple[Iterable[str], Owner]] = []
        self._queues = tuple(_Queue(store, self._take_fresh) for store in stores)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Write what is remembered; on the way out the rest of it. The stores are open for longer."""
        tasks = [asyncio.get_running_loop().create_task(queue.run()) for queue in self._queues]
        try:
            yield
        finally:
            await asyncio.gather(*(queue.finish() for queue in self._queues))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def remember(self, ids: Iterable[str], owner: Owner) -> None:
        """All of these are the owner's from now on."""
        self._fresh.append((ids, owner))
        for queue in self._queues:
            queue.wake.set()
        if len(self._fresh) >= _AT_ONCE:
            self._take_fresh()

    def forget(self, ids: Iterable[str]) -> None:
        """None of these is stored any longer."""
        self.remember(ids, FORGOTTEN)

    def _take_fresh(self) -> None:
        """Off the path of the calls that made it, unless it is very much."""
        fresh, self._fresh = self._fresh, []
        for ids, owner in fresh:
            for resource_id in ids:
                digest = id_digest(resource_id)
                self._remembered[digest] = owner
                for queue in self._queues:
                    queue.put(Owned(digest, owner))

    async def find(self, ids: Sequence[str]) -> Mapping[str, Owner]:
        """The owners of those that are known. Raises `StoreAwayError` where a store that is away may know one more."""
        self._take_fresh()
        digests = {resource_id: id_digest(resource_id) for resource_id in ids}
        found = {digest: owner for digest in digests.values() if (owner := self._remembered.get(digest)) is not None}
        away: StoreAwayError | None = None
        for queue in self._queues:
            missing = [digest for digest in digests.values() if digest not in found]
            if missing:
                try:
                    found |= await queue.store.owners(missing)
                except StoreAwayError as error:
                    away = error
        if away is not None and any(digest not in found for digest in digests.values()):
            raise away
        self._remembered.update(found)
        return {name: found[digest] for name, digest in digests.items() if found.get(digest, FORGOTTEN) != FORGOTTEN}

    async def current(self, resource_id: str) -> Owner | None:
        """The owner by what every store says now: another process may have forgotten what this one remembers.

        What this process remembers counts where no store knows of it. Raises `StoreAwayError` as `find` does.
        """
        self._take_fresh()
        digest = id_digest(resource_id)
        if self._remembered.get(digest) == FORGOTTEN:
            return None
        for queue in self._queues:
            with contextlib.suppress(StoreAwayError):
                if (await queue.store.owners([digest])).get(digest) == FORGOTTEN:
                    self._remembered[digest] = FORGOTTEN
                    return None
        return (await self.find([resource_id])).get(resource_id)


class _Queue:
    """What one store has still to be told: a dictionary, so that its oldest can be dropped."""

    def __init__(self, store: FleetStore, take_fresh: Callable[[], None]) -> None:
        self.store = store
        self._take_fresh = take_fresh
        self._owned: dict[bytes, Owned] = {}
        self.wake = asyncio.Event()
        self._turn = asyncio.Lock()

    def put(self, owned: Owned) -> None:
        if len(self._owned) >= _MAX_UNSTORED:
            del self._owned[next(iter(self._owned))]
        self._owned[owned.digest] = owned
        self.wake.set()

    async def run(self) -> None:
        while True:
            await self.wake.wait()
            self._take_fresh()
            self.wake.clear()
            try:
                await self._write()
            except StoreAwayError:
                await asyncio.sleep(_RETRY_SECONDS)
                self.wake.set()

    async def _write(self) -> None:
        async with self._turn:
            while self._owned:
                part = list(islice(self._owned.values(), _AT_ONCE))
                await self.store.remember(part)
                for one in part:
                    if self._owned.get(one.digest) is one:
                        del self._owned[one.digest]

    async def finish(self) -> None:
        self._take_fresh()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._write()
        except (StoreAwayError, TimeoutError):
            _log.error("Fleet: %d owners of stored responses could not be written to %s", len(self._owned),
                       self.store.name)  # fmt: skip
