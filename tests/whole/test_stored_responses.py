"""Stored responses and compaction through a running gateway: the official SDKs, two tenants, hostile paths."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from gateway_middleware.guard.port import PASS, Guarded, Stage, Verdict
from gateway_middleware.guard.rules import GuardRule
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.simulator import Behaviour, Server, Simulator
from gateway_middleware.simulator.policy_adapter import PolicyAdapter
from gateway_middleware.tenancy.keys import digest
from gateway_middleware.upstream.engine import Engine
from redis_process import RedisProcess
from running import KEY, LogLines, gateway_for

pytestmark = pytest.mark.anyio
OTHER = "gw-tests-other-0123456789abcdef"
AZURE_ONLY = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
ROUTES = {
    "fast": ["openai/gpt-5-mini"],
    "claude": ["anthropic/claude-sonnet-4-5"],
    "blue": ["azure/gpt5mini"],
}
NOBODYS = "resp_nobodys"


def tenants(**more: Any) -> str:
    return json.dumps(
        {
            "acme": {"keys": [digest(KEY.encode())], **more},
            "other": {"keys": [digest(OTHER.encode())]},
        }
    )


@pytest.fixture
async def upstream() -> AsyncIterator[Server]:
    async with Simulator(seed=7).serve() as server:
        yield server


@pytest.fixture
async def url(upstream: Server) -> AsyncIterator[str]:
    async with gateway_for(upstream.url, GATEWAY_ROUTES=json.dumps(ROUTES), GATEWAY_TENANTS=tenants()) as found:
        yield found


def sdk(url: str, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def azure_sdk(url: str, version: str) -> openai.AsyncOpenAI:
    if version == "v1":
        return openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key=KEY, max_retries=0)
    return openai.AsyncAzureOpenAI(azure_endpoint=url, api_key=KEY, api_version=version, max_retries=0)


async def raw(url: str, method: str, path: str, key: str = KEY, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.request(method, f"{url}{path}", headers={"authorization": f"Bearer {key}"}, **options)


def wording(response_id: str) -> dict[str, Any]:
    """As OpenAI says it."""
    message = f"Response with id '{response_id}' not found."
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


# The official SDKs.


async def check_life(client: openai.AsyncOpenAI, model: str) -> None:
    """All that can be done with a response, from its making to its end."""
    made = await client.responses.create(model=model, input="Say hello", store=True)
    read = await client.responses.retrieve(made.id)
    assert read.to_dict() == made.to_dict()
    items = [item async for item in client.responses.input_items.list(made.id, limit=1, order="asc")]
    assert [item.to_dict()["content"] for item in items] == [[{"type": "input_text", "text": "Say hello"}]]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(made.id)
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.retrieve(made.id)
    assert caught.value.body == wording(made.id)["error"]


async def test_the_life_of_a_response(url: str) -> None:
    async with sdk(url) as client:
        await check_life(client, "fast")


@pytest.mark.parametrize("version", ["v1", "2025-04-01-preview"])
async def test_the_life_of_a_response_of_azure(url: str, version: str) -> None:
    async with azure_sdk(url, version) as client:
        await check_life(client, "blue")


@pytest.mark.parametrize("version", ["v1", "2025-04-01-preview"])
async def test_a_provider_of_azure_is_asked_at_its_own_addresses(upstream: Server, version: str) -> None:
    extra = {"OPENAI_API_VERSION": version, "GATEWAY_ROUTES": '{"blue": ["azure/gpt5mini"]}'}
    async with gateway_for(upstream.url, **extra) as url, sdk(url) as client:
        made = await client.responses.create(model="blue", input="Say hello")
        await client.responses.retrieve(made.id, include=["reasoning.encrypted_content"])
        await client.responses.compact(model="blue", input="Say hello")

    base, query = ("/openai/v1", "") if version == "v1" else ("/openai", f"api-version={version}")
    asked = [received.target for received in upstream.simulator.requests[1:]]
    included = "include%5B%5D=reasoning.encrypted_content"
    assert asked == [
        f"{base}/responses/{made.id}?{'&'.join(filter(None, (query, included)))}",
        f"{base}/responses/compact{query and '?'}{query}",
    ]


def test_the_synchronous_sdk() -> None:
    async def run() -> None:
        async with Simulator().serve() as server, gateway_for(server.url) as url:
            await asyncio.to_thread(_synchronous, url)

    asyncio.run(run())


def _synchronous(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        made = client.responses.create(model="gpt-5-mini", input="Say hello")
        assert client.responses.retrieve(made.id).output_text == made.output_text
        assert [item.type for item in client.responses.input_items.list(made.id)] == ["message"]
        compacted = client.responses.compact(model="gpt-5-mini", input="Say hello")
        assert compacted.output[-1].type == "compaction"
        with client.responses.retrieve(made.id, stream=True) as events:
            assert [event.type for event in events][-1] == "response.completed"
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.delete(made.id)


async def test_a_response_of_the_background_is_polled_and_cancelled(upstream: Server) -> None:
    async with gateway_for(upstream.url) as url, sdk(url) as client:
        polled = await client.responses.create(model="gpt-5-mini", input="Say hello", background=True)
        states = [(await client.responses.retrieve(polled.id)).status for _ in range(3)]
        left = await client.responses.create(model="gpt-5-mini", input="Say hello", background=True)
        cancelled = await client.responses.cancel(left.id)

    assert (polled.status, states) == ("queued", ["in_progress", "completed", "completed"])
    assert cancelled.status == (await _status(upstream, left.id)) == "cancelled"


async def _status(upstream: Server, response_id: str) -> Any:
    return (await raw(upstream.url, "GET", f"/v1/responses/{response_id}")).json()["status"]


async def test_a_stream_goes_on_after_an_event(url: str, upstream: Server) -> None:
    async with sdk(url) as client:
        stream = await client.responses.create(model="fast", input="Say hello", stream=True)
        made = [event async for event in stream]
        response_id = made[0].response.id  # type: ignore[union-attr]
        again = [event async for event in await client.responses.retrieve(response_id, stream=True)]
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=made[-3].sequence_number)

        assert [event.to_dict() for event in again] == [event.to_dict() for event in made]
        assert [event.to_dict() async for event in rest] == [event.to_dict() for event in made[-2:]]
        nothing = await client.responses.retrieve(response_id, stream=True, starting_after=made[-1].sequence_number)
        assert [event async for event in nothing] == []
    assert upstream.simulator.requests[-1].named_headers["accept"] == "text/event-stream"


async def test_events_are_relayed_byte_for_byte(url: str, upstream: Server) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    path = f"/v1/responses/{made['id']}"

    for query in ("?stream=true", "", "?include[]=reasoning.encrypted_content"):
        through, direct = await raw(url, "GET", path + query), await raw(upstream.url, "GET", path + query)
        assert (through.status_code, through.content) == (direct.status_code, direct.content)
        assert through.headers["x-gateway-provider"] == "openai"
        assert through.headers["x-request-id"]
        assert "x-gateway-cost" not in through.headers


# Whose it is.


@pytest.mark.parametrize(
    ("method", "tail"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
async def test_another_tenants_response_is_as_if_it_were_not_there(
    url: str, upstream: Server, method: str, tail: str
) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    asked = len(upstream.simulator.requests)

    foreign = await raw(url, method, f"/v1/responses/{made['id']}{tail}", OTHER)
    unknown = await raw(url, method, f"/v1/responses/{NOBODYS}{tail}", OTHER)

    assert (foreign.status_code, foreign.json()) == (404, wording(made["id"]))
    assert (unknown.status_code, unknown.json()) == (404, wording(NOBODYS))
    assert foreign.headers.keys() == unknown.headers.keys()
    assert len(upstream.simulator.requests) == asked
    assert (await raw(url, "GET", f"/v1/responses/{made['id']}")).status_code == 200


async def test_items_that_were_shown_may_be_referred_to(url: str) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    listed = (await raw(url, "GET", f"/v1/responses/{made['id']}/input_items")).json()
    reference = {"type": "item_reference", "id": listed["data"][0]["id"]}
    body = {"model": "fast", "input": [reference, {"role": "user", "content": "go on"}]}

    assert (await raw(url, "POST", "/v1/responses", json=body)).status_code == 200
    assert (await raw(url, "POST", "/v1/responses", OTHER, json=body)).status_code == 400


async def test_a_deleted_response_is_forgotten(url: str, upstream: Server) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    deleted = await raw(url, "DELETE", f"/v1/responses/{made['id']}")
    assert deleted.json() == {"id": made["id"], "object": "response", "deleted": True}
    asked = len(upstream.simulator.requests)

    assert (await raw(url, "GET", f"/v1/responses/{made['id']}")).json() == wording(made["id"])
    body = {"model": "fast", "input": "go on", "previous_response_id": made["id"]}
    assert (await raw(url, "POST", "/v1/responses", json=body)).json()["error"]["code"] == "shared_resource"
    assert len(upstream.simulator.requests) == asked


async def test_a_response_that_its_provider_has_lost(url: str, upstream: Server) -> None:
    """The provider's own words; ours until it is to be deleted, for a 404 can pass."""
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    path = f"/v1/responses/{made['id']}"
    await raw(upstream.url, "DELETE", path)

    for method in ("GET", "GET", "DELETE"):
        asked = len(upstream.simulator.requests)
        answer = await raw(url, method, path)
        assert (answer.status_code, answer.json()) == (404, wording(made["id"]))
        assert len(upstream.simulator.requests) == asked + 1
    await raw(url, "GET", path)
    assert len(upstream.simulator.requests) == asked + 1


