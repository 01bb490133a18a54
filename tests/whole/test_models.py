"""`/v1/models`: routes with what is known of them; without routes, what the providers list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway_middleware.core.errors import UpstreamConnectError
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from rig import Rig, answering, failing
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio

ROUTES = {
    "smart": {"to": ["openai/gpt-5", "anthropic/claude-sonnet-4-5"]},
    "old": {"to": ["openai/gpt-4o"], "sunset": "2027-01-31", "successor": "smart"},
    "mine": {"to": ["openai/house-model"]},
}
MODELS = {"house-model": {"context_window": 9000, "max_output_tokens": 700, "display_name": "Ours"}}
LIST = json.dumps({"data": [{"id": "gpt-5", "created": 9}, {"id": "house", "context_length": 4096}]}).encode()


@pytest.fixture
async def simulator() -> AsyncIterator[str]:
    async with Simulator().serve() as running:
        yield running.url


def listing(body: bytes = LIST, **more: Any) -> Rig:
    """Providers, and no route."""
    rig = Rig(GATEWAY_ROUTES="{}", **more)
    rig.scripts = {"a": answering(body), "b": answering(b'{"data":[]}'), "c": failing(500), "x": failing(404)}
    return rig


async def ids(rig: Rig) -> list[str]:
    return [model["id"] for model in (await rig.get("/v1/models"))["data"]]


async def settled() -> None:
    """What was begun in the background is over."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_sdks_read_what_is_known_of_routes(simulator: str) -> None:
    environment = {"GATEWAY_ROUTES": json.dumps(ROUTES), "GATEWAY_MODELS": json.dumps(MODELS)}
    async with gateway_for(simulator, **environment) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            models = {model.id: model async for model in client.models.list()}
            one = await client.models.retrieve("mine")
        async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY) as claude:
            theirs = {model.id: model async for model in claude.models.list(limit=1000)}
    assert set(models) == set(theirs) == set(ROUTES)
    smart = models["smart"].model_extra or {}
    assert (smart["context_window"], smart["max_output_tokens"]) == (200_000, 64_000)
    assert float(smart["pricing"]["output"]) == 15
    assert (models["old"].shutdown_date, (models["old"].model_extra or {})["successor"]) == ("2027-01-31", "smart")
    extra = one.model_extra or {}
    assert (extra["context_window"], extra["max_output_tokens"], "pricing" in extra) == (9000, 700, False)
    assert (theirs["mine"].max_input_tokens, theirs["mine"].max_tokens, theirs["mine"].display_name) == (
        9000, 700, "Ours",
    )  # fmt: skip
    assert theirs["old"].retires_at is not None
    assert theirs["smart"].lifecycle == "active"


async def test_answers_of_a_route_that_ends_say_so(simulator: str) -> None:
    async with gateway_for(simulator, GATEWAY_ROUTES=json.dumps(ROUTES)) as url, httpx.AsyncClient() as client:
        sent = {"authorization": f"Bearer {KEY}"}
        body: dict[str, Any] = {"model": "old", "messages": [{"role": "user", "content": "hi"}]}
        good = await client.post(f"{url}/v1/chat/completions", json=body, headers=sent)
        bad = await client.post(f"{url}/v1/chat/completions", json=body | {"messages": 3}, headers=sent)
        other = await client.post(f"{url}/v1/chat/completions", json=body | {"model": "smart"}, headers=sent)
        metrics = (await client.get(f"{url}/metrics")).text
    for answer in (good, bad):
        assert answer.headers["deprecation"] == "@1801353600"
        assert answer.headers["sunset"] == "Sun, 31 Jan 2027 00:00:00 GMT"
        assert answer.headers["x-gateway-successor"] == "smart"
    assert not {"deprecation", "sunset"} & set(other.headers)
    assert 'model_gateway_route_sunset_timestamp_seconds{model="old"} 1.8013536e+09' in metrics


async def test_without_routes_providers_are_asked(simulator: str) -> None:
    async with gateway_for(simulator) as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        models = {model.id: model async for model in client.models.list()}
        one = await client.models.retrieve("claude-sonnet-4-5")
    assert {"gpt-5", "claude-sonnet-4-5"} <= set(models)
    assert (models["gpt-5"].owned_by, models["gpt-5"].created) == ("openai", 1_750_000_000)
    assert (models["claude-sonnet-4-5"].owned_by, one.id) == ("anthropic", "claude-sonnet-4-5")


