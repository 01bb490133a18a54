"""Groups of tenants on a Redis Cluster of three masters: all that a call takes lies on one of them, in one step."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Server, Simulator
from gateway_middleware.tenancy.keys import digest
from redis_cluster import RedisCluster
from running import gateway_for
from server_process import until

pytestmark = pytest.mark.anyio
GROUPS = [f"group-{number}" for number in range(6)]
"""So many that no master is without one."""
TENANTS = {f"{group}-{number}": group for group in GROUPS for number in range(3)}
ASK: Any = {"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
LIMIT = 12


def key_of(tenant: str) -> str:
    return f"the-key-of-{tenant}-0123456789"


def settings(cluster: RedisCluster) -> dict[str, str]:
    """Limits of every level: group, tenant, key, end user and model; of every kind."""
    own = {
        "requests": "1000/minute", "tokens": "1000000/minute", "concurrency": 100, "spend": "100/month",
        "per_key": {"requests": "1000/minute"}, "per_end_user": {"requests": "1000/minute"},
        "per_model": {"gpt-5-mini": {"tokens": "1000000/minute"}},
    }  # fmt: skip
    shared = {"requests": f"{LIMIT}/day", "tokens": "1000000/minute", "spend": "100/day"}
    groups = {group: {"tenants": [t for t, of in TENANTS.items() if of == group], **shared} for group in GROUPS}
    return {
        "GATEWAY_TENANTS": json.dumps({t: {"keys": [digest(key_of(t).encode())], **own} for t in TENANTS}),
        "GATEWAY_GROUPS": json.dumps(groups),
        "GATEWAY_STORAGE_URI": cluster.uri,
        "GATEWAY_PRICES": json.dumps({"openai/gpt-5-mini": {"input": 1, "output": 2}}),
    }


@asynccontextmanager
async def fleet(cluster: RedisCluster) -> AsyncIterator[tuple[list[httpx.AsyncClient], Server]]:
    """Three replicas."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator().serve())
        clients = []
        for _ in range(3):
            url = await stack.enter_async_context(gateway_for(simulator.url, **settings(cluster)))
            client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=30)
            clients.append(await stack.enter_async_context(client))
        yield clients, simulator


async def flood(clients: Sequence[httpx.AsyncClient], tenants: Sequence[str], calls: int) -> dict[str, Counter[int]]:
    """So many calls of each of these tenants at all replicas, a few at a time; the statuses by group."""
    statuses: dict[str, Counter[int]] = {group: Counter() for group in GROUPS}
    few = asyncio.Semaphore(12)

    async def call(number: int, tenant: str) -> None:
        headers = {"authorization": f"Bearer {key_of(tenant)}"}
        async with few:
            body = {**ASK, "user": f"user-{number % 2}"}
            answer = await clients[number % 3].post("/v1/chat/completions", json=body, headers=headers)
        statuses[TENANTS[tenant]][answer.status_code] += 1

    await asyncio.gather(*(call(number, tenant) for number in range(calls) for tenant in tenants))
    return statuses


async def test_three_replicas_and_three_tenants_each(cluster: RedisCluster) -> None:
    """How many are let in is exact where calls may wait for Redis as long as they like: tests/limiting."""
    async with fleet(cluster) as (clients, simulator):
        statuses = await flood(clients, [*TENANTS], 12)
        assert all(set(counted) == {200, 429} for counted in statuses.values())
        admitted = {group: counted[200] for group, counted in statuses.items()}
        assert len(simulator.simulator.requests) == sum(admitted.values())

        async def is_full() -> bool:
            """At every replica, by what all of them share; calls that Redis was not told of in time are made up for."""
            again = await flood(clients, [*TENANTS], 3)
            stores = {(await client.get("/v1/health")).json()["limits"]["store"] for client in clients}
            used = [await of_group(clients[2], tenant) for tenant in TENANTS]
            is_refused = all(set(counted) == {429} for counted in again.values())
            return is_refused and stores == {"shared"} and min(used) >= LIMIT

        await until(is_full, 90.0)
        print(f"of each group {LIMIT} may, and {sorted(admitted.values())} did")
    for group in GROUPS:
        (held,) = [keys for keys in cluster.keys(f"gateway:{{group%2F{group}}}*") if keys]
        assert len(held) >= 3 * 6  # of each tenant six, and more


async def of_group(client: httpx.AsyncClient, tenant: str) -> Any:
    answer = await client.get("/v1/usage", headers={"authorization": f"Bearer {key_of(tenant)}"})
    rows = {(row["scope"], row["name"]): row for row in answer.json()["limits"]}
    return rows[f"group/{TENANTS[tenant]}", "group-rpd"]["used"]
