"""Failover over real sockets: official SDKs in front, providers that misbehave behind; several replicas on Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anthropic
import httpx
import openai
import pytest

from gateway_middleware.simulator import Behaviour, Server, Simulator
from redis_process import RedisProcess
from running import KEY, LogLines, gateway_for

pytestmark = pytest.mark.anyio
ASK: Any = [{"role": "user", "content": "hello"}]
ADMIN = "an-admin-token-of-some-length"
ADMIN_HEADERS = {"authorization": f"Bearer {ADMIN}"}
TENANT_HEADERS = {"authorization": f"Bearer {KEY}"}


@asynccontextmanager
async def pair(**extra: str) -> AsyncIterator[tuple[str, Server, Server]]:
    """A gateway with a primary and a backup of every kind: its URL, both simulators."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Simulator().serve())
        backup = await stack.enter_async_context(Simulator().serve())
        url = await stack.enter_async_context(gateway_for(primary.url, **settings_for(backup.url), **extra))
        yield url, primary, backup


def settings_for(backup: str) -> dict[str, str]:
    providers = {
        "backup": {"kind": "openai", "base_url": f"{backup}/v1", "api_key": "sk-backup"},
        "claude2": {"kind": "anthropic", "base_url": backup, "api_key": "sk-backup"},
        "azure2": {"kind": "azure_openai", "base_url": backup, "api_key": "sk-backup"},
    }
    routes = {
        "fast": ["openai/gpt", "backup/gpt"],
        "claude": ["anthropic/claude", "claude2/claude"],
        "deployed": ["azure/gpt", "azure2/gpt"],
        "alone": "openai/gpt",
    }
    return {
        "GATEWAY_PROVIDERS": json.dumps(providers),
        "GATEWAY_ROUTES": json.dumps(routes),
        "GATEWAY_ADMIN_TOKEN": ADMIN,
    }


FAULTS = [
    Behaviour(status=503),
    Behaviour(error_after=0),
    Behaviour(error_after=-1),
    Behaviour(fault="reset"),
    Behaviour(fault="close"),
    Behaviour(fault="html"),
    Behaviour(fault="garbage"),
    Behaviour(eof_after=0),
    Behaviour(truncate_after=0),
    Behaviour(status=429, retry_after=5),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic", "azure"])
async def test_the_sdk_sees_one_clean_stream_from_the_backup(fault: Behaviour, dialect: str) -> None:
    async with pair() as (url, primary, backup):
        primary.simulator.behave(fault)
        text = await STREAMS[dialect](url)

        assert "hello" in text
        assert len(primary.simulator.requests) == 1
        assert len(backup.simulator.requests) == 1


async def chat_stream(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        return await _chat_text(client, "fast")


async def azure_stream(url: str) -> str:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        return await _chat_text(client, "deployed")


async def _chat_text(client: openai.AsyncOpenAI, model: str) -> str:
    stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
    roles, texts = 0, []
    async for chunk in stream:
        for choice in chunk.choices:
            roles += choice.delta.role is not None
            texts.append(choice.delta.content or "")
    assert roles == 1, "exactly one beginning"
    return "".join(texts)


async def responses_stream(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        events = [e async for e in await client.responses.create(model="fast", input="hello", stream=True)]
    assert [e.type for e in events].count("response.created") == 1
    assert events[-1].type == "response.completed"
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


async def messages_stream(url: str) -> str:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        stream = await client.messages.create(model="claude", messages=ASK, max_tokens=99, stream=True)
        events = [event async for event in stream]
    assert [e.type for e in events].count("message_start") == 1
    assert events[-1].type == "message_stop"
    return "".join(getattr(e.delta, "text", "") for e in events if e.type == "content_block_delta")


STREAMS = {
    "openai": chat_stream,
    "responses": responses_stream,
    "anthropic": messages_stream,
    "azure": azure_stream,
}


async def test_cb10_silence_is_cut_at_the_deadline_and_the_socket_closed() -> None:
    deadlines = {"first_byte": 0.3, "first_content": 0.3, "answer": 0.3}
    asked = [("sim-stall", True), ("sim-stall", False), ("sim-pings-50:gap-20", True)]
    async with Simulator().serve() as simulator:
        provider = {"kind": "openai", "base_url": f"{simulator.url}/v1", "api_key": "sk", "timeouts": deadlines}
        async with gateway_for(simulator.url, GATEWAY_PROVIDERS=json.dumps({"slow": provider})) as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False, headers=TENANT_HEADERS) as client:
                for model, stream in asked:
                    started = time.monotonic()
                    body = {"model": f"slow/{model}", "messages": ASK, "stream": stream}
                    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                        text = (await answer.aread()).decode()
                    assert "upstream_timeout" in text
                    assert time.monotonic() - started >= 0.25
        deadline = time.monotonic() + 10
        while simulator.simulator.counters.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert simulator.simulator.counters.in_flight == 0


async def test_cb24_an_sdk_that_retries_does_not_multiply_the_calls() -> None:
    async with pair() as (url, primary, _):
        primary.simulator.behave(Behaviour(status=500))
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=2) as client:
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(model="alone", messages=ASK)
        assert len(primary.simulator.requests) == 3


async def test_st8_a_silent_provider_is_bridged_with_pings() -> None:
    provider = {"kind": "anthropic", "api_key": "sk", "timeouts": {"heartbeat": 0.05}}
    async with Simulator().serve() as simulator:
        providers = json.dumps({
            "quiet": {**provider, "base_url": simulator.url},
            "chatty": {**provider, "kind": "openai", "base_url": f"{simulator.url}/v1"},
        })  # fmt: skip
        async with gateway_for(simulator.url, GATEWAY_PROVIDERS=providers) as url:
            async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as claude:
                stream = await claude.messages.create(
                    model="quiet/sim-lag-400", messages=ASK, max_tokens=9, stream=True
                )
                kinds = [event.type async for event in stream]
            async with httpx.AsyncClient(base_url=url, trust_env=False, headers=TENANT_HEADERS) as client:
                body = {"model": "chatty/sim-gap-200:length-3", "messages": ASK, "stream": True}
                raw = (await client.post("/v1/chat/completions", json=body)).content
    assert kinds[-1] == "message_stop"
    assert raw.count(b": ping\n\n") >= 4
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_st13_a_request_that_was_read_is_not_repeated_at_the_same_deployment() -> None:
    async with pair() as (url, primary, _):
        primary.simulator.behave(Behaviour(fault="close"))
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers=TENANT_HEADERS) as client:
            answer = await client.post("/v1/chat/completions", json={"model": "alone", "messages": ASK})
        assert answer.status_code == 502
        assert len(primary.simulator.requests) == 1