async def test_a_missing_endpoint_of_a_provider_forgets_nothing(url: str, upstream: Server) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    path = f"/v1/responses/{made['id']}"
    upstream.simulator.behave(Behaviour(status=404), path=path, times=1)

    assert (await raw(url, "DELETE", path)).status_code == 404
    assert (await raw(url, "GET", path)).status_code == 200


async def test_what_was_not_stored_is_not_there(url: str) -> None:
    body = {"model": "fast", "input": "hello", "store": False}
    made = (await raw(url, "POST", "/v1/responses", json=body)).json()

    assert (await raw(url, "GET", f"/v1/responses/{made['id']}")).json() == wording(made["id"])


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_translated_response_is_stored_nowhere(url: str, upstream: Server, is_stream: bool) -> None:
    async with sdk(url) as client:
        if is_stream:
            events = [event async for event in await client.responses.create(model="claude", input="hi", stream=True)]
            response_id = events[-1].response.id  # type: ignore[union-attr]
        else:
            response_id = (await client.responses.create(model="claude", input="hi")).id
        asked = len(upstream.simulator.requests)
        with pytest.raises(openai.NotFoundError, match="came from a provider that has no such responses") as caught:
            await client.responses.retrieve(response_id)
        assert caught.value.code == "response_not_stored"
        with pytest.raises(openai.BadRequestError, match="stored nowhere"):
            await client.responses.create(model="fast", input="go on", previous_response_id=response_id)
    assert len(upstream.simulator.requests) == asked
    assert (await raw(url, "GET", f"/v1/responses/{response_id}", OTHER)).json() == wording(response_id)


