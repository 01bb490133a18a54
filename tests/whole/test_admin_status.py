"""`GET /v1/admin/status` over workers and replicas that really run."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_driver import drive
from console_scene import ADMIN, incident
from redis_process import RedisProcess
from rig import Rig, failing

pytestmark = pytest.mark.anyio
AUTHORIZATION = {"authorization": f"Bearer {ADMIN}"}
RIGHT = [(b"authorization", f"Bearer {ADMIN}".encode())]


async def status(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        answer = await client.get(f"{url}/v1/admin/status", headers=AUTHORIZATION)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def until(url: str, is_so: Any, *, seconds: float = 20.0) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while not is_so(document := await status(url)):
        assert time.monotonic() < end, document
        await asyncio.sleep(0.3)
    return document


async def test_two_workers_are_one_document(tmp_path: Path) -> None:
    async with incident(tmp_path) as url:
        document = await until(url, lambda d: d["status"] == "degraded" and len(d["processes"]) == 2)
        assert [row["is_answering"] for row in document["processes"]] == [True, True]
        assert document["config"] == "same"
        document = await until(url, lambda d: d["providers"][2]["last_minute"]["attempts"] > 0)
        azure, openai = (row for row in document["providers"] if row["name"] in {"azure", "openai"})
        assert (azure["name"], azure["state"]) == ("azure", "open")
        assert azure["why"]["overloaded"] >= 5
        assert sum(azure["circuit_breakers"]["azure/gpt5mini"]["processes"].values()) == 2
        assert openai["last_minute"]["attempts"] > 0
        assert {problem["name"] for problem in document["problems"]} == {"azure", "eu"}
        assert document["errors"][0]["message"]
        assert any(event["after"] == "open" for event in document["events"])
        checkout = next(row for row in document["tenants"] if row["name"] == "checkout")
        assert {(row["unit"], row["limit"]) for row in checkout["limits"]} == {
            ("requests", 600), ("tokens", 200_000), ("concurrency", 20), ("spend", 100),
        }  # fmt: skip
        spent = await until(url, lambda d: Decimal(d["spend_today"]["usd"]) > 0)
        assert spent["spend_today"]["is_complete"]


async def test_replicas_on_one_redis_are_one_document(tmp_path: Path, shared_redis: RedisProcess) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    uri = f"{shared_redis.uri}/7"
    async with incident(one, GATEWAY_STORAGE_URI=uri, GATEWAY_REPLICAS="2") as url:
        async with incident(other, GATEWAY_STORAGE_URI=uri, GATEWAY_REPLICAS="2"):
            document = await until(url, lambda d: sum(row["is_answering"] for row in d["processes"]) == 4)
            assert document["stores"] == ["shared"]
            assert document["config"] == "differs"  # their simulators have addresses of their own
            checkout = next(row for row in document["tenants"] if row["name"] == "checkout")
            assert {row["limit"] for row in checkout["limits"]} == {600, 200_000, 20, 100}
            events = (await until(url, lambda d: d["spend_today"]["events"] > 5))["spend_today"]
            assert events["is_complete"]


async def test_it_is_asked_once_a_second_however_many_ask() -> None:
    rig = Rig()
    first, *others = await asyncio.gather(
        *(drive(rig.gateway, path="/v1/admin/status", headers=RIGHT) for _ in range(9))
    )
    assert {answer.body for answer in others} == {first.body}
    rig.clock.advance(1.0)
    assert (await drive(rig.gateway, path="/v1/admin/status", headers=RIGHT)).body != first.body


async def test_secrets_and_long_texts_do_not_get_into_it() -> None:
    rig = Rig()
    rig.scripts["a"] = failing(500, "sk-secret-of-a " + 9000 * "x")
    await rig.call(model="a/m")
    answer = await drive(rig.gateway, path="/v1/admin/status", headers=RIGHT)
    error = answer.json()["errors"][0]
    assert (error["deployment"], error["error_class"], error["status"]) == ("a/m", "server_error", 500)
    assert b"sk-secret" not in answer.body
    assert len(answer.body) < 12_000


async def test_a_caller_who_leaves_takes_nothing_from_the_others() -> None:
    rig = Rig()
    leaving = asyncio.create_task(drive(rig.gateway, path="/v1/admin/status", headers=RIGHT))
    staying = asyncio.create_task(drive(rig.gateway, path="/v1/admin/status", headers=RIGHT))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).status == 200


async def test_livez_is_healthz() -> None:
    rig = Rig()
    assert await rig.get("/livez") == await rig.get("/healthz") == {"status": "ok"}
