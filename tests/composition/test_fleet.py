"""Gateways that share a directory: what is acknowledged by one of them is done in all, within a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware.fleet.entries import Process
from gateway_middleware.tenancy.keys import digest, hmac_digest
from redis_process import RedisProcess
from rig import ADMIN, ASK, CHAT, RESPONSES, Rig, answering

pytestmark = pytest.mark.anyio
KEPT, DROPPED = "gw-kept-0123456789abcdef", "gw-dropped-0123456789abcdef"
OTHER = "gw-other-0123456789abcdef"
ONE = {"fast": {"to": "a/m", "max_attempts": 1}}


def listing(*keys: str) -> str:
    tenants = {"acme": {"keys": [digest(key.encode()) for key in keys]}, "other": {"keys": [digest(OTHER.encode())]}}
    return json.dumps(tenants)


def gateway(folder: Path, *, routes: Any = None, redis: str = "memory://") -> Rig:
    return Rig(
        routes or ONE,
        GATEWAY_OPEN="",
        GATEWAY_TENANTS=listing(KEPT, DROPPED),
        GATEWAY_FLEET_DIRECTORY=str(folder / "fleet"),
        GATEWAY_STORAGE_URI=redis,
    )


@asynccontextmanager
async def running(*rigs: Rig) -> AsyncIterator[None]:
    """All of them, knowing each other."""
    async with AsyncExitStack() as stack:
        for rig in rigs:
            await stack.enter_async_context(rig.gateway.lifespan())
        await until(lambda: knows_all(rigs))
        yield


async def knows_all(rigs: Any) -> bool:
    return all([len((await rig.get("/v1/health"))["fleet"]["processes"]) == len(rigs) for rig in rigs])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.01)


async def post(rig: Rig, key: str, path: str, **fields: Any) -> Transcript:
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {key}".encode())]
    body = json.dumps({"model": "fast", **fields}).encode()
    return await drive(rig.gateway, method="POST", path=path, headers=headers, body=body)


async def status(rig: Rig, key: str) -> int:
    return (await post(rig, key, CHAT, messages=ASK)).status


async def statuses(key: str, *rigs: Rig) -> list[int]:
    return [await status(rig, key) for rig in rigs]


async def become(expected: int, key: str, *rigs: Rig) -> None:
    async def is_so() -> bool:
        return await statuses(key, *rigs) == [expected] * len(rigs)

    await until(is_so)


async def reload(rig: Rig, **changes: str) -> Any:
    rig.environment |= changes
    return await rig.post("/v1/admin/reload")


async def delete(rig: Rig, path: str) -> Any:
    headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
    return await drive(rig.gateway, method="DELETE", path=path, headers=headers)


async def admin(rig: Rig, path: str) -> Any:
    return (await drive(rig.gateway, path=path, headers=[(b"authorization", f"Bearer {ADMIN}".encode())])).json()


# Reload.


async def test_every_process_reads_its_own_sources_and_the_answer_names_each(tmp_path: Path) -> None:
    same, other, broken = gateway(tmp_path), gateway(tmp_path), gateway(tmp_path)
    first = gateway(tmp_path)
    async with running(first, same, other, broken):
        change = {"GATEWAY_MAX_ATTEMPTS": "2"}
        same.environment |= change
        broken.environment |= {"GATEWAY_ROUTES": '{"fast": ["nobody/m"]}'}
        answer = (await reload(first, **change)).json()
        health = (await first.get("/v1/health"))["fleet"]

        assert answer["changed"] == ["max_attempts"]
        assert answer["config"] == "differs"
        assert sorted(row["standing"] for row in answer["processes"]) == ["differs", "refused", "same", "same"]
        (refused,) = [row for row in answer["processes"] if row["standing"] == "refused"]
        assert "nobody" in refused["reason"]
        hashes = [rig.gateway.settings.config_hash for rig in (first, same, other)]
        assert answer["config_hash"] == hashes[0] == hashes[1] != hashes[2]
        assert {row["pid"] for row in answer["processes"]} == {row["pid"] for row in health["processes"]}
        assert all(row["host"] for row in answer["processes"])
        line = same.lines("audit")[0]
        assert (line["action"], line["client"].startswith("127.0.0.1 at ")) == ("reload", True)
        assert broken.lines("reload_failed")


async def test_all_that_have_the_same_configuration_are_called_the_same(tmp_path: Path) -> None:
    one, two = gateway(tmp_path), gateway(tmp_path)
    async with running(one, two):
        assert (await reload(one)).json()["config"] == "same"
        health = (await two.get("/v1/health"))["fleet"]
        assert (health["config"], health["stores"]) == ("same", {"directory": "ok"})


async def test_what_one_refuses_nobody_else_is_asked_for(tmp_path: Path) -> None:
    one, two = gateway(tmp_path), gateway(tmp_path)
    async with running(one, two):
        two.environment["GATEWAY_MAX_ATTEMPTS"] = "2"
        assert (await reload(one, GATEWAY_ROUTES='{"fast": ["nobody/m"]}')).status == 400
        await asyncio.sleep(0.6)
        assert two.gateway.settings.max_attempts == 3


async def test_who_does_not_answer_is_named(tmp_path: Path) -> None:
    one = gateway(tmp_path)
    async with running(one):
        hangs = Process(
            id="x", host="elsewhere", pid=7, started=1.0, version="0", config_hash="abc", machine="another one"
        )
        await one.gateway.fleet.links[0].store.news(0, hangs)
        began = time.monotonic()
        answer = (await reload(one)).json()
        assert time.monotonic() - began >= 0.9
        assert answer["config"] == "differs"
        rows = [(row["host"], row["standing"]) for row in answer["processes"]]
        assert rows == [(one.gateway.fleet.process.host, "same"), ("elsewhere", "silent")]


async def test_a_signal_to_one_reloads_all(tmp_path: Path) -> None:
    one, two = gateway(tmp_path), gateway(tmp_path)
    async with running(one, two):
        two.environment["GATEWAY_MAX_ATTEMPTS"] = "2"
        one.gateway.operations.reload_on_signal()
        one.gateway.operations.reload_on_signal()

        async def is_taken() -> bool:
            return two.gateway.settings.max_attempts == 2

        await until(is_taken)


async def test_alone_a_reload_names_this_process() -> None:
    rig = Rig(ONE)
    answer = (await rig.post("/v1/admin/reload")).json()
    assert [row["standing"] for row in answer["processes"]] == ["same"]
    health = (await rig.get("/v1/health"))["fleet"]
    assert (health["stores"], health["config"], len(health["processes"])) == ({}, "same", 1)


# Revocation.


async def test_a_revoked_key_is_refused_everywhere_even_where_an_old_file_lists_it(tmp_path: Path) -> None:
    one, old = gateway(tmp_path), gateway(tmp_path)
    async with running(one, old):
        assert await statuses(DROPPED, one, old) == [200, 200]
        assert (await reload(one, GATEWAY_TENANTS=listing(KEPT))).status == 200
        assert await status(one, DROPPED) == 401
        await become(401, DROPPED, old)
        assert await statuses(KEPT, one, old) == [200, 200]
        # The old file is read again, and another change comes with it: it still says nothing new of the key.
        assert (await reload(old, GATEWAY_MAX_ATTEMPTS="2")).json()["config"] == "differs"
        assert await status(old, DROPPED) == 401
        line = next(line for line in old.lines("audit") if line["action"] == "key revoked")
        assert line["digest"] == digest(DROPPED.encode())
    restarted, fresh = gateway(tmp_path), gateway(tmp_path)
    async with running(restarted, fresh):
        assert await statuses(DROPPED, restarted, fresh) == [401, 401]


async def test_a_key_that_is_listed_again_is_given_back_to_all(tmp_path: Path) -> None:
    one, old = gateway(tmp_path), gateway(tmp_path)
    async with running(one, old):
        await reload(one, GATEWAY_TENANTS=listing(KEPT))
        await become(401, DROPPED, one, old)
        await reload(one, GATEWAY_TENANTS=listing(KEPT, DROPPED))
        await become(200, DROPPED, one, old)
    later = gateway(tmp_path)
    async with running(later):
        assert await status(later, DROPPED) == 200


async def test_an_operator_gives_a_key_back(tmp_path: Path) -> None:
    one, old = gateway(tmp_path), gateway(tmp_path)
    revoked = digest(DROPPED.encode())
    async with running(one, old):
        await reload(one, GATEWAY_TENANTS=listing(KEPT))
        await become(401, DROPPED, one, old)
        (row,) = (await admin(old, "/v1/admin/revocations"))["revocations"]
        assert (row["digest"], row["by"]) == (revoked, one.gateway.fleet.name)
        assert datetime.fromisoformat(row["since"]).timestamp() == pytest.approx(one.clock.wall(), abs=1)
        assert (await delete(one, "/v1/admin/revocations/sha256:00")).status == 404
        answer = await delete(one, f"/v1/admin/revocations/{revoked}")
        assert answer.json() == {"digest": revoked, "is_revoked": False}
        await become(200, DROPPED, old)
        assert await status(one, DROPPED) == 401  # it is not listed there
        assert (await admin(old, "/v1/admin/revocations"))["revocations"] == []


async def test_to_let_everybody_in_for_a_while_revokes_nothing(tmp_path: Path) -> None:
    one, other = gateway(tmp_path), gateway(tmp_path)
    async with running(one, other):
        await reload(one, GATEWAY_TENANTS="", GATEWAY_OPEN="true")
        await reload(one, GATEWAY_TENANTS=listing(KEPT), GATEWAY_OPEN="")
        await become(401, DROPPED, one, other)
        assert await statuses(KEPT, one, other) == [200, 200]


async def test_a_key_that_is_listed_by_another_digest_stays_where_it_is(tmp_path: Path) -> None:
    secret = "a-secret-of-sixteen-characters"
    one = gateway(tmp_path)
    async with running(one):
        keys = [hmac_digest(DROPPED.encode(), secret.encode())]
        await reload(one, GATEWAY_TENANTS=json.dumps({"acme": {"keys": keys}}), GATEWAY_KEY_SECRET=secret)
        assert await statuses(DROPPED, one) == [200]


# Commands to circuit breakers.


async def test_commands_of_operators_reach_every_worker_and_hold_over_a_restart(tmp_path: Path) -> None:
    one, two = gateway(tmp_path), gateway(tmp_path)

    async def is_forced() -> bool:
        return await two.state() == "forced_open"

    async with running(one, two):
        answer = await one.command("a", "force-open", {"ttl": 600, "reason": "maintenance"})
        assert answer.json()["is_shared"] is True
        await until(is_forced)
        assert await status(two, KEPT) == 503
    two = gateway(tmp_path)
    async with running(two):
        assert await status(two, KEPT) == 503
        one = gateway(tmp_path)
        async with one.gateway.lifespan():
            await two.command("a", "auto")

            async def is_closed() -> bool:
                return await status(one, KEPT) == 200

            await until(is_closed)


async def test_a_worker_that_never_called_a_provider_takes_commands_for_it(tmp_path: Path) -> None:
    one, two = gateway(tmp_path), gateway(tmp_path)
    async with running(one, two):
        answer = await one.command("b", "force-open", {"ttl": 600})
        assert (answer.status, answer.json()["circuit_breakers"]) == (200, [])
        assert (await one.command("nobody", "force-open")).status == 404

        async def is_forced() -> bool:
            return [(await post(rig, KEPT, CHAT, model="b/m", messages=ASK)).status for rig in (one, two)] == [503, 503]

        await until(is_forced)


# Owners of stored responses.

STORED = b'{"id":"resp_1","object":"response","output":[{"id":"msg_1","type":"message"}]}'
TWO = {"fast": {"to": ["a/m", "b/m"], "balance": "order"}}
CONTINUED: list[dict[str, Any]] = [
    {"previous_response_id": "resp_1", "input": "go on"},
    {"input": [{"type": "item_reference", "id": "msg_1"}]},
]


async def continues(key: str, fields: dict[str, Any], *rigs: Rig) -> list[int]:
    return [(await post(rig, key, RESPONSES, **fields)).status for rig in rigs]


@pytest.mark.parametrize("store", [None, "own_redis", "shared_cluster"])
async def test_a_tenant_goes_on_from_its_own_response_everywhere(
    tmp_path: Path, request: pytest.FixtureRequest, store: str | None
) -> None:
    is_redis = store is not None
    redis = request.getfixturevalue(store).uri if store is not None else "memory://"
    folders = [tmp_path / "a", tmp_path / "b"] if is_redis else [tmp_path, tmp_path]
    one, two = (gateway(folder, routes=TWO, redis=redis) for folder in folders)
    async with running(one, two):
        one.scripts["a"] = answering(status=500)
        one.scripts["b"] = answering(STORED)
        assert (await post(one, KEPT, RESPONSES, input="hello")).status == 200
        for fields in CONTINUED:

            async def is_known(fields: dict[str, Any] = fields) -> bool:
                return await continues(KEPT, fields, two) == [200]

            await until(is_known)
            assert await continues(OTHER, fields, one, two) == [400, 400]
        assert (two.calls["a"], two.calls["b"]) == (0, 2)  # where it is stored, though `a` comes first
    later = gateway(tmp_path / "c" if is_redis else tmp_path, routes=TWO, redis=redis)
    async with running(later):
        for fields in CONTINUED:
            assert await continues(KEPT, fields, later) == [200]
            assert await continues(OTHER, fields, later) == [400]
        assert later.calls["a"] == 0


async def test_while_the_store_is_away_nothing_passes_unchecked(tmp_path: Path, own_redis: RedisProcess) -> None:
    rig = gateway(tmp_path, redis=own_redis.uri)
    async with running(rig):
        own_redis.kill()
        answer = await post(rig, KEPT, RESPONSES, **CONTINUED[0])
        assert answer.status == 503
        assert answer.json()["error"]["code"] == "ownership_unavailable"
        assert answer.headers["retry-after"] == "1"
        assert (await post(rig, KEPT, RESPONSES, input="hello")).status == 200