async def test_one_tenant_alone_has_everything(upstream: Server) -> None:
    """What the gateway has not seen is asked for where responses are stored; of Azure's client at Azure."""
    made = (await raw(upstream.url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})).json()
    async with gateway_for(upstream.url) as url:
        assert (await raw(url, "GET", f"/v1/responses/{made['id']}")).json()["id"] == made["id"]
        assert (await raw(url, "GET", f"/openai/v1/responses/{made['id']}")).headers["x-gateway-provider"] == "azure"
        assert (await raw(url, "GET", f"/v1/responses/{NOBODYS}")).json() == wording(NOBODYS)


async def test_where_nobody_stores_responses(upstream: Server) -> None:
    providers = {"claude": {"kind": "anthropic", "base_url": upstream.url, "api_key": "sk"}}
    none = {"OPENAI_API_KEY": "", "AZURE_OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": "", "OPENAI_BASE_URL": "",
            "ANTHROPIC_BASE_URL": "", "AZURE_OPENAI_ENDPOINT": ""}  # fmt: skip
    async with gateway_for(upstream.url, GATEWAY_PROVIDERS=json.dumps(providers), **none) as url:
        answer = await raw(url, "GET", f"/v1/responses/{NOBODYS}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_stored")


# Hostile and broken.


@pytest.mark.parametrize(
    "path",
    [
        "/v1/responses/resp_1%2F..%2F..%2Fmodels",
        "/v1/responses/..%2Fmodels",
        "/v1/responses/%2e%2e",
        "/v1/responses/%2e",
        "/v1/responses/resp_1%3Fstream=true",
        "/v1/responses/resp_1%23x",
        "/v1/responses/resp_1%252F..",
        "/v1/responses/resp%0d%0ax-evil:%201",
        "/v1/responses/resp_%00",
        "/v1/responses/resp_%ff",
        "/v1/responses/résp",
        "/v1/responses/resp 1",
        "/v1/responses/" + "r" * 5000,
        "/v1/responses/resp_1/input_items/x",
        "/v1/responses//input_items",
        "/v1/responses/",
        "/openai/v1/responses/..%2f..%2fmodels/cancel",
    ],
)
async def test_no_path_leads_elsewhere(upstream: Server, path: str) -> None:
    async with gateway_for(upstream.url) as url:
        method = "POST" if path.endswith("cancel") else "GET"
        answer = await raw(url, method, path)

    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.content) < 1000
    assert not upstream.simulator.requests


