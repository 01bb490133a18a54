"""Several gateways on one real Redis: limits hold over replicas, and nobody gets a 5xx because Redis is away."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Server, Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import RedisProcess
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
KEYS = [f"the-key-of-tenant-number-{n}-0123456789" for n in range(10)]
PATIENCE = httpx.Timeout(120, pool=None)  # hundreds of calls begin at once
ASK: Any = {"model": "openai/gpt", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def redis(own_redis: RedisProcess) -> RedisProcess:
    return own_redis


@asynccontextmanager
async def fleet(
    redis: RedisProcess, *, group: dict[str, Any] | None = None, **limits: Any
) -> AsyncIterator[tuple[list[httpx.AsyncClient], Server]]:
    """Three replicas. With a `group` ten tenants are in it, whose keys are those of `KEYS`."""
    tenants = {"acme": {"keys": [digest(KEY.encode())], **limits}}
    if group is not None:
        tenants |= {f"t{n}": {"keys": [digest(key.encode())], **limits} for n, key in enumerate(KEYS)}
    extra = {} if group is None else {"GATEWAY_GROUPS": json.dumps({"all": {"tenants": [*tenants], **group}})}
    listed = json.dumps(tenants)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator().serve())
        clients = []
        for _ in range(3):
            url = await stack.enter_async_context(
                gateway_for(simulator.url, GATEWAY_TENANTS=listed, GATEWAY_STORAGE_URI=redis.uri, **extra)
            )
            pool = httpx.Limits(max_connections=250)
            client = httpx.AsyncClient(
                base_url=url, trust_env=False, headers={"authorization": f"Bearer {KEY}"}, limits=pool, timeout=PATIENCE
            )
            clients.append(await stack.enter_async_context(client))
        yield clients, simulator


async def _call(client: httpx.AsyncClient, key: str = KEY, **more: Any) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return (await client.post("/v1/chat/completions", json={**ASK, **more}, headers=headers)).status_code


async def _warm(clients: list[httpx.AsyncClient]) -> None:
    """Every replica is seen by the others."""
    async with asyncio.timeout(20):
        while True:
            healths = [(await client.get("/v1/health")).json()["limits"] for client in clients]
            if all(health.get("replicas") == 3 for health in healths):
                return
            await asyncio.sleep(0.1)


async def test_rl1_three_replicas_six_hundred_in_parallel_exactly_a_hundred(redis: RedisProcess) -> None:
    async with fleet(redis, requests="100/minute") as (clients, simulator):
        statuses = await asyncio.gather(*(_call(clients[n % 3]) for n in range(600)))
        assert sorted(statuses) == [200] * 100 + [429] * 500
        assert len(simulator.simulator.requests) == 100


async def test_tokens_are_reserved_over_replicas(redis: RedisProcess) -> None:
    async with fleet(redis, tokens="10000/minute") as (clients, simulator):
        statuses = await asyncio.gather(
            *(_call(clients[n % 3], model="openai/sim-output-1000", max_tokens=1000) for n in range(60))
        )
        assert statuses.count(200) == len(simulator.simulator.requests) == 9


async def test_ten_tenants_of_a_group_never_take_more_than_it_has(redis: RedisProcess) -> None:
    async with fleet(redis, group={"requests": "100/minute"}, requests="30/minute") as (clients, simulator):
        statuses = await asyncio.gather(*(_call(clients[n % 3], KEYS[n % 10]) for n in range(600)))
        assert sorted(statuses) == [200] * 100 + [429] * 500
        assert len(simulator.simulator.requests) == 100
        rows = [
            (await client.get("/v1/usage", headers={"authorization": f"Bearer {key}"})).json()["limits"]
            for client in clients
            for key in KEYS
        ]
        used = [{row["scope"]: row["used"] for row in of_tenant} for of_tenant in rows]
        assert {row["group/all"] for row in used} == {100}
        assert sum(row["tenant"] for row in used[:10]) == 100
        assert max(row["tenant"] for row in used) <= 30


async def test_an_end_user_has_one_limit_over_replicas(redis: RedisProcess) -> None:
    async with fleet(redis, per_end_user={"requests": "20/minute"}) as (clients, simulator):
        statuses = await asyncio.gather(*(_call(clients[n % 3], user=f"user-{n % 2}") for n in range(120)))
        assert sorted(statuses) == [200] * 40 + [429] * 80
        assert len(simulator.simulator.requests) == 40
        (row,) = (await clients[2].get("/v1/usage?end_user=user-1")).json()["limits"]
        assert (row["name"], row["scope"], row["used"]) == ("user-rpm", "user/user-1", 20)


async def test_rl13_redis_killed_is_no_error_and_the_limit_holds(redis: RedisProcess) -> None:
    async with fleet(redis, requests="90/minute") as (clients, simulator):
        await asyncio.gather(*(_call(client) for client in clients))
        await _warm(clients)
        redis.kill()
        statuses = [await _call(clients[number % 3]) for number in range(240)]
        assert set(statuses) == {200, 429}
        assert len(simulator.simulator.requests) <= 90 * 1.05
        assert len(simulator.simulator.requests) >= 90 * 0.9
        health = (await clients[0].get("/v1/health")).json()["limits"]
        assert health["store"] == "degraded"
        redis.start()
        async with asyncio.timeout(20):
            while (await clients[0].get("/v1/health")).json()["limits"]["store"] != "shared":
                await asyncio.sleep(0.1)


async def test_rl13_redis_frozen_costs_five_calls_a_deadline(redis: RedisProcess) -> None:
    async with fleet(redis, requests="1000/minute") as (clients, _):
        await _warm(clients)
        redis.freeze()
        for _ in range(30):
            assert await _call(clients[0]) == 200
        # Each failure is a deadline: five calls have waited for one, and nobody but the probe once a second after them.
        failures = re.search(
            r"^model_gateway_storage_failures_total (\d+)", (await clients[0].get("/metrics")).text, re.MULTILINE
        )
        redis.thaw()
        assert failures is not None
        assert 5 <= int(failures[1]) <= 15


async def test_rl14_a_flush_heals_by_itself(redis: RedisProcess) -> None:
    async with fleet(redis, requests="20/minute", concurrency=5) as (clients, simulator):
        for number in range(30):
            assert await _call(clients[number % 3]) in {200, 429}
        redis.command("FLUSHALL")
        redis.command("SCRIPT", "FLUSH")
        statuses = [await _call(clients[number % 3]) for number in range(60)]
        assert set(statuses) == {200, 429}
        assert len(simulator.simulator.requests) <= 40, "at most twice the limit, as documented"


async def test_a_limit_is_seen_from_every_replica(redis: RedisProcess) -> None:
    async with fleet(redis, requests="10/minute") as (clients, _):
        for client in clients:
            await _call(client)
        rows = [(await client.get("/v1/usage")).json()["limits"][0] for client in clients]
        assert {row["used"] for row in rows} == {3}


async def test_the_end_of_a_gateway_closes_every_connection_to_redis(redis: RedisProcess) -> None:
    async with fleet(redis, requests="10/minute", concurrency=3) as (clients, _):
        assert [await _call(client) for client in clients] == [200, 200, 200]
        assert redis.command("CLIENT", "LIST").count(b" addr=") > 3
    async with asyncio.timeout(10):
        while redis.command("CLIENT", "LIST").count(b" addr=") > 1:  # the one that asks
            await asyncio.sleep(0.02)
