"""Rate limits as a value that a host makes, enters and hands to a layer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self, TypeAlias

from limits import RateLimitItem
from limits.aio.storage import Storage
from limits.storage import Storage as BlockingStorage
from limits.storage import storage_from_string

from gateway_middleware.limiting.limit import Claim, Limit, Store, limit_key
from gateway_middleware.limiting.notation import concurrency as slots
from gateway_middleware.limiting.notation import limits_of
from gateway_middleware.limiting.reservation import Reservation, Reservations
from gateway_middleware.limiting.store.any_storage import AnyStorageStore
from gateway_middleware.limiting.store.from_uri import MEMORY, store_from_uri, with_fallback
from gateway_middleware.limiting.store.limits_storage import RedisWindowStorage, WindowStorage
from gateway_middleware.limiting.store.memory import MemoryStore

if TYPE_CHECKING:
    from types import TracebackType

    from gateway_middleware.core.domain import Clock

Limits: TypeAlias = "str | RateLimitItem | Iterable[RateLimitItem]"


class Limiter:
    """Requests of each key within `limits`, and at most `concurrency` of them at a time.

    `limits` are in the notation of the library `limits` (`10/second;1000/hour`), or one or several of its
    `RateLimitItem`s; empty with `concurrency` alone. `storage` is `memory://`, a Redis URI (`redis://`, `rediss://`,
    `redis+unix://`, `redis+cluster://`, `redis+sentinel://`), an `async+...` URI of `limits`, or any `limits.aio`
    storage; on storages that are not ours `concurrency` is refused. Raises `ValueError` for limits and storages that
    are none, `TypeError` for a storage that blocks.

    ```python
    limiter = Limiter("100/minute", storage="redis://localhost")
    async with limiter:
        ...  # serve the application
    ```

    Entered again after its end it begins anew. Used without being entered it works, and nobody closes its connection.
    """

    def __init__(
        self,
        limits: Limits = "",
        *,
        concurrency: int | None = None,
        storage: str | Storage | Store = MEMORY,
        wall: Clock = time.time,
    ) -> None:
        self.limits: tuple[Limit, ...] = (*limits_of(limits), *([] if concurrency is None else [slots(concurrency)]))
        if not self.limits:
            raise ValueError("no limit: give `limits`, `concurrency`, or both")
        self._storage = storage
        self._wall = wall
        self._is_closed = False
        self._reservations = self._open()

    def _open(self) -> Reservations:
        store = _store_of(self._storage, self._wall)
        if isinstance(store, AnyStorageStore) and any(limit.period is None for limit in self.limits):
            raise ValueError("concurrency needs the storage memory:// or one of Redis: this one has no slots")
        return Reservations(store)

    async def reserve(self, key: str) -> Reservation:
        """Take one request and one slot of a key. Raises `LimitReachedError`: then nothing was taken.

        Whoever has the reservation settles it when the request has ended: that frees the slot.
        """
        self._reservations.start_late()
        return await self._reservations.reserve([Claim(limit_key(key, limit), limit) for limit in self.limits])

    async def __aenter__(self) -> Self:
        if self._is_closed:
            self._reservations = self._open()
        self._is_closed = False
        await self._reservations.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        await self._reservations.aclose()


def _store_of(storage: str | Storage | Store, wall: Clock) -> Store:
    if isinstance(storage, str):
        if not storage.startswith("async+"):
            return store_from_uri(storage, wall=wall)
        storage = _storage_from_text(storage)
    if isinstance(storage, BlockingStorage):
        raise TypeError("storage: it would block the event loop; expected one of limits.aio.storage")
    if isinstance(storage, RedisWindowStorage):
        return with_fallback(storage.redis, MemoryStore(wall=wall))
    if isinstance(storage, WindowStorage):
        return storage.store
    return AnyStorageStore(storage) if isinstance(storage, Storage) else storage


def _storage_from_text(text: str) -> Storage:
    from limits.errors import ConfigurationError

    try:
        storage = storage_from_string(text)
    except ConfigurationError as error:
        raise ValueError(f"unknown storage: {text.partition('://')[0]}://") from error
    if not isinstance(storage, Storage):
        raise TypeError("a storage of limits.aio is needed")
    return storage