@pytest.mark.parametrize(
    ("method", "tail", "allow"),
    [
        ("HEAD", "resp_1", "GET, DELETE"),
        ("PUT", "resp_1", "GET, DELETE"),
        ("POST", "resp_1", "GET, DELETE"),
        ("GET", "resp_1/cancel", "POST"),
        ("POST", "resp_1/input_items", "GET"),
        ("GET", "compact", "POST"),
        ("DELETE", "compact", "POST"),
    ],
)
async def test_other_methods(url: str, method: str, tail: str, allow: str) -> None:
    answer = await raw(url, method, f"/v1/responses/{tail}")

    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_only_known_parameters_go_on(url: str, upstream: Server) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    path = f"/v1/responses/{made['id']}"
    await raw(url, "GET", f"{path}?include[]=a%26b&include=c&api-version=2020-01-01&host=evil&limit=3&starting_after=0")
    await raw(url, "GET", f"{path}/input_items?after=x%26api-version%3D1&limit=3&order=asc&stream=true")
    await raw(url, "POST", f"{path}/cancel?stream=true")
    await raw(url, "DELETE", f"{path}?include=x")

    assert [received.target.partition("?")[2] for received in upstream.simulator.requests[1:]] == [
        "include%5B%5D=a%26b&include=c&starting_after=0",
        "after=x%26api-version%3D1&limit=3&order=asc",
        "",
        "",
    ]
    for query in ("x=" + "y" * 5000, "&".join(["limit=1"] * 100)):
        assert (await raw(url, "GET", f"{path}?{query}")).status_code == 400


async def test_a_body_goes_nowhere(url: str, upstream: Server) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    path = f"/v1/responses/{made['id']}"
    assert (await raw(url, "GET", path, content=b'{"model": "x"}')).status_code == 200
    assert (await raw(url, "DELETE", path, content=b"not json")).status_code == 200

    for received in upstream.simulator.requests[1:]:
        assert received.body == b""
        assert "content-type" not in received.named_headers
        assert received.named_headers["authorization"] == "Bearer sk-upstream-openai"


