"""The store of a storage URI."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import Store
from gateway_middleware.limiting.store.fallback import FallbackStore, StoreChange
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.redis import RedisStore, redis_store

MEMORY = "memory://"


def store_from_uri(
    uri: str,
    *,
    clock: Clock = time.monotonic,
    wall: Clock = time.time,
    weight: int = 1,
    min_replicas: int = 1,
    on_change: Callable[[StoreChange], None] = lambda _: None,
) -> Store:
    """A store in memory, or one in Redis with a fallback to memory (`FallbackStore`).

    `weight` divides limits in memory by processes that share nothing; `min_replicas` is the least number to divide them
    by while Redis cannot be reached. Nothing is connected yet. Raises `ValueError` for a URI that is none.
    """
    local = MemoryStore(clock=clock, wall=wall, weight=weight)
    if uri == MEMORY:
        return local
    return with_fallback(redis_store(uri), local, clock=clock, min_replicas=min_replicas, on_change=on_change)


def with_fallback(
    shared: RedisStore,
    local: MemoryStore,
    *,
    clock: Clock = time.monotonic,
    min_replicas: int = 1,
    on_change: Callable[[StoreChange], None] = lambda _: None,
) -> FallbackStore:
    """A store in Redis that no call fails because of; this process is a replica of its own."""
    replica = secrets.token_bytes(8)
    return FallbackStore(shared, local, replica=replica, clock=clock, min_replicas=min_replicas, on_change=on_change)
