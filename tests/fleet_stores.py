"""Stores of both kinds for tests of a fleet, all real."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from gateway_middleware.fleet.directory import DirectoryStore
from gateway_middleware.fleet.member import FleetMember
from gateway_middleware.fleet.redis import redis_fleet_store
from gateway_middleware.fleet.store import FleetStore

MakeStore: TypeAlias = "Callable[[], FleetStore]"
_numbers = itertools.count()
DEADLINE = 10.0
"""Seconds for a Redis that is there, on a machine that does other work as well."""


def directory_stores(folder: Path) -> MakeStore:
    """Each call makes another process's way to one directory."""
    return lambda: DirectoryStore(folder / "fleet")


def redis_stores(uri: str) -> MakeStore:
    """Each call makes another process's way to one Redis, with keys of its own."""
    prefix = f"test-{next(_numbers)}:"
    return lambda: redis_fleet_store(uri, prefix=prefix, deadline=DEADLINE)


@asynccontextmanager
async def members(*ways: list[FleetStore], config_hash: str = "hash") -> AsyncIterator[list[FleetMember]]:
    """One member for each list of stores."""
    async with AsyncExitStack() as stack:
        made = [FleetMember(stores, config_hash=lambda: config_hash) for stores in ways]
        for member in made:
            await stack.enter_async_context(member.lifespan())
        yield made
