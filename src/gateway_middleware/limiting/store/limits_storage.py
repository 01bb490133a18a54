"""The window behind the interface of `limits`: a storage for its own strategies, and a strategy.

Importing this module registers the schemes `async+window+memory://`, `async+window+redis://`, `+rediss`, `+redis+unix`,
`+redis+cluster` and `+redis+sentinel` with `limits.storage.storage_from_string`. `MovingWindowRateLimiter` of `limits`
works on the storage as it is; `WindowRateLimiter` also gives back: `refund`.
"""

from __future__ import annotations

import time

from limits import RateLimitItem, WindowStats
from limits.aio.storage import MovingWindowSupport, Storage
from limits.aio.strategies import RateLimiter

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import Change, Claim, Decision, Limit, LimitStatus, Store
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import RedisStore, redis_store
from gateway_middleware.redis.caller import RedisError

__all__ = ["MemoryWindowStorage", "RedisWindowStorage", "WindowRateLimiter", "WindowStorage"]

_NOBODY = b"limits"


class WindowStorage(Storage, MovingWindowSupport):
    """Counts in sliding windows: never more than the limit in any window, one small record for each key."""

    store: Store

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return RedisError

    async def take(self, key: str, amount: int, seconds: int, cost: int, *, is_dry: bool = False) -> LimitStatus:
        """Take `cost` of `amount` per `seconds`, if it fits."""
        claim = Claim(key, Limit(name="limits", amount=amount, length=seconds), cost)
        decision = self.store.admit([claim], _NOBODY, is_dry=is_dry)
        taken = decision if isinstance(decision, Decision) else await decision
        return taken.statuses[0]

    async def give_back(self, key: str, amount: int, seconds: int, count: int) -> None:
        """Give back into the current bucket; negative: count more, even over the limit."""
        claim = Claim(key, Limit(name="limits", amount=amount, length=seconds), max(count, 0))
        sent = self.store.settle(Decision(True, (), _NOBODY), [Change(claim, None, -count)])
        if sent is not None:
            await sent

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return (await self.take(key, limit, expiry, amount)).wait == 0

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        status = await self.take(key, limit, expiry, 0, is_dry=True)
        return time.time() + status.refill_after - expiry, limit - status.remaining

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        await self.take(key, 1, expiry, 0)
        await self.give_back(key, 1, expiry, -amount)
        return await self.get(key)

    async def get(self, key: str) -> int:
        raise NotImplementedError

    async def get_expiry(self, key: str) -> float:
        raise NotImplementedError

    async def clear(self, key: str) -> None:
        raise NotImplementedError

    async def reset(self) -> int | None:
        raise NotImplementedError

    async def check(self) -> bool:
        raise NotImplementedError


class MemoryWindowStorage(WindowStorage):
    """In this process; `tick` it now and then to release memory."""

    STORAGE_SCHEME = ["async+window+memory"]  # noqa: RUF012  # the interface of `limits`

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,  # noqa: FBT001, FBT002  # the interface of `limits`
        *,
        clock: Clock = time.monotonic,
        **options: float | str | bool,
    ) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self.memory = MemoryStore(clock=clock)
        self.store = self.memory

    def tick(self) -> None:
        """A slice of housekeeping."""
        self.memory.tick()

    async def get(self, key: str) -> int:
        return self.memory.used(key)

    async def get_expiry(self, key: str) -> float:
        return time.time() + self.memory.rest(key)

    async def clear(self, key: str) -> None:
        self.memory.forget(key)

    async def reset(self) -> int | None:
        count = len(self.memory)
        self.memory.clear()
        return count

    async def check(self) -> bool:
        return True


class RedisWindowStorage(WindowStorage):
    """On Redis. `reset` is not offered: other things may live there."""

    STORAGE_SCHEME = [  # noqa: RUF012  # the interface of `limits`
        f"async+window+{scheme}" for scheme in ("redis", "rediss", "redis+unix", "redis+cluster", "redis+sentinel")
    ]

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,  # noqa: FBT001, FBT002  # the interface of `limits`
        *,
        deadline: float = 1.0,
        **options: float | str | bool,
    ) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self.redis: RedisStore = redis_store(uri.removeprefix("async+window+"), deadline=deadline)
        self.store = self.redis

    async def get(self, key: str) -> int:
        return (await self.redis.used(key))[0]

    async def get_expiry(self, key: str) -> float:
        return time.time() + (await self.redis.used(key))[1]

    async def clear(self, key: str) -> None:
        await self.redis.forget(key)

    async def check(self) -> bool:
        try:
            await self.redis.used("check")
        except RedisError:
            return False
        return True

    async def aclose(self) -> None:
        """Close the connection."""
        await self.redis.aclose()


class WindowRateLimiter(RateLimiter):
    """A strategy of `limits` on a `WindowStorage`. A refused hit consumes nothing."""

    def __init__(self, storage: WindowStorage) -> None:
        if not isinstance(storage, WindowStorage):
            raise TypeError("WindowRateLimiter needs a storage of an async+window+ scheme")
        super().__init__(storage)
        self._windows = storage

    async def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        return (await self._take(item, identifiers, cost)).wait == 0

    async def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        return (await self._take(item, identifiers, cost, is_dry=True)).wait == 0

    async def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        status = await self._take(item, identifiers, 0, is_dry=True)
        return WindowStats(time.time() + status.reset_after, status.remaining)

    async def refund(self, item: RateLimitItem, *identifiers: str, count: int) -> None:
        """Give back `count` units, or count more where it is negative."""
        await self._windows.give_back(item.key_for(*identifiers), item.amount, item.get_expiry(), count)

    async def _take(
        self, item: RateLimitItem, identifiers: tuple[str, ...], cost: int, *, is_dry: bool = False
    ) -> LimitStatus:
        key = item.key_for(*identifiers)
        return await self._windows.take(key, item.amount, item.get_expiry(), cost, is_dry=is_dry)
