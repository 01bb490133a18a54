"""LC6 and LC7 with two workers under load: a policy-adapter that hangs, drops, answers late and is well again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.policy_adapter import PolicyAdapter, PolicyFault, PolicyServer
from gateway_middleware.tenancy.keys import digest
from served import Served, serve, upstream
from server_process import until

pytestmark = pytest.mark.anyio
NAMES = ["acme", "globex", "stranger"]
TENANTS = json.dumps({name: {"keys": [digest(name.encode())]} for name in NAMES})
BODY: Any = {"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
ALLOWED_SECONDS = 0.2
FAULTS = [
    PolicyFault(ends="hang"),
    PolicyFault(ends="drop"),
    PolicyFault(status=503),
    PolicyFault(delay=5.0),
    PolicyFault(body="<html>"),
]


@contextlib.asynccontextmanager
async def two_workers(folder: Path, policy: PolicyServer, **extra: Any) -> AsyncIterator[Served]:
    chosen: dict[str, Any] = {
        "GATEWAY_WORKERS": "2", "GATEWAY_TENANTS": TENANTS, "GATEWAY_POLICY_ADAPTER_URL": policy.data_url,
        "GATEWAY_POLICY_TIMEOUT_SECONDS": "1", "GATEWAY_POLICY_ALLOWED_SECONDS": str(ALLOWED_SECONDS), **extra,
    }  # fmt: skip
    async with Simulator().serve() as simulator, serve(folder, **upstream(simulator), **chosen) as served:
        while len(served.workers) < 2:
            await asyncio.sleep(0.02)
        yield served


async def ask(client: httpx.AsyncClient, tenant: str) -> int:
    answer = await client.post("/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {tenant}"})
    return answer.status_code


def fresh_client(served: Served) -> httpx.AsyncClient:
    """Each call has a connection of its own, so that both workers take some."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30, limits=limits)


async def let_both_workers_know(served: Served, *tenants: str) -> None:
    """A connection stays with its worker, which `/v1/health` names first."""
    reached: set[int] = set()
    while len(reached) < 2:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30, limits=limits) as client:
            assert [await ask(client, tenant) for tenant in tenants] == [200] * len(tenants)
            reached.add((await client.get("/v1/health")).json()["fleet"]["processes"][0]["pid"])


async def test_lc7_first_calls_at_once_with_one_new_key_are_one_question_in_each_worker(tmp_path: Path) -> None:
    async with PolicyAdapter().serve() as policy:
        policy.adapter.behave(PolicyFault(delay=1.0))
        timeout = {"GATEWAY_POLICY_TIMEOUT_SECONDS": "20", "GATEWAY_POLICY_ALLOWED_SECONDS": "600"}
        async with two_workers(tmp_path, policy, **timeout) as served, fresh_client(served) as client:
            assert await asyncio.gather(*(ask(client, "acme") for _ in range(200))) == [200] * 200
            assert len(policy.adapter.questions) <= 2


async def test_lc6_who_was_allowed_goes_on_under_load_and_who_is_unknown_never_gets_in(tmp_path: Path) -> None:
    came: dict[str, Counter[int]] = {name: Counter() for name in NAMES}
    goes_on = True

    async def steadily(client: httpx.AsyncClient, tenant: str) -> None:
        while goes_on:
            came[tenant][await ask(client, tenant)] += 1

    async with PolicyAdapter().serve() as policy:
        policy.adapter.policy = {"stranger": False, "*": True}
        async with two_workers(tmp_path, policy) as served, fresh_client(served) as client:
            await let_both_workers_know(served, "acme", "globex")
            async with asyncio.TaskGroup() as load:
                for tenant in ["acme", "globex", "stranger"] * 4:
                    load.create_task(steadily(client, tenant))
                for fault in FAULTS:
                    policy.adapter.behave(fault)
                    await asyncio.sleep(2 * ALLOWED_SECONDS)
                    policy.adapter.behave_well()  # it flaps
                    await asyncio.sleep(ALLOWED_SECONDS)
                goes_on = False

            async def is_well() -> bool:
                return [await ask(client, name) for name in NAMES] == [200, 200, 403]

            await until(is_well, 20.0)
    print({name: dict(statuses) for name, statuses in came.items()}, len(policy.adapter.questions), "questions")
    assert set(came["acme"]) == set(came["globex"]) == {200}
    assert set(came["stranger"]) <= {403, 503}
