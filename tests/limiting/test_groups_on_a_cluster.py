"""Groups on a real Redis Cluster: all that a call takes lies on one of three masters, and is taken in one step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import pytest

from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Route, Surface, Tenant
from gateway_middleware.limiting.estimate import Estimate
from gateway_middleware.limiting.limit import Claim
from gateway_middleware.limiting.quota import Group, Quota, Quotas
from gateway_middleware.limiting.store.redis import RedisStore, redis_store, reversal
from gateway_middleware.redis.caller import RedisError
from limit_cases import admit, rpm, settled, slots, spend, tpm
from redis_cluster import RedisCluster

pytestmark = pytest.mark.anyio
LIMIT = 30
GROUPS = [f"group-{number}" for number in range(6)]
"""So many that no master is without one."""
TENANTS = {f"{group}-{number}": group for group in GROUPS for number in range(10)}
QUOTA = Quota(
    limits=(rpm(1000), tpm(1_000_000), spend(1_000_000), slots(500)),
    per_key=(rpm(1000),),
    per_model=(("gpt-*", (tpm(1_000_000),)),),
    per_end_user=(rpm(1000), slots(500)),
)
QUOTAS = Quotas(
    dict.fromkeys(TENANTS, QUOTA),
    groups={t: Group(group, (rpm(LIMIT), tpm(1_000_000), spend(1_000_000))) for t, group in TENANTS.items()},
)
ROUTE = Route(name="plain", deployments=(Deployment(provider="p", model="gpt-5"),))
ASKED = ModelRequest(surface=Surface.CHAT, dialect=Dialect.OPENAI, model="gpt-5", route=ROUTE, body=b"{}", fields={})
_owners = count()


def claims(tenant: str, end_user: str) -> Sequence[Claim]:
    return QUOTAS.plan(Tenant(name=tenant, key_id="k"), ASKED).claims(Estimate(100, 900, False, 0), 7, end_user)


@asynccontextmanager
async def replicas(cluster: RedisCluster) -> AsyncIterator[list[RedisStore]]:
    """Three that have found their nodes, and wait for them as long as this machine may take."""
    stores = [redis_store(cluster.uri, deadline=20.0) for _ in range(3)]
    yield stores
    for store in stores:
        await store.aclose()


async def flood(stores: Sequence[RedisStore], groups: Sequence[str]) -> dict[str, int]:
    """Six calls of each tenant of these groups, all at once, at every replica; how many were let in of each group."""
    admitted = dict.fromkeys(groups, 0)

    async def call(number: int, tenant: str) -> None:
        owner = b"call-%d" % next(_owners)
        decision = await admit(stores[number % 3], claims(tenant, f"user-{number % 2}"), owner)
        admitted[TENANTS[tenant]] += decision.is_admitted

    tenants = [tenant for tenant, group in TENANTS.items() if group in groups]
    await asyncio.gather(*(call(number, tenant) for number in range(6) for tenant in tenants))
    return admitted


def masters_of(cluster: RedisCluster) -> dict[str, int]:
    """The one master of each group that has keys."""
    places = {}
    for group in GROUPS:
        kept = [len(keys) for keys in cluster.keys(f"gateway:{{group%2F{group}}}*")]
        if any(kept):
            (places[group],) = [number for number, keys in enumerate(kept) if keys]
    return places


async def test_three_replicas_and_ten_tenants_each(cluster: RedisCluster) -> None:
    async with replicas(cluster) as stores:
        assert await flood(stores, GROUPS) == dict.fromkeys(GROUPS, LIMIT)
        assert await flood(stores, GROUPS) == dict.fromkeys(GROUPS, 0)
        places = masters_of(cluster)
        assert set(places) == set(GROUPS)
        assert set(places.values()) == {0, 1, 2}


async def test_what_is_given_back_and_a_master_that_dies(cluster: RedisCluster) -> None:
    async with replicas(cluster) as stores:
        for group in GROUPS:
            decision = await admit(stores[0], claims(f"{group}-0", "alice"), f"of-{group}".encode())
            assert decision.is_admitted
            for store in stores:  # each knows its nodes by now
                await settled(store.settle(decision, reversal(decision) if store is stores[1] else []))
                await store.heartbeat(b"replica")
        places = masters_of(cluster)
        cluster.masters[0].kill()
        dead = [group for group, master in places.items() if master == 0]
        alive = [group for group in GROUPS if group not in dead]
        hasty = redis_store(cluster.uri)  # calls wait for the usual deadline, not for the dead
        with pytest.raises(RedisError):
            await admit(hasty, claims(f"{dead[0]}-0", "alice"))
        await hasty.aclose()
        assert await flood(stores, alive) == dict.fromkeys(alive, LIMIT)
