"""Any replica tells what a call has used: two servers with journals of their own, one Redis, one sink."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector
from redis_process import RedisProcess
from running import KEY, gateway_for
from server_process import ADMIN, OTHER, Server, until

pytestmark = pytest.mark.anyio
ASK: Any = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
PRICES = '{"openai/gpt-4o-mini": {"input": "0.15", "output": "0.6"}}'


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        yield simulator.url


async def call(server: Server, request_id: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": request_id}
        answer = await client.post(f"{server.url}/v1/chat/completions", headers=headers, json=ASK)
        assert answer.status_code == 200
        return answer


async def test_what_one_server_has_taken_and_delivered_the_other_one_tells(
    tmp_path: Path, upstream: str, own_redis: RedisProcess
) -> None:
    async with Collector().serve() as sink:
        shared = {
            "GATEWAY_STORAGE_URI": own_redis.uri,
            "GATEWAY_PRICES": PRICES,
            "GATEWAY_USAGE_METERING_URL": f"{sink.url}/events",
        }
        one, other = (Server(tmp_path / name, upstream, **shared) for name in ("one", "other"))
        with one.run(), other.run():
            for server in (one, other):
                await until(server.is_ready, 60.0)
            answer = await call(one, "mine")

            async def is_told() -> bool:
                return (await other.ask("GET", "/v1/usage/mine")).status_code == 200

            await until(is_told, 10.0)

            async def is_delivered() -> bool:
                return len(sink.collector.events) == 1

            await until(is_delivered, 10.0)
            told = [(await server.ask("GET", "/v1/usage/mine", key)).json() for server in (one, other)
                    for key in (KEY, ADMIN)]  # fmt: skip
            assert all(document == told[0] for document in told)
            assert told[0]["cost"] == answer.headers["x-gateway-cost"]
            assert told[0]["attempts"][0]["id"] == sink.collector.events[0].id
            for server in (one, other):
                refused = await server.ask("GET", "/v1/usage/mine", OTHER)
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_here")
            # Redis leaves: nobody knows any more, and nobody fails.
            own_redis.kill()
            lost = [await server.ask("GET", "/v1/usage/mine") for server in (one, other)]
            assert [answer.status_code for answer in lost] == [404, 404]


async def test_while_redis_is_away_the_journal_answers(tmp_path: Path, upstream: str, own_redis: RedisProcess) -> None:
    chosen = {"GATEWAY_STORAGE_URI": own_redis.uri, "GATEWAY_JOURNAL": str(tmp_path / "journal.db")}
    async with gateway_for(upstream, **chosen) as url:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": "r1"}
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers=headers, timeout=30) as client:
            for stop, go_on in ((own_redis.freeze, own_redis.thaw), (own_redis.kill, own_redis.start)):
                stop()
                assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
                assert (await client.get("/v1/usage/r1")).status_code == 200
                assert (await client.get("/v1/usage/r2")).status_code == 404
                go_on()


async def test_an_index_that_is_off_is_not_asked(tmp_path: Path, upstream: str, own_redis: RedisProcess) -> None:
    chosen = {
        "GATEWAY_STORAGE_URI": own_redis.uri,
        "GATEWAY_JOURNAL": str(tmp_path / "journal.db"),
        "GATEWAY_USAGE_INDEX_SECONDS": "0",
    }
    async with gateway_for(upstream, **chosen) as url:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": "r1"}
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers=headers, timeout=30) as client:
            assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
            assert (await client.get("/v1/usage/r1")).status_code == 200
    assert own_redis.command("EVAL", "return #redis.call('KEYS', 'gateway:{calls:*')", "0") == b":0"


async def by_worker(server: Server, stack: AsyncExitStack) -> list[httpx.AsyncClient]:
    """A client for each of two workers: what is sent by it comes to that worker."""
    clients: dict[int, httpx.AsyncClient] = {}
    headers = {"authorization": f"Bearer {KEY}"}
    while len(clients) < 2:
        client = httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=15, headers=headers)
        await stack.enter_async_context(client)
        clients.setdefault((await client.get("/v1/health")).json()["fleet"]["processes"][0]["pid"], client)
    return list(clients.values())


@pytest.mark.parametrize("keeper", ["process", "thread"])
async def test_what_one_worker_has_answered_the_other_one_tells_at_once(
    keeper: str, tmp_path: Path, upstream: str
) -> None:
    server = Server(tmp_path, upstream, GATEWAY_WORKERS="2", GATEWAY_PRICES=PRICES, GATEWAY_KEEPER=keeper)
    with server.run():
        await server.wait_for(2, workers=2)
        async with AsyncExitStack() as stack:
            one, other = await by_worker(server, stack)
            for number in range(1, 6):
                answer = await one.post("/v1/chat/completions", json=ASK)
                told = await other.get(f"/v1/usage/{answer.headers['x-request-id']}")
                assert told.json()["cost"] == answer.headers["x-gateway-cost"]
                await one.post("/v1/chat/completions", json=ASK)
                used = (await other.get("/v1/usage")).json()["usage"]["today"]
                assert [day["closed"] for day in used] == [2 * number]
            assert (await other.get("/v1/usage/nobodys")).status_code == 404
