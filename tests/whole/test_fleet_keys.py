"""Keys made at run time over workers and replicas: real processes, a real Redis that is killed, emptied, frozen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway_middleware.simulator import Simulator
from redis_process import RedisProcess
from server_process import ADMIN, Server, until

pytestmark = pytest.mark.anyio
KEYS = "/v1/admin/tenants/acme/keys"
SHAPED = "gw-aaaaaaaa-" + "a" * 43
"""Of the form of a key, and none."""


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        yield simulator.url


async def make(server: Server, body: Any = None) -> dict[str, Any]:
    answer = await server.ask("POST", KEYS, ADMIN, body or {})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def rotate(server: Server, key_id: str, grace: float) -> dict[str, Any]:
    answer = await server.ask("POST", f"{KEYS}/{key_id}/rotate", ADMIN, {"grace": grace})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def revoke(server: Server, key_id: str) -> int:
    return (await server.ask("DELETE", f"{KEYS}/{key_id}", ADMIN)).status_code


async def soon(expected: int, key: str, *servers: Server) -> None:
    """Soon every worker of every server says this. How soon news is looked for: tests/fleet."""
    await until(lambda: all_say(expected, key, *servers), 30.0)


async def all_say(expected: int, key: str, *servers: Server) -> bool:
    return [await server.statuses(key) for server in servers] == [{expected}] * len(servers)


async def test_two_workers_and_a_restart(upstream: str, tmp_path: Path) -> None:
    server = Server(tmp_path, upstream, GATEWAY_WORKERS="2")
    with server.run():
        await server.wait_for(2, workers=2)
        made, gone = await make(server), await make(server)
        assert made["stored"] == "directory"
        await soon(200, made["key"], server)
        await soon(200, gone["key"], server)
        assert await revoke(server, gone["key_id"]) == 200
        await soon(401, gone["key"], server)
        rotated = await rotate(server, made["key_id"], 600)
        await soon(200, rotated["key"], server)
        assert await server.statuses(made["key"]) == {200}
    with server.run():
        await server.wait_for(2, workers=2)
        for key, expected in ((made, 200), (rotated, 200), (gone, 401)):
            assert await server.statuses(key["key"]) == {expected}


async def test_three_replicas_rotation_and_revocation(upstream: str, tmp_path: Path, own_redis: RedisProcess) -> None:
    servers = [Server(tmp_path / name, upstream, GATEWAY_STORAGE_URI=own_redis.uri) for name in "abc"]
    first, second, third = servers
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(server.run())
        for server in servers:
            await server.wait_for(3)
        made = await make(first)
        assert made["stored"] == "redis"
        await soon(200, made["key"], *servers)

        began = time.monotonic()
        rotated = await rotate(second, made["key_id"], 3.0)
        await soon(200, rotated["key"], *servers)
        while time.monotonic() < began + 3.0:
            is_good = await all_say(200, made["key"], *servers)
            assert is_good or time.monotonic() >= began + 3.0, "its grace is not over"
        await soon(401, made["key"], *servers)

        # Two operators at once, at two replicas: nobody is shut out, and one secret is left in the end.
        both = await asyncio.gather(rotate(first, made["key_id"], 10.0), rotate(third, made["key_id"], 10.0))
        for key in (rotated, *both):
            await soon(200, key["key"], *servers)

        async def is_one_left() -> bool:
            outcomes = [[await server.statuses(key["key"]) for server in servers] for key in (rotated, *both)]
            return sorted(outcomes, key=str) == [[{200}] * 3, [{401}] * 3, [{401}] * 3]

        await until(is_one_left, 40.0)

        assert await revoke(third, made["key_id"]) == 200
        for key in both:
            await soon(401, key["key"], *servers)


async def test_redis_is_killed_emptied_and_frozen(upstream: str, tmp_path: Path, own_redis: RedisProcess) -> None:
    servers = [Server(tmp_path / name, upstream, GATEWAY_STORAGE_URI=own_redis.uri) for name in "ab"]
    first, second = servers
    with first.run(), second.run():
        for server in servers:
            await server.wait_for(2)
        known, gone, lasting = await make(first), await make(second), await make(first)
        for key in (known, gone):
            await soon(200, key["key"], *servers)
        assert await revoke(first, gone["key_id"]) == 200
        await soon(401, gone["key"], *servers)

        # Emptied: it is filled again, and obeyed in nothing.
        own_redis.command("FLUSHALL")
        for _ in range(5):
            assert [await server.statuses(known["key"]) for server in servers] == [{200}] * 2
            assert [await server.statuses(gone["key"]) for server in servers] == [{401}] * 2
        fresh = Server(tmp_path / "c", upstream, GATEWAY_STORAGE_URI=own_redis.uri)
        with fresh.run():
            await fresh.wait_for(3)
            assert await fresh.statuses(known["key"]) == {200}
            assert await fresh.statuses(gone["key"]) == {401}

        # Frozen, then killed: known keys work, revoked ones stay so, unknown ones and writes are 503.
        for away in (own_redis.freeze, own_redis.kill):
            away()
            await asyncio.sleep(1.5)
            for server in servers:
                assert await server.statuses(known["key"]) == {200}
                assert await server.statuses(SHAPED) == {503}
                assert await server.statuses("no-key-of-ours") == {401}
                for path in (KEYS, f"{KEYS}/{known['key_id']}/rotate", "/v1/admin/tenants"):
                    body = {"name": "new"} if "keys" not in path else {}
                    refused = await server.ask("POST", path, ADMIN, body)
                    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
                assert await server.statuses(known["key"]) == {200}
            own_redis.thaw() if away == own_redis.freeze else own_redis.start()
            await until(lambda: is_back(*servers), 30.0)
            await soon(200, known["key"], *servers)
            await soon(401, SHAPED, *servers)
        assert [row["key_id"] for row in (await first.ask("GET", KEYS, ADMIN)).json()["keys"]] == [
            None, known["key_id"], lasting["key_id"],
        ]  # fmt: skip

        # Revoked while it is away: here at once, there when it is back.
        own_redis.kill()
        await asyncio.sleep(1.0)
        assert await revoke(first, known["key_id"]) == 503
        assert await first.statuses(known["key"]) in ({401}, {503})
        own_redis.start()
        await until(lambda: is_back(*servers), 30.0)
        await soon(401, known["key"], *servers)

    # A replica that starts while Redis is away knows what is on its own disk.
    with contextlib.ExitStack() as stack:
        own_redis.kill()
        stack.enter_context(first.run())
        await first.wait_for(1)
        assert await first.statuses(lasting["key"]) == {200}
        assert await first.statuses(gone["key"]) in ({401}, {503})


async def is_back(*servers: Server) -> bool:
    stores = [(await server.ask("GET", "/v1/health")).json()["fleet"]["stores"] for server in servers]
    return all(state == "ok" for known in stores for state in known.values())
