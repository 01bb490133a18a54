"""The index of calls: how entries are made, kept in a real Redis and a real cluster, and written without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_middleware.metering.call_index.entries import Indexed, call_of, events_in, grouped, key_of
from gateway_middleware.metering.call_index.redis_index import MAX_TENANTS, RedisCallIndex
from gateway_middleware.metering.call_index.writer import IndexWriter
from gateway_middleware.metering.journal.call_end import CallEnd, closed, encode, voided
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.redis.caller import RedisError
from gateway_middleware.redis.connect import redis_caller
from journaled import call, event
from redis_process import RedisProcess

pytestmark = pytest.mark.anyio
_prefixes = count()


def used(call_id: str, number: int = 1, *, tenant: str = "acme", request_id: str = "r") -> UsageEvent:
    return msgspec.structs.replace(event(f"{call_id}-{number}"), tenant=tenant, request_id=request_id, attempt=number)


def indexed(*events: UsageEvent) -> list[Indexed]:
    return grouped((one, encode(one)) for one in events)


def test_a_key_holds_nothing_of_the_client() -> None:
    bucket, key = key_of("a\r\nFLUSHALL", "gateway:")
    assert key.startswith(b"gateway:{calls:%d}:" % bucket)
    assert b"FLUSHALL" not in key
    assert len(key_of("x" * 100_000, "p:")[1]) < 60


def test_events_of_a_call_are_one_and_of_an_id_used_again_the_last_call_counts() -> None:
    first, second, again = used("one", 1), used("one", 2), used("two", 1)
    assert [(i.call, len(i.events)) for i in indexed(first, second)] == [("one", 2)]
    assert [(i.call, len(i.events)) for i in indexed(first, second, again)] == [("two", 1)]
    assert [i.tenant for i in indexed(first, used("three", tenant="other"))] == ["acme", "other"]
    assert call_of("a-b-7") == "a-b"


def test_what_another_version_wrote_is_left_out() -> None:
    block = b'"acme"\n"one"\n{"new": 1}\n' + encode(used("one"))
    assert [e.id for e in events_in(block, "acme", "r")] == ["one-1"]
    assert events_in(b"nonsense", "acme", "r") == []
    assert events_in(b"", None, "r") == []


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_name_breaks_an_entry(tenant: str, request_id: str, other: str) -> None:
    own = used("one", tenant=tenant, request_id=request_id)
    foreign = used("two", tenant=other, request_id=request_id)
    calls = indexed(own, foreign)
    entry = b"\n\n".join(i.head + b"\n" + i.lines for i in calls)
    expected = foreign if tenant == other else own
    assert events_in(entry, tenant, request_id) == [expected]


def index_at(redis: RedisProcess, prefix: str | None = None, *, seconds: float = 500.0) -> RedisCallIndex:
    caller = redis_caller(redis.uri, deadline=5.0)
    return RedisCallIndex(caller, prefix=prefix or f"calls-{next(_prefixes)}:", seconds=seconds)


@pytest.fixture(params=["shared_redis", "shared_cluster"])
def redis(request: pytest.FixtureRequest) -> RedisProcess:
    process: RedisProcess = request.getfixturevalue(request.param)
    return process


async def test_attempts_that_come_apart_are_found_together(redis: RedisProcess) -> None:
    index = index_at(redis)
    first, second = used("one", 1), used("one", 2)
    await index.keep(indexed(first))
    await index.keep(indexed(second))
    await index.keep(indexed(second))  # a write that was sent again
    assert [e.id for e in await index.find("acme", "r")] == ["one-1", "one-2"]
    assert await index.find("other", "r") == []
    assert await index.find("acme", "s") == []
    assert [e.id for e in await index.find(None, "r")] == ["one-1", "one-2"]
    await index.keep(indexed(used("two", 1)))
    assert [e.id for e in await index.find("acme", "r")] == ["two-1"]
    await index.aclose()


async def test_tenants_with_one_id_do_not_hide_each_other(redis: RedisProcess) -> None:
    index = index_at(redis)
    for number in range(MAX_TENANTS + 2):
        await index.keep(indexed(used(f"c{number}", tenant=f"t{number}")))
    known = [bool(await index.find(f"t{number}", "r")) for number in range(MAX_TENANTS + 2)]
    assert known == [False, False] + [True] * MAX_TENANTS
    await index.keep(indexed(used("again", tenant="t2")))
    assert [e.id for e in await index.find("t2", "r")] == ["again-1"]
    assert [e.id for e in await index.find(None, "r")] == ["again-1"]
    await index.aclose()


async def test_many_calls_are_kept_in_few_commands_for_a_while(redis: RedisProcess) -> None:
    prefix = f"few-{next(_prefixes)}:"
    index = index_at(redis, prefix)
    calls = [used(f"c{number}", request_id=f"r{number}") for number in range(700)]
    await index.keep(indexed(*calls))
    assert [(await index.find("acme", f"r{n}"))[0].id for n in (0, 350, 699)] == ["c0-1", "c350-1", "c699-1"]
    _, key = key_of("r0", prefix)
    assert 400_000 < int(redis.command("PTTL", key.decode()).removeprefix(b":")) <= 500_000
    await index.aclose()


async def test_an_entry_does_not_grow_without_end(shared_redis: RedisProcess) -> None:
    prefix = f"long-{next(_prefixes)}:"
    index = index_at(shared_redis, prefix)
    for number in range(1, 400):
        await index.keep(indexed(used("one", number)))
    assert 50 < len(await index.find("acme", "r")) < 399
    _, key = key_of("r", prefix)
    assert int(shared_redis.command("STRLEN", key.decode()).removeprefix(b":")) <= 64 * 1024
    await index.aclose()


class Listed:
    """An index in a list, that may be away."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.batches = 0
        self.is_away = False
        self.is_closed = False

    async def keep(self, calls: Sequence[Indexed], /) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise RedisError("away")
        self.batches += 1
        self.kept += [each.call for each in calls]

    async def find(self, tenant: str | None, request_id: str, /) -> list[UsageEvent]:
        return []

    async def aclose(self) -> None:
        self.is_closed = True


def end(name: str) -> CallEnd:
    made = used(name, request_id=name)
    return closed(1, made, encode(made))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def no_time(_: float) -> None:
    await asyncio.sleep(0)


async def test_a_writer_takes_from_any_thread_and_writes_in_batches() -> None:
    index = Listed()
    writer = IndexWriter(index, sleep=no_time)
    writer.note([end("too early")])
    async with writer.lifespan():
        await asyncio.to_thread(writer.note, [end(f"c{n}") for n in range(300)])
        writer.note([voided(2, call("free"))])
        await settled()
        assert (len(index.kept), index.batches) == (300, 1)
        writer.note([end("last")])
    assert (index.kept[-1], index.is_closed) == ("last", True)
    writer.note([end("too late")])


async def test_what_an_index_that_is_away_cannot_take_waits_and_the_oldest_gives_way() -> None:
    index = Listed()
    writer = IndexWriter(index, sleep=no_time, room=10)
    async with writer.lifespan():
        index.is_away = True
        writer.note([end(f"c{n}") for n in range(25)])
        await settled()
        assert (index.kept, writer.dropped) == ([], 15)
        index.is_away = False
        await settled()
        assert index.kept == [f"c{n}" for n in range(15, 25)]
        index.is_away = True
        writer.note([end("lost")])
    assert index.is_closed