async def test_a_client_that_leaves_a_stream(url: str, upstream: Server) -> None:
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    upstream.simulator.behave(Behaviour(gap=0.05, stall_after=3), path=f"/v1/responses/{made['id']}")
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
        async with client.stream("GET", f"{url}/v1/responses/{made['id']}?stream=true") as answer:
            await anext(answer.aiter_bytes())
        async with asyncio.timeout(10):
            while upstream.simulator.counters.in_flight:
                await asyncio.sleep(0.01)
    assert upstream.simulator.counters.peer_closed == 1


async def test_a_stream_that_breaks_ends_in_an_error(url: str, upstream: Server) -> None:
    async with sdk(url) as client:
        made = await client.responses.create(model="fast", input="Say hello")
        upstream.simulator.behave(Behaviour(eof_after=4), path=f"/v1/responses/{made.id}")
        stream = await client.responses.retrieve(made.id, stream=True)
        events = [await anext(stream) for _ in range(4)]
        with pytest.raises(openai.APIError, match="ended before it was complete"):
            await anext(stream)

    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]


async def test_failures_say_nothing_of_the_model(url: str, upstream: Server) -> None:
    """Ten failures in a row of what is stored leave calls of the model alone, and the other way round."""
    made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
    path = f"/v1/responses/{made['id']}"
    upstream.simulator.behave(Behaviour(status=500), path=path, times=10)
    upstream.simulator.behave(Behaviour(status=429, retry_after=60), path=path, times=1)
    statuses = [(await raw(url, "GET", path)).status_code for _ in range(11)]
    assert statuses == [500] * 10 + [429]
    assert (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).status_code == 200

    upstream.simulator.behave(Behaviour(status=500), path="/v1/responses")
    for number in range(6):
        await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": f"hello {number}"})
    refused = await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
    assert (await raw(url, "GET", path)).status_code == 200


async def test_what_an_operator_has_shut_is_shut(upstream: Server) -> None:
    extra = {"GATEWAY_ADMIN_TOKEN": "an-admin-token-of-some-length", "GATEWAY_ROUTES": json.dumps(ROUTES)}
    async with gateway_for(upstream.url, **extra) as url:
        made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
        command = "/v1/admin/circuit-breakers/openai/force-open"
        assert (await raw(url, "POST", command, extra["GATEWAY_ADMIN_TOKEN"])).status_code == 200
        answer = await raw(url, "GET", f"/v1/responses/{made['id']}")
        unknown = await raw(url, "GET", f"/v1/responses/{NOBODYS}")

    for refused in (answer, unknown):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
        assert "an operator has shut it off" in refused.json()["error"]["message"]


async def test_a_connection_that_was_closed_meanwhile(upstream: Server) -> None:
    async with gateway_for(upstream.url, {"exchange": Engine(stale_after=0.0)}) as url:
        made = (await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})).json()
        path = f"/v1/responses/{made['id']}"
        upstream.simulator.behave(Behaviour(fault="stale"), path=path, times=1)
        assert [(await raw(url, "GET", path)).status_code for _ in range(2)] == [200, 200]


async def test_a_provider_that_is_down() -> None:
    async with Simulator().serve() as server:
        gateway = gateway_for(server.url)
        url = await gateway.__aenter__()
        made = (await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})).json()
    try:
        for _ in range(7):
            assert (await raw(url, "GET", f"/v1/responses/{made['id']}")).status_code == 502
    finally:
        await gateway.__aexit__(None, None, None)


# Limits, logs, guards, compaction.


async def tokens_left(url: str) -> float:
    """Of the hour."""
    limits = (await raw(url, "GET", "/v1/usage")).json()["limits"]
    return next(float(limit["remaining"]) for limit in limits if limit["name"] == "tph")


async def test_reading_counts_as_a_request_and_takes_no_tokens(upstream: Server) -> None:
    limited = tenants(requests="3/hour", tokens="100000/hour")
    async with gateway_for(upstream.url, GATEWAY_TENANTS=limited) as url:
        made = await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})
        path = f"/v1/responses/{made.json()['id']}"
        before = await tokens_left(url)
        first = await raw(url, "GET", path)
        assert await tokens_left(url) == before
        assert (await raw(url, "GET", path)).status_code == 200
        refused = await raw(url, "GET", path)

    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "1")
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")


