"""What one process has just acknowledged of keys and tenants, every other one finds at once: it looks in the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi_driver import drive
from redis_process import RedisProcess
from rig import ADMIN, Rig

pytestmark = pytest.mark.anyio
TENANTS = "/v1/admin/tenants"
KEYS = f"{TENANTS}/new/keys"


def replica(store: str, folder: Path, redis: RedisProcess) -> Rig:
    """By Redis each has a server of its own; by the directory both are workers of one."""
    if store == "directory":
        return Rig(GATEWAY_OPEN="", GATEWAY_TENANTS="{}", GATEWAY_FLEET_DIRECTORY=str(folder))
    return Rig(GATEWAY_OPEN="", GATEWAY_TENANTS="{}", GATEWAY_STORAGE_URI=redis.uri)


@asynccontextmanager
async def running(*rigs: Rig) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for rig in rigs:
            await stack.enter_async_context(rig.gateway.lifespan())
        yield


async def ask(rig: Rig, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
    content = b"" if body is None else json.dumps(body).encode()
    answer = await drive(rig.gateway, method=method, path=path, headers=headers, body=content)
    return answer.status, answer.json()


@pytest.mark.parametrize("store", ["directory", "redis"])
async def test_each_step_at_the_other_replica(store: str, tmp_path: Path, own_redis: RedisProcess) -> None:
    one, other = (replica(store, tmp_path, own_redis) for _ in range(2))
    async with running(one, other):
        assert (await ask(one, "POST", TENANTS, {"name": "new"}))[0] == 201
        assert (await ask(other, "POST", TENANTS, {"name": "new"}))[0] == 409
        assert (await ask(one, "PATCH", f"{TENANTS}/new", {"limits": {"requests": "9/minute"}}))[0] == 200
        status, row = await ask(other, "PATCH", f"{TENANTS}/new", {"models": ["fast"]})
        assert (status, row["limits"], row["models"]) == (200, {"requests": "9/minute"}, ["fast"])
        status, made = await ask(one, "POST", KEYS, {"name": "ci"})
        assert status == 201
        path = f"{KEYS}/{made['key_id']}"
        status, row = await ask(other, "PATCH", path, {"limits": {"requests": "5/minute"}})
        assert (status, row["name"]) == (200, "ci")
        status, rotated = await ask(one, "POST", f"{path}/rotate", {"grace": 60})
        assert (status, rotated["limits"]) == (200, {"requests": "5/minute"})
        assert [row["key_id"] for row in (await ask(other, "GET", KEYS))[1]["keys"]] == [made["key_id"]]
        assert (await ask(other, "DELETE", path))[0] == 200
        for method, place, body in (("PATCH", path, {}), ("POST", f"{path}/rotate", {}), ("DELETE", path, None)):
            status, refused = await ask(one, method, place, body)
            assert (status, refused["error"]["code"]) == (404, "unknown_key")


async def test_a_key_and_a_tenant_are_found_by_whoever_is_asked_first(tmp_path: Path, own_redis: RedisProcess) -> None:
    one, other = (replica("redis", tmp_path, own_redis) for _ in range(2))
    async with running(one, other):
        for number in range(5):
            keys = f"{TENANTS}/t{number}/keys"
            assert (await ask(one, "POST", TENANTS, {"name": f"t{number}"}))[0] == 201
            if number % 2:
                assert (await ask(other, "GET", keys)) == (200, {"tenant": f"t{number}", "keys": []})
            status, made = await ask(other, "POST", keys, {})
            assert status == 201
            assert (await ask(one, "DELETE", f"{keys}/{made['key_id']}"))[0] == 200
            headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
            usage = await drive(other.gateway, path="/v1/admin/usage", query=b"tenant=t%d" % number, headers=headers)
            assert (usage.status, usage.json()["tenant"]) == (200, f"t{number}")
            assert number in {int(row["name"][1:]) for row in (await ask(other, "GET", TENANTS))[1]["tenants"]}


async def test_nobody_says_that_there_is_none_while_the_store_is_away(tmp_path: Path, own_redis: RedisProcess) -> None:
    one, other = (replica("redis", tmp_path, own_redis) for _ in range(2))
    async with running(one, other):
        assert (await ask(one, "POST", TENANTS, {"name": "new"}))[0] == 201
        status, made = await ask(one, "POST", KEYS, {})
        assert status == 201
        own_redis.kill()
        path = f"{KEYS}/{made['key_id']}x"  # nobody knows it
        for method, place, body in (
            ("GET", f"{TENANTS}/none/keys", None), ("PATCH", f"{TENANTS}/none", {}), ("DELETE", path, None),
            ("PATCH", path, {}), ("POST", f"{path}/rotate", {}),
        ):  # fmt: skip
            status, refused = await ask(other, method, place, body)
            assert (status, refused["error"]["code"]) == (503, "key_store_unavailable")
        assert (await ask(one, "GET", KEYS))[0] == 200  # what is known is shown