async def test_st3_a_client_that_leaves_in_backoff_ends_the_call() -> None:
    log = LogLines()
    async with pair() as (url, primary, _):
        primary.simulator.behave(Behaviour(status=503, retry_after=2))
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers=TENANT_HEADERS) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/chat/completions", json={"model": "alone", "messages": ASK}, timeout=0.3)
        await asyncio.sleep(2.2)
        assert len(primary.simulator.requests) == 1
    assert log.raw == b""


# Several replicas on one Redis.


@pytest.fixture
def redis(own_redis: RedisProcess) -> RedisProcess:
    return own_redis


@asynccontextmanager
async def fleet(redis: RedisProcess, **extra: str) -> AsyncIterator[tuple[list[httpx.AsyncClient], Server]]:
    """Three gateways on one Redis in front of one provider."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Simulator().serve())
        breaker = {"kind": "openai", "base_url": f"{primary.url}/v1", "api_key": "sk", "breaker": {"open_base": 1.0}}
        chosen = {
            "GATEWAY_PROVIDERS": json.dumps({"p": breaker}),
            "GATEWAY_ROUTES": '{"fast": {"to": "p/gpt", "max_attempts": 1}}',
            "GATEWAY_ADMIN_TOKEN": ADMIN,
            "GATEWAY_STORAGE_URI": redis.uri,
            **extra,
        }
        clients = []
        for _ in range(3):
            url = await stack.enter_async_context(gateway_for(primary.url, **chosen))
            client = httpx.AsyncClient(base_url=url, trust_env=False, headers=TENANT_HEADERS)
            clients.append(await stack.enter_async_context(client))
        await _until(lambda: _replicas(clients), 3)
        yield clients, primary


async def _replicas(clients: list[httpx.AsyncClient]) -> int:
    healths = [(await client.get("/v1/health")).json()["sharing"] for client in clients]
    return min(health["replicas"] if health["mode"] == "shared" else 0 for health in healths)


async def _until(read: Any, expected: Any, seconds: float = 20.0) -> float:
    """Wait until a reading is as expected; how long that took."""
    started = time.monotonic()
    while (found := await read()) != expected:
        assert time.monotonic() - started < seconds, found
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def _call(client: httpx.AsyncClient) -> int:
    answer = await client.post("/v1/chat/completions", json={"model": "fast", "messages": ASK, "user": uuid4().hex})
    return answer.status_code


async def _states(clients: list[httpx.AsyncClient]) -> set[str]:
    rows = [(await c.get("/v1/health")).json()["circuit_breakers"]["p"] for c in clients]
    return {row["deployments"]["p/gpt"]["state"] for row in rows}


async def test_cb20_reset_and_force_reach_all_replicas(redis: RedisProcess) -> None:
    async with fleet(redis) as (clients, primary):
        for command, state in [("force-open", "forced_open"), ("force-close", "forced_closed"), ("reset", "closed")]:
            answer = await clients[0].post(f"/v1/admin/circuit-breakers/p/gpt/{command}", headers=ADMIN_HEADERS)
            assert answer.json()["is_shared"] is True
            await _until(lambda: _states(clients), {state})
        refused = await clients[0].post("/v1/admin/circuit-breakers/p/reset")
        assert refused.status_code == 403
        assert not primary.simulator.requests


async def test_a_cooldown_is_known_to_all_replicas(redis: RedisProcess) -> None:
    async with fleet(redis) as (clients, primary):
        primary.simulator.behave(Behaviour(status=429, retry_after=30))
        assert await _call(clients[0]) == 429
        await _until(lambda: _call(clients[2]), 503)
        assert len(primary.simulator.requests) <= 3
        await clients[1].post("/v1/admin/circuit-breakers/p/reset", headers=ADMIN_HEADERS)
        primary.simulator.behave(Behaviour())
        await _until(lambda: _call(clients[2]), 200)


async def test_cb15_one_probe_in_the_whole_fleet(redis: RedisProcess) -> None:
    async with fleet(redis) as (clients, primary):
        primary.simulator.behave(Behaviour(status=500))
        for client in clients:
            for _ in range(5):
                await _call(client)
        assert await _states(clients) == {"open"}
        before = len(primary.simulator.requests)
        primary.simulator.behave(Behaviour(ttft=0.3))
        primary.simulator.counters.max_in_flight = 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and await _states(clients) != {"closed"}:
            await asyncio.gather(*(_call(client) for client in clients for _ in range(8)))
            if len(primary.simulator.requests) - before < 3:
                assert primary.simulator.counters.max_in_flight <= 1
        assert await _states(clients) == {"closed"}


async def test_cb16_the_probe_of_a_killed_replica_comes_back(redis: RedisProcess, tmp_path: Path) -> None:
    """A process holds the probe and dies by kill -9; another replica probes once the lease has run out."""
    async with fleet(redis) as (clients, primary):
        primary.simulator.behave(Behaviour(status=500))
        for client in clients:
            for _ in range(5):
                await _call(client)
        holder = subprocess.Popen([sys.executable, "-c", _HOLDER, redis.uri, "p/gpt"], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        primary.simulator.behave(Behaviour())
        before = len(primary.simulator.requests)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
        killed = time.monotonic()
        while len(primary.simulator.requests) == before:
            assert time.monotonic() - killed < 20
            for client in clients:
                await _call(client)
            await asyncio.sleep(0.02)
        while await _states(clients) != {"closed"}:
            assert time.monotonic() - killed < 30
            for client in clients:
                await _call(client)


_HOLDER = """
import asyncio, sys, time
from gateway_middleware.breaker.peers.peers import Peers
from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
from gateway_middleware.redis.connect import redis_caller
async def main():
    leases = ProbeLeases(time.monotonic)
    peers = Peers(redis_caller(sys.argv[1]), leases=leases, handler=None, clock=time.monotonic, wall=time.time)
    async with peers.lifespan():
        while not leases.may_probe(sys.argv[2], 3.0) or peers.snapshot().mode != "shared":
            await asyncio.sleep(0.02)
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_redis_that_dies_leaves_every_replica_on_its_own(redis: RedisProcess) -> None:
    async with fleet(redis) as (clients, primary):
        redis.kill()
        assert [await _call(client) for client in clients] == [200, 200, 200]
        answer = await clients[0].post("/v1/admin/circuit-breakers/p/force-open", headers=ADMIN_HEADERS)
        assert (answer.status_code, answer.json()["is_shared"]) == (200, False)
        assert await _call(clients[0]) == 503
        assert await _call(clients[1]) == 200
        assert len(primary.simulator.requests) == 4
