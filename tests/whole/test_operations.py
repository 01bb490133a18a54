"""What the on-call and the scraper see of a running gateway."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from asgi_driver import drive
from gateway_middleware import Gateway, Settings, __version__
from gateway_middleware.simulator import Simulator
from rig import GOOD, JSON, Rig, failing
from running import KEY, LogLines, environment, gateway_for
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
AUTH = {"authorization": f"Bearer {KEY}"}
ASK = {"messages": [{"role": "user", "content": "x"}]}
LOG = LogLines()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    LOG.raw = b""
    async with Simulator().serve() as simulator:
        async with gateway_for(
            simulator.url, {"write_log": LOG}, GATEWAY_ROUTES='{"fast": ["openai/gpt-5-mini"]}',
            GATEWAY_METRICS_TOKEN="operators-only-please", GATEWAY_MAX_ATTEMPTS="1",
        ) as url:  # fmt: skip
            async with httpx.AsyncClient(base_url=url, trust_env=False) as found:
                yield found


async def test_open_endpoints_need_no_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).status_code == 200
    health = (await client.get("/v1/health")).json()
    assert (health["status"], health["version"]) == ("ok", __version__)
    assert set(health["circuit_breakers"]) == {"openai", "anthropic", "azure"}
    assert "acme" not in str(health)
    providers = (await client.get("/v1/providers")).json()["providers"]
    assert {p["name"]: p["kind"] for p in providers} == {
        "openai": "openai", "anthropic": "anthropic", "azure": "azure_openai",
    }  # fmt: skip


async def test_the_status_of_a_provider_has_the_last_minute(client: httpx.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json={"model": "fast", **ASK}, headers=AUTH)
    await client.post("/v1/chat/completions", json={"model": "openai/sim-status-500", **ASK}, headers=AUTH)

    status = (await client.get("/v1/providers/openai/status")).json()

    assert status["last_minute"]["attempts"] == 2
    assert status["last_minute"]["error_rate"] == 0.5
    assert status["deployments"]["openai/gpt-5-mini"]["last_minute"]["attempts"] == 1
    assert status["settings"]["timeouts"]["connect"] == 5
    assert status["settings"]["circuit_breaker"]["consecutive"] == 5
    assert (await client.get("/v1/providers/nobody/status")).status_code == 404


async def test_metrics_need_their_token_and_count_what_was_done(client: httpx.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json={"model": "fast", **ASK}, headers=AUTH)
    await client.post("/v1/chat/completions", json={"model": "fast", "stream": True, **ASK}, headers=AUTH)

    assert (await client.get("/metrics")).status_code == 401
    assert (await client.get("/metrics", headers=AUTH)).status_code == 403
    scraped = await client.get("/metrics", headers={"authorization": "Bearer operators-only-please"})

    families = {family.name: family for family in text_string_to_metric_families(scraped.text)}
    samples = {s.labels["outcome"]: s.value for s in families["model_gateway_requests"].samples}
    assert samples == {"success": 2.0}
    assert families["model_gateway_time_to_first_token_seconds"].samples
    assert {s.labels["tenant"] for s in families["model_gateway_tokens"].samples} == {"acme"}
    assert _value(families, "model_gateway_log_lines_dropped") == 0
    assert families["model_gateway_build_info"].samples[0].labels["version"] == __version__


@pytest.mark.own_engine("a transport has metrics of its own")
async def test_metrics_count_the_connections_to_providers(client: httpx.AsyncClient) -> None:
    for is_stream in (False, True):
        await client.post("/v1/chat/completions", json={"model": "fast", "stream": is_stream, **ASK}, headers=AUTH)
    scraped = await client.get("/metrics", headers={"authorization": "Bearer operators-only-please"})

    families = {family.name: family for family in text_string_to_metric_families(scraped.text)}
    assert _value(families, "model_gateway_upstream_connections_opened") == 1
    assert _value(families, "model_gateway_upstream_connections_reused") == 1
    assert _value(families, "model_gateway_upstream_connections_idle") == 1
    assert _value(families, "process_resident_memory_bytes") > 1e6


async def test_log_lines_that_were_lost_are_a_metric() -> None:
    def broken(_: bytes) -> None:
        raise OSError("no space left")

    gateway = Gateway(Settings.from_env(environment("http://127.0.0.1:9")), write_log=broken)
    async with gateway.lifespan():
        await drive(gateway, path="/v1/nothing")
        gateway.log.lines.flush()
        text = (await drive(gateway, path="/metrics")).body.decode()
    assert "model_gateway_log_lines_dropped_total 1.0" in text


def _value(families: dict[str, Metric], name: str) -> float:
    (sample,) = families[name].samples
    return sample.value


async def test_a_provider_failure_is_a_log_line_to_grep_for(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", json={"model": "openai/sim-status-503", **ASK}, headers=AUTH)
    await client.aclose()

    await asyncio.sleep(0.1)
    lines = [line for line in LOG.raw.splitlines() if b"Provider error" in line]
    assert len(lines) == 1
    assert answer.headers["x-request-id"].encode() in lines[0]
    assert b"sk-upstream" not in LOG.raw


async def test_every_answer_says_where_it_came_from(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/chat/completions", json={"model": "fast", **ASK}, headers={**AUTH, "x-request-id": "mine-1"}
    )

    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-gateway-deployment"] == "openai/gpt-5-mini"
    assert answer.headers["x-gateway-attempts"].startswith("openai;")
    assert "gateway;dur=" in answer.headers["server-timing"]
    leaked = {"set-cookie", "via", "openai-organization", "x-ratelimit-limit-requests"}
    assert not leaked & set(answer.headers)
    assert answer.headers.get("server", "uvicorn") == "uvicorn"  # who serves it, and not the provider


@pytest.mark.parametrize("model", ["gpt-5-mini", "sim-slow-30"])
async def test_calls_leave_nothing_for_the_collector(model: str) -> None:
    """Cycles pile up: in production they are collected seldom. Slow calls have a watcher, quick ones none."""
    async with Simulator(record=False).serve() as simulator, gateway_for(simulator.url) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:

            async def call() -> None:
                await client.post("/v1/chat/completions", json={"model": f"openai/{model}", **ASK}, headers=AUTH)

            for _ in range(10):
                await call()
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(30):
                    await call()
                await asyncio.sleep(0)
                gc.collect()
                ours = [o for o in gc.garbage if type(o).__module__.startswith("gateway_middleware")]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    assert ours == []


async def test_calls_under_way_are_counted_and_none_is_left_over() -> None:
    rig = Rig({"fast": "a/m"}, GATEWAY_QUEUE_SECONDS="1")
    seen: list[str] = []

    async def metric(name: str) -> str:
        text = (await drive(rig.gateway, path="/metrics")).body.decode()
        return next(line for line in text.splitlines() if line.startswith(name))

    class Looking(ScriptedAnswer):
        async def read(self, limit: int) -> bytes:
            seen.append(await metric("model_gateway_calls_in_flight"))
            return await super().read(limit)

    rig.scripts["a"] = lambda _: Looking(200, JSON, [GOOD])
    assert (await rig.call()).status == 200
    rig.scripts["a"] = failing(500)
    assert (await rig.call(headers={"host": "a b"})).status >= 400
    assert (await rig.call()).status == 500
    assert seen == ["model_gateway_calls_in_flight 2.0"], "the call, and the scrape"
    assert await metric("model_gateway_calls_in_flight") == "model_gateway_calls_in_flight 1.0"
    assert await metric("model_gateway_queue_wait_seconds_count") == "model_gateway_queue_wait_seconds_count 0.0"
