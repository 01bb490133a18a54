"""Cluster and sentinel, by redis-py: the same promises as those of the client for a single Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.redis.caller import RedisError, RedisReplyError, RedisTimeoutError, Script
from gateway_middleware.redis.cluster import RedisPyCaller
from gateway_middleware.redis.connect import redis_caller
from gateway_middleware.redis.resp import Reply
from redis_cluster import RedisCluster
from redis_process import BINARY, WHY_SKIPPED, RedisProcess

pytestmark = pytest.mark.anyio

ADD = Script.of("return redis.call('INCRBY', KEYS[1], ARGV[1])")
redis_py: Any = pytest.importorskip("redis.asyncio")


async def test_commands_and_scripts(own_redis: RedisProcess) -> None:
    caller = RedisPyCaller(redis_py.Redis(port=own_redis.port), deadline=5)
    assert await caller.call((b"SET", b"a", b"x"))
    assert await caller.run(ADD, [b"n"], [b"3"]) == 3
    own_redis.command("SCRIPT", "FLUSH")
    assert await caller.run(ADD, [b"n"], [b"1"]) == 4
    with pytest.raises(RedisReplyError, match="WRONGTYPE"):
        await caller.call((b"LPUSH", b"a", b"x"))
    await caller.aclose()
    with pytest.raises(RedisError, match="closed"):
        await caller.call((b"PING",))


@pytest.mark.parametrize("cancels", [False, True])
async def test_late_replies_are_handed_over(own_redis: RedisProcess, cancels: bool) -> None:
    late: list[Reply] = []
    caller = RedisPyCaller(redis_py.Redis(port=own_redis.port), deadline=5 if cancels else 0.3)
    await caller.call((b"PING",))
    own_redis.freeze()
    sent = caller.run(ADD, [b"n"], [b"5"], late.append)
    await asyncio.sleep(0.02)  # it is on its way
    if cancels:
        sent.cancel()
    with pytest.raises(asyncio.CancelledError if cancels else RedisTimeoutError):
        await sent
    own_redis.thaw()
    async with asyncio.timeout(10):
        while not late:
            await asyncio.sleep(0.005)

    assert late == [5]
    await caller.aclose()


async def test_a_dead_one_is_an_error(own_redis: RedisProcess) -> None:
    caller = RedisPyCaller(redis_py.Redis(port=own_redis.port), deadline=1)
    await caller.call((b"PING",))
    own_redis.kill()
    with pytest.raises(RedisError):
        await caller.call((b"PING",))
    await caller.aclose()


async def test_many_commands_at_once_are_the_first_of_a_client(cluster: RedisCluster) -> None:
    for _ in range(5):
        caller = redis_caller(cluster.uri, deadline=20.0)
        replies = await asyncio.gather(*(caller.run(ADD, [b"n%d" % number], [b"1"]) for number in range(200)))
        await caller.aclose()
    assert replies == [5] * 200


async def test_what_is_not_answered_in_time_is_ended_before_the_client_is_closed() -> None:
    events: list[str] = []

    class Silent:
        async def execute_command(self, *_: object) -> Reply:
            try:
                answer: Reply = await asyncio.get_running_loop().create_future()
            finally:
                events.append("ended")
            return answer

        async def aclose(self) -> None:
            events.append("closed")

    caller = RedisPyCaller(Silent(), deadline=0.01)
    reply = caller.call((b"PING",))
    await asyncio.sleep(0)
    await caller.aclose()
    assert events == ["ended", "closed"]
    with pytest.raises(RedisError):
        await reply


async def test_sentinel(tmp_path: Path) -> None:
    if BINARY is None:
        pytest.skip(WHY_SKIPPED)
    process = RedisProcess(tmp_path)
    (tmp_path / "sentinel.conf").write_text(f"sentinel monitor mymaster 127.0.0.1 {process.port} 1\n")
    sentinel = RedisProcess(tmp_path, mode="sentinel")
    caller = redis_caller(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster", deadline=5)
    try:
        assert await caller.run(ADD, [b"n"], [b"3"]) == 3
    finally:
        await caller.aclose()
        sentinel.kill()
        process.kill()