async def test_the_access_log_tells_what_was_done(upstream: Server) -> None:
    log = LogLines()
    async with gateway_for(upstream.url, {"write_log": log}) as url:
        made = (await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})).json()
        await raw(url, "GET", f"/v1/responses/{made['id']}/input_items")
        await raw(url, "DELETE", f"/v1/responses/{made['id']}")
    lines = [json.loads(line) for line in log.raw.splitlines() if b'"stored_responses"' in line]

    assert [line["endpoint"] for line in lines] == ["response_input_items", "response"]
    assert {(line["tenant"], line["provider"], line["status"]) for line in lines} == {("acme", "openai", 200)}


async def test_compaction_is_a_model_call(upstream: Server) -> None:
    body = {"model": "fast", "input": [{"role": "user", "content": "hello"}], "instructions": "short"}
    limited = tenants(tokens="100000/hour")
    async with gateway_for(upstream.url, GATEWAY_ROUTES=json.dumps(ROUTES), GATEWAY_TENANTS=limited) as url:
        through = await raw(url, "POST", "/v1/responses/compact", json=body)
        left = await tokens_left(url)
        elsewhere = await raw(url, "POST", "/v1/responses/compact", json={**body, "model": "claude"})
        foreign = {**body, "previous_response_id": NOBODYS}
        refused = await raw(url, "POST", "/v1/responses/compact", json=foreign)

    document = through.json()
    assert document["object"] == "response.compaction"
    assert left == 100_000 - document["usage"]["total_tokens"]
    assert json.loads(upstream.simulator.requests[0].body)["model"] == "gpt-5-mini"
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (400, "unsupported_surface")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "shared_resource")


async def test_each_is_an_event_without_tokens_and_a_compaction_one_with(upstream: Server, tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    async with gateway_for(upstream.url, GATEWAY_JOURNAL=str(journal)) as url:
        made = (await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})).json()
        path = f"/v1/responses/{made['id']}"
        for method, tail in (("GET", ""), ("GET", "?stream=true"), ("GET", "/input_items"), ("DELETE", "")):
            assert (await raw(url, method, path + tail)).status_code == 200
        assert (await raw(url, "GET", path)).status_code == 404
        body = {"model": "gpt-5-mini", "input": "hello"}
        compacted = (await raw(url, "POST", "/v1/responses/compact", json=body)).json()
    with sqlite3.connect(journal) as db:
        events = [msgspec.json.decode(body, type=UsageEvent) for (body,) in db.execute("SELECT body FROM events")]

    told = [(event.surface, event.usage.input_tokens, event.usage.output_tokens) for event in events]
    used = made["usage"]["input_tokens"], made["usage"]["output_tokens"]
    assert told == [
        ("responses", *used),
        *[("stored_responses", 0, 0)] * 4,
        ("responses_compact", compacted["usage"]["input_tokens"], compacted["usage"]["output_tokens"]),
    ]
    assert {(event.usage_source, event.cost) for event in events[1:-1]} == {("provider", "0")}
    assert events[1].model == "gpt-5-mini"
    assert events[2].is_stream


async def test_a_guard_sees_what_was_stored(upstream: Server) -> None:
    """What a guard has hidden in an answer is not read behind its back."""

    async def redact(guarded: Guarded) -> Verdict:
        hidden = guarded.content.replace("simulated", "*********")
        return Verdict(action="replace", content=hidden) if guarded.stage is not Stage.REQUEST else PASS

    guards = [GuardRule(name="words", guard=redact, window=16, overlap=9)]
    async with gateway_for(upstream.url, {"guards": guards}) as url:
        made = await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello simulated"})
        path = f"/v1/responses/{made.json()['id']}"
        told = [made, *[await raw(url, "GET", path + tail) for tail in ("", "?stream=true", "/input_items")]]
        deleted = await raw(url, "DELETE", path)

    assert "simulated" in (upstream.simulator.requests[0].body).decode()
    assert ["simulated" in answer.text for answer in told] == [False] * 4
    assert deleted.json()["deleted"] is True


