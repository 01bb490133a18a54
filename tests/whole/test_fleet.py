"""A fleet as it runs: workers of `serve`, replicas on one Redis, signals, `kill -9`, restarts. All processes real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import RedisProcess
from running import KEY
from server_process import ADMIN, OTHER, Server, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        yield simulator.url


async def become(expected: int, *servers: Server, key: str = KEY) -> None:
    """Soon a call gets nothing else from any worker. How soon news is looked for: tests/fleet."""

    async def all_say_so() -> bool:
        return [await server.statuses(key) for server in servers] == [{expected}] * len(servers)

    await until(all_say_so, 30.0)


def continued(document: Any) -> list[Any]:
    """What goes on from a response: by its id, and by that of an item."""
    reference = {"type": "item_reference", "id": document["output"][0]["id"]}
    return [
        {"model": "gpt-5-mini", "input": "go on", "previous_response_id": document["id"]},
        {"model": "gpt-5-mini", "input": [reference, {"role": "user", "content": "go on"}]},
    ]


async def check_ownership(document: Any, *servers: Server) -> None:
    for server in servers:
        for body in continued(document):
            assert await server.statuses(KEY, "/v1/responses", body) == {200}
            assert await server.statuses(OTHER, "/v1/responses", body) == {400}
        for key, expected in ((KEY, {200}), (OTHER, {404})):
            answers = await server.everywhere("GET", f"/v1/responses/{document['id']}", key)
            assert {answer.status_code for answer in answers} == expected


async def check_deletion(document: Any, by: Server, *servers: Server) -> None:
    """No worker asks the provider for it any more, though each has known it."""
    path = f"/v1/responses/{document['id']}"
    assert (await by.ask("DELETE", path)).json()["deleted"] is True

    async def is_gone() -> bool:
        answers = [answer for server in servers for answer in await server.everywhere("GET", path)]
        assert {answer.status_code for answer in answers} == {404}
        return not any("x-gateway-provider" in answer.headers for answer in answers)

    await until(is_gone)


async def test_two_workers_are_one_server(upstream: str, tmp_path: Path) -> None:
    server = Server(tmp_path, upstream, GATEWAY_WORKERS="2")
    with server.run():
        await server.wait_for(2, workers=2)
        pids = next(iter((await server.workers()).values()))
        stored = (await server.ask("POST", "/v1/responses", body={"model": "gpt-5-mini", "input": "hello"})).json()
        await asyncio.sleep(0.2)
        await check_ownership(stored, server)

        server.list_keys(KEY)
        answer = (await server.ask("POST", "/v1/admin/reload", ADMIN)).json()
        assert sorted(row["pid"] for row in answer["processes"]) == pids
        assert [row["standing"] for row in answer["processes"]] == ["same", "same"]
        await become(401, server, key=OTHER)

        forced = await server.ask("POST", "/v1/admin/circuit-breakers/openai/force-open", ADMIN, {"ttl": 600})
        assert forced.json()["is_shared"] is True
        await become(503, server)

        # One worker is killed: it is not waited for, and whoever comes in its place knows everything.
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: answers_with(server, 2, without=pids[0]), 20.0)
        await become(503, server)
        answer = (await server.ask("POST", "/v1/admin/reload", ADMIN)).json()
        assert pids[0] not in [row["pid"] for row in answer["processes"]]
        assert await server.statuses(OTHER) == {401}

    server.list_keys(KEY, OTHER)  # an old file that is put back: a restart gives no key back
    with server.run():
        await server.wait_for(2, workers=2)
        assert await server.statuses() == {503}
        assert await server.statuses(OTHER) == {401}
        reset = await server.ask("POST", "/v1/admin/circuit-breakers/openai/reset", ADMIN)
        assert (reset.status_code, reset.json()["is_shared"]) == (200, True)
        revoked = f"/v1/admin/revocations/{digest(OTHER.encode())}"
        assert (await server.ask("DELETE", revoked, ADMIN)).status_code == 200
        await become(200, server, key=OTHER)
        await check_ownership(stored, server)
        await check_deletion(stored, server, server)


async def answers_with(server: Server, workers: int, *, without: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        known = await server.workers()
        return len(known) == workers and all(without not in pids for pids in known.values())
    return False


async def test_workers_without_a_journal_are_one_server_too(upstream: str, tmp_path: Path) -> None:
    server = Server(tmp_path, upstream, GATEWAY_WORKERS="2", GATEWAY_JOURNAL="off")
    with server.run():
        await server.wait_for(2, workers=2)
        server.list_keys(KEY)
        await server.ask("POST", "/v1/admin/reload", ADMIN)
        await become(401, server, key=OTHER)


async def test_a_signal_to_one_server_reloads_every_replica(
    upstream: str, tmp_path: Path, own_redis: RedisProcess
) -> None:
    servers = [
        Server(tmp_path / name, upstream, GATEWAY_WORKERS=workers, GATEWAY_STORAGE_URI=own_redis.uri)
        for name, workers in (("a", "2"), ("b", "1"))
    ]
    with servers[0].run() as process, servers[1].run():
        await servers[0].wait_for(3, workers=2)
        await servers[1].wait_for(3)
        for server in servers:
            server.list_keys(KEY)
        process.send_signal(signal.SIGHUP)
        await become(401, *servers, key=OTHER)
        for server in servers:
            assert await server.statuses() == {200}


async def test_three_replicas_on_one_redis(upstream: str, tmp_path: Path, own_redis: RedisProcess) -> None:
    servers = [Server(tmp_path / name, upstream, GATEWAY_STORAGE_URI=own_redis.uri) for name in "abc"]
    first, second, third = servers
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(server.run()) for server in servers]
        for server in servers:
            await server.wait_for(3)
        pids = [next(iter(await server.workers())) for server in servers]
        stored = (await first.ask("POST", "/v1/responses", body={"model": "gpt-5-mini", "input": "hello"})).json()
        await asyncio.sleep(0.2)
        await check_ownership(stored, *servers)

        # Only the first has the new file; the second has a broken one, the third the old one.
        first.list_keys(KEY)
        second.file.write_text("this is no TOML")
        answer = (await first.ask("POST", "/v1/admin/reload", ADMIN)).json()
        assert Counter(row["standing"] for row in answer["processes"]) == {"same": 1, "refused": 1, "differs": 1}
        assert {row["pid"] for row in answer["processes"]} == set(pids)
        await become(401, *servers, key=OTHER)

        await third.ask("POST", "/v1/admin/circuit-breakers/openai/force-open", ADMIN, {"ttl": 600})
        await asyncio.sleep(0.4)
        await become(503, *servers)

        # A process that hangs is named.
        os.kill(pids[2], signal.SIGSTOP)
        answer = (await first.ask("POST", "/v1/admin/reload", ADMIN)).json()
        os.kill(pids[2], signal.SIGCONT)
        assert Counter(row["standing"] for row in answer["processes"]) == {"same": 1, "refused": 1, "silent": 1}
        await second.ask("POST", "/v1/admin/circuit-breakers/openai/reset", ADMIN)
        processes[1].kill()

    # The second comes back with the old file, on another disk: Redis alone tells it.
    fresh = Server(tmp_path / "d", upstream, GATEWAY_STORAGE_URI=own_redis.uri)
    with third.run(), fresh.run():
        for server in (third, fresh):
            await server.wait_for(2)
            assert await server.statuses(OTHER) == {401}
            assert await server.statuses() == {200}
        for body in continued(stored):
            assert await fresh.statuses(KEY, "/v1/responses", body) == {200}
        # It is given back where it had been dropped.
        assert (await fresh.ask("DELETE", f"/v1/admin/revocations/{digest(OTHER.encode())}", ADMIN)).status_code == 200
        await become(200, third, fresh, key=OTHER)
        await check_ownership(stored, third, fresh)


async def test_commands_to_breakers_while_redis_is_away(upstream: str, tmp_path: Path, own_redis: RedisProcess) -> None:
    servers = [
        Server(tmp_path / name, upstream, GATEWAY_WORKERS=workers, GATEWAY_STORAGE_URI=own_redis.uri)
        for name, workers in (("a", "2"), ("b", "1"))
    ]
    first, second = servers
    with first.run(), second.run():
        await first.wait_for(3, workers=2)
        await second.wait_for(3)
        own_redis.kill()
        forced = await first.ask("POST", "/v1/admin/circuit-breakers/openai/force-open", ADMIN, {"ttl": 600})
        assert forced.json()["is_shared"] is False
        await become(503, first)
        assert await second.statuses() == {200}

        own_redis.start()
        await until(lambda: is_everywhere(503, second), 20.0)

        async def is_reset() -> bool:
            answer = await second.ask("POST", "/v1/admin/circuit-breakers/openai/reset", ADMIN)
            return answer.json()["is_shared"] is True

        await until(is_reset, 20.0)
        await become(200, *servers)
    with first.run():  # what Redis and the directory remember is the same
        await until(first.is_ready, 60.0)
        assert await first.statuses() == {200}


async def is_everywhere(status: int, server: Server) -> bool:
    return await server.statuses() == {status}


async def test_health_shows_no_secret(upstream: str, tmp_path: Path) -> None:
    server = Server(tmp_path, upstream)
    with server.run():
        await server.wait_for(1)
        text = json.dumps((await server.ask("GET", "/v1/health", "nobody")).json()["fleet"])
        assert KEY not in text
        assert ADMIN not in text
        assert digest(KEY.encode()) not in text
