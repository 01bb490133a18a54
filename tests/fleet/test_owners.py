"""Owners of stored resources: known here at once, everywhere within a second, for as long as a store remembers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clock import Clock
from fleet_stores import directory_stores, redis_stores
from gateway_middleware.fleet.entries import Owner
from gateway_middleware.fleet.owners import StoredOwners
from gateway_middleware.fleet.redis import redis_fleet_store
from gateway_middleware.fleet.store import OWNED_SECONDS, FleetStore, StoreAwayError
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio
ALICE = Owner("alice", "openai/a")


@asynccontextmanager
async def owners(*stores: FleetStore) -> AsyncIterator[StoredOwners]:
    made = StoredOwners(stores)
    try:
        async with made.lifespan():
            yield made
    finally:
        for store in stores:
            await store.aclose()


async def soon(book: StoredOwners, ids: Sequence[str], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(StoreAwayError):
            if set(await book.find(ids)) == set(ids):
                return
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)


async def test_without_a_store_they_are_remembered_here() -> None:
    clock = Clock()
    book = StoredOwners((), clock=clock, max_remembered=2)
    async with book.lifespan():
        book.remember(["a", "b", "c"], ALICE)
        assert dict(await book.find(["a", "b", "c", "d"])) == {"b": ALICE, "c": ALICE}
        clock.advance(OWNED_SECONDS + 1)
        assert not await book.find(["b"])


async def test_another_worker_knows_within_a_second_and_after_a_restart(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    async with owners(make()) as one, owners(make()) as two:
        one.remember(["resp_1", "msg_1"], ALICE)
        await soon(two, ["resp_1", "msg_1"])
    async with owners(make()) as after:
        assert dict(await after.find(["resp_1", "nobody's"])) == {"resp_1": ALICE}


async def test_what_was_remembered_last_is_written_on_the_way_out(tmp_path: Path) -> None:
    make = directory_stores(tmp_path)
    ids = [str(n) for n in range(5000)]
    async with owners(make()) as one:
        one.remember(ids, ALICE)
    async with owners(make()) as after:
        assert len(await after.find(ids)) == 5000


async def test_another_replica_knows_through_redis(shared_redis: RedisProcess, tmp_path: Path) -> None:
    fresh = redis_stores(shared_redis.uri)
    async with owners(directory_stores(tmp_path / "1")(), fresh()) as one:
        one.remember(["resp_1"], ALICE)
        async with owners(directory_stores(tmp_path / "2")(), fresh()) as two:
            await soon(two, ["resp_1"])


async def test_a_store_that_is_away_is_no_answer_unless_another_knows(tmp_path: Path, own_redis: RedisProcess) -> None:
    own_redis.kill()
    make = directory_stores(tmp_path)
    async with owners(make()) as one, owners(make(), redis_fleet_store(own_redis.uri)) as two:
        one.remember(["resp_1"], ALICE)
        with pytest.raises(StoreAwayError):
            await two.find(["unknown"])
        await soon(two, ["resp_1"])
        with pytest.raises(StoreAwayError):
            await two.find(["resp_1", "unknown"])


async def test_what_a_store_missed_it_is_told_later(own_redis: RedisProcess) -> None:
    own_redis.kill()
    async with owners(redis_fleet_store(own_redis.uri)) as one:
        one.remember(["resp_1"], ALICE)
        await asyncio.sleep(0.1)
        own_redis.start()
        async with owners(redis_fleet_store(own_redis.uri, deadline=1.0)) as two:
            await soon(two, ["resp_1"], 5.0)


async def test_what_was_deleted_is_forgotten_by_every_process_and_store(
    tmp_path: Path, shared_redis: RedisProcess
) -> None:
    """Also where another host has noted it, and where this process remembers it."""
    fresh = redis_stores(shared_redis.uri)
    here, there = directory_stores(tmp_path / "1"), directory_stores(tmp_path / "2")
    async with owners(here(), fresh()) as one, owners(here(), fresh()) as beside, owners(there(), fresh()) as two:
        one.remember(["resp_1", "msg_1"], ALICE)
        for book in (beside, two):
            await soon(book, ["resp_1", "msg_1"])
        assert await one.current("resp_1") == ALICE

        two.forget(["resp_1"])
        assert await two.current("resp_1") is None
        for book in (one, beside):
            await gone(book, "resp_1")
            assert not await book.find(["resp_1"])
            assert await book.current("msg_1") == ALICE


async def gone(book: StoredOwners, resource_id: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while await book.current(resource_id) is not None:
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)


async def test_what_is_known_here_counts_while_a_store_is_away(tmp_path: Path, own_redis: RedisProcess) -> None:
    own_redis.kill()
    async with owners(redis_fleet_store(own_redis.uri)) as one:
        one.remember(["resp_1"], ALICE)
        assert await one.current("resp_1") == ALICE
        with pytest.raises(StoreAwayError):
            await one.current("unknown")
        one.forget(["resp_1"])
        assert await one.current("resp_1") is None


async def test_without_a_store_what_was_deleted_is_forgotten_here() -> None:
    book = StoredOwners(())
    book.remember(["a"], ALICE)
    assert await book.current("a") == ALICE
    book.forget(["a"])
    assert (await book.current("a"), await book.find(["a"]), await book.current("b")) == (None, {}, None)