async def test_a_policy_is_asked_about_reading_and_about_deleting(upstream: Server) -> None:
    async with PolicyAdapter().serve() as policy:
        policy.adapter.policy = {"acme": {"allow": True, "models": ["fast"]}, "*": False}
        extra = {"GATEWAY_POLICY_ADAPTER_URL": policy.data_url, "GATEWAY_ROUTES": json.dumps(ROUTES)}
        async with gateway_for(upstream.url, GATEWAY_TENANTS=tenants(), **extra) as url:
            made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello"})).json()
            path = f"/v1/responses/{made['id']}"
            statuses = [(await raw(url, method, path)).status_code for method in ("GET", "DELETE")]
            compacted = await raw(url, "POST", "/v1/responses/compact", json={"model": "blue", "input": "hello"})
        asked = policy.adapter.questions

    assert (statuses, compacted.status_code) == ([200, 200], 404)
    told = [(each["action"], each["endpoint"], each.get("model")) for each in asked]
    assert told[:3] == [("call", "responses", "fast"), ("read", "response", None), ("call", "response", None)]


async def test_a_store_that_is_away(tmp_path: Path, own_redis: RedisProcess, upstream: Server) -> None:
    """What this process remembers is read all the same; of the rest nobody can say whose it is."""
    extra = {"GATEWAY_STORAGE_URI": own_redis.uri, "GATEWAY_FLEET_DIRECTORY": str(tmp_path / "fleet")}
    async with gateway_for(upstream.url, GATEWAY_TENANTS=tenants(), **extra) as url:
        made = (await raw(url, "POST", "/v1/responses", json={"model": "gpt-5-mini", "input": "hello"})).json()
        own_redis.kill()
        assert (await raw(url, "GET", f"/v1/responses/{made['id']}")).status_code == 200
        answer = await raw(url, "GET", f"/v1/responses/{NOBODYS}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ownership_unavailable")
    assert answer.headers["retry-after"]


async def test_hundreds_of_streams_at_once_take_no_more_than_the_tenants_slots(upstream: Server) -> None:
    """Some clients leave in the middle; whoever stays gets all of it, and every slot is free again."""
    slots, clients = 60, 300
    extra = {"GATEWAY_ROUTES": json.dumps(ROUTES), "GATEWAY_TENANTS": tenants(concurrency=slots)}
    log = LogLines()
    async with gateway_for(upstream.url, {"write_log": log}, **extra) as url:
        made = (await raw(url, "POST", "/v1/responses", json={"model": "fast", "input": "hello " * 20})).json()
        path = f"/v1/responses/{made['id']}"
        upstream.simulator.behave(Behaviour(ttft=1.0, gap=0.01), path=path)
        pool = httpx.Limits(max_connections=clients)
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, limits=pool, timeout=60) as client:

            async def read(number: int) -> str:
                async with client.stream("GET", f"{path}?stream=true") as answer:
                    if answer.status_code != 200:
                        return str(answer.status_code)
                    if number % 2:
                        await anext(answer.aiter_bytes())
                        return "left"
                    text = (await answer.aread()).decode()
                    return "whole" if text.rstrip().rpartition("event: ")[2].startswith("response.completed") else text

            outcomes = Counter(await asyncio.gather(*(read(number) for number in range(clients))))
        assert set(outcomes) == {"whole", "left", "429"}
        assert upstream.simulator.counters.max_in_flight == slots
        async with asyncio.timeout(10):
            while upstream.simulator.counters.in_flight:
                await asyncio.sleep(0.01)
        upstream.simulator.clear()
        again = await asyncio.gather(*(raw(url, "GET", f"{path}?stream=true") for _ in range(slots)))
        assert {answer.status_code for answer in again} == {200}
    assert b'"status":500' not in log.raw
