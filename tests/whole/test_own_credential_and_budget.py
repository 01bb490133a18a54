"""Callers' own credentials and `on_budget` together, at two workers: each provider gets its own, a budget holds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Server as Upstream
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import RedisProcess
from server_process import Server, until

pytestmark = pytest.mark.anyio
PAID, OWN = "sk-of-the-gateway-0123", "sk-of-callers-"
"""Of the provider that the gateway pays for; how those begin that callers bring to the other one."""
KEYS = {"down": "gw-down-0123456789", "up": "gw-up-0123456789"}
DEAR, CHEAP = "sim-input-10:output-100", "sim-output-100:input-10"
COSTS = {"ours": Decimal("1.1"), "theirs": Decimal("0.022")}
BUDGET = 5


def config(ours: Upstream, theirs: Upstream) -> dict[str, str]:
    """`down` comes from what the gateway pays for to what the caller does, `up` the other way round."""
    providers = {
        "ours": {"kind": "openai", "base_url": f"{ours.url}/v1", "api_key": PAID},
        "theirs": {"kind": "openai", "base_url": f"{theirs.url}/v1", "auth": "none"},
    }
    routes = {
        "dear": [f"ours/{DEAR}"],
        "cheap": [f"theirs/{CHEAP}"],
        "own": [f"theirs/{DEAR}"],
        "free": [f"ours/{CHEAP}"],
    }
    high, low = {"input": "10000", "output": "10000"}, {"input": "200", "output": "200"}
    prices = {f"ours/{DEAR}": high, f"theirs/{CHEAP}": low, f"theirs/{DEAR}": high, f"ours/{CHEAP}": low}
    common = {"spend": f"{BUDGET}/month", "credentials": {"theirs": "client"}}
    tenants = {
        "down": {**common, "keys": [digest(KEYS["down"].encode())], "on_budget": {"route": "cheap"}},
        "up": {**common, "keys": [digest(KEYS["up"].encode())], "on_budget": {"route": "free"}},
    }
    return {
        "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "", "GATEWAY_WORKERS": "2",
        "GATEWAY_PROVIDERS": json.dumps(providers), "GATEWAY_ROUTES": json.dumps(routes),
        "GATEWAY_PRICES": json.dumps(prices), "GATEWAY_TENANTS": json.dumps(tenants),
    }  # fmt: skip


async def call(client: httpx.AsyncClient, tenant: str, number: int, *, stream: bool) -> tuple[int, str, str | None]:
    """Status, the deployment or the code of the error, and whether it stepped down. One in five brings nothing."""
    headers = {"x-gateway-key": KEYS[tenant]}
    if number % 5:
        headers["authorization"] = f"Bearer {OWN}{number:010}"
    body = {
        "model": "dear" if tenant == "down" else "own", "max_tokens": 100, "stream": stream,
        "messages": [{"role": "user", "content": f"hello {number}"}],
    }  # fmt: skip
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    if answer.status_code != 200:
        return answer.status_code, str(answer.json()["error"]["code"]), None
    return 200, answer.headers["x-gateway-deployment"], answer.headers.get("x-gateway-budget")


async def test_no_credential_goes_astray_and_no_budget_is_passed(tmp_path: Path, own_redis: RedisProcess) -> None:
    async with Simulator(keys=[PAID]).serve() as ours, Simulator().serve() as theirs:
        server = Server(tmp_path, ours.url, GATEWAY_STORAGE_URI=own_redis.uri, **config(ours, theirs))
        server.file.write_text("")
        with server.run():
            await until(server.is_ready, 60.0)
            few = asyncio.Semaphore(24)
            pool = httpx.Limits(max_connections=24)
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30, limits=pool) as client:

                async def one(tenant: str, number: int) -> tuple[str, tuple[int, str, str | None]]:
                    async with few:
                        return tenant, await call(client, tenant, number, stream=number % 2 == 0)

                calls = [one(tenant, number) for number in range(150) for tenant in KEYS]
                answers = await asyncio.gather(*calls)
        events = _events(tmp_path)
        sent = {upstream: _credentials(upstream) for upstream in (ours, theirs)}
    counted = Counter((tenant, *answer) for tenant, answer in answers)
    print(counted)
    assert set(sent[ours]) == {PAID}
    assert all(key.startswith(OWN) for key in sent[theirs])
    assert len(set(sent[theirs])) * 2 >= len(sent[theirs]), "each caller has its own"
    log = server.log.read_bytes().decode() + json.dumps(events)
    assert OWN not in log
    assert PAID not in log
    for tenant in KEYS:
        spent = sum((Decimal(event["cost"]) for event in events if event["tenant"] == tenant), Decimal())
        assert spent <= BUDGET
        assert spent > BUDGET - Decimal("1.2")
    assert {event["paid_by"] for event in events if event["provider"] == "theirs"} == {"client"}
    assert {event.get("paid_by", "gateway") for event in events if event["provider"] == "ours"} == {"gateway"}


def _events(folder: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(folder / "journal.db") as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]


def _credentials(upstream: Upstream) -> list[str]:
    return [entry.named_headers["authorization"].removeprefix("Bearer ") for entry in upstream.simulator.requests]