@pytest.mark.parametrize("name", ["..%2f..%2fadmin", "a%2f%2fb", "%20a", "%F0%9F%98%80", "m" * 9000])
async def test_a_name_that_no_model_can_have_is_none(simulator: str, name: str) -> None:
    async with gateway_for(simulator) as url, httpx.AsyncClient(headers={"x-api-key": KEY}) as client:
        answer = await client.get(f"{url}/v1/models/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert len(answer.content) < 600


async def test_a_list_is_asked_for_once_and_again_after_five_minutes() -> None:
    rig = listing()
    answers = await asyncio.gather(*(ids(rig) for _ in range(50)))
    assert all(answer == ["gpt-5", "house"] for answer in answers)
    assert (rig.calls["a"], rig.calls["b"]) == (1, 1)
    rig.clock.advance(299)
    await ids(rig)
    assert rig.calls["a"] == 1
    rig.clock.advance(2)
    rig.scripts["a"] = answering(b'{"data":[{"id":"newer"}]}')
    assert await ids(rig) == ["gpt-5", "house"]
    await settled()
    assert (await ids(rig), rig.calls["a"]) == (["newer"], 2)


async def test_an_outage_leaves_the_old_list_and_is_not_asked_about_all_the_time() -> None:
    rig = listing()
    await ids(rig)
    rig.clock.advance(301)
    rig.scripts["a"] = lambda _: UpstreamConnectError("away")
    for _ in range(3):
        assert await ids(rig) == ["gpt-5", "house"]
        await settled()
    assert rig.calls["a"] == 2
    failed = [line for line in rig.lines("model_list_failed") if line["provider"] == "a"]
    assert [line["reason"] for line in failed] == ["UpstreamConnectError"]
    assert "sk-secret" not in rig.log.raw.decode()


@pytest.mark.parametrize("body", [b"<html>", b'{"data":' + b"[" * 9000, b'{"data": [{"id": "../etc"}]}'])
async def test_what_is_no_list_is_none(body: bytes) -> None:
    assert await ids(listing(body)) == []


async def test_a_tenant_sees_what_it_may_call() -> None:
    tenants = {"acme": {"keys": [digest(KEY.encode())], "models": ["gpt-*", "b/*"]}}
    rig = listing(GATEWAY_OPEN="false", GATEWAY_TENANTS=json.dumps(tenants))
    rig.scripts["b"] = answering(b'{"data":[{"id":"gpt-5"},{"id":"small"}]}')
    answer = await rig.call(path="/v1/models")  # a POST: refused, and nothing is asked
    assert answer.status == 405
    seen = await get_as_tenant(rig)
    assert seen == ["gpt-5", "b/gpt-5", "b/small"]


async def test_residency_holds_for_the_list() -> None:
    providers = json.loads(Rig().environment["GATEWAY_PROVIDERS"])
    providers["b"]["labels"] = {"region": "eu"}
    tenants = {"acme": {"keys": [digest(KEY.encode())], "require": {"region": "eu"}}}
    rig = listing(GATEWAY_OPEN="false", GATEWAY_TENANTS=json.dumps(tenants), GATEWAY_PROVIDERS=json.dumps(providers))
    rig.scripts["b"] = answering(b'{"data":[{"id":"european"}]}')
    assert await get_as_tenant(rig) == ["european"]


async def get_as_tenant(rig: Rig) -> list[str]:
    transport = httpx.ASGITransport(app=rig.gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        answer = await client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
    return [model["id"] for model in answer.json()["data"]]


async def test_another_credential_is_another_list() -> None:
    rig = listing()
    await ids(rig)
    providers = json.loads(rig.environment["GATEWAY_PROVIDERS"])
    providers["a"]["api_key"] = "sk-another-secret-of-a"
    rig.environment["GATEWAY_PROVIDERS"] = json.dumps(providers)
    assert (await rig.post("/v1/admin/reload")).status == 200
    rig.scripts["a"] = answering(b'{"data":[]}')
    assert (await ids(rig), rig.calls["a"], rig.calls["b"]) == ([], 2, 1)


async def test_with_routes_no_provider_is_asked() -> None:
    rig = Rig()
    assert await ids(rig) == ["fast"]
    assert not rig.calls
