"""A provider with several keys of different accounts: what one key has stored is asked for with that key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from gateway_middleware.simulator import Behaviour, Server, Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import RedisProcess
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio
ONE, TWO = "sk-one-0123456789", "sk-two-0123456789"
OTHER = "gw-tests-other-0123456789abcdef"
SHARED = json.dumps({"acme": {"keys": [digest(KEY.encode())]}, "other": {"keys": [digest(OTHER.encode())]}})
SESSIONS = range(12)
"""Enough of them that either key is preferred by some."""


@pytest.fixture
async def upstream() -> AsyncIterator[Server]:
    async with Simulator(keys=[ONE, TWO], has_accounts=True).serve() as server:
        yield server


def settings(upstream: Server, *keys: Any, **extra: str) -> dict[str, str]:
    entry = {"kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": list(keys or (ONE, TWO))}
    return {
        "GATEWAY_PROVIDERS": json.dumps({"openai": entry}), "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "",
        "AZURE_OPENAI_API_KEY": "", "AZURE_OPENAI_ENDPOINT": "", "GATEWAY_TENANTS": SHARED, **extra,
    }  # fmt: skip


def sdk(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


def session(number: int) -> dict[str, str]:
    return {"x-gateway-session": f"session-{number}"}


async def make(client: openai.AsyncOpenAI, number: int, **more: Any) -> str:
    made = await client.responses.create(
        model="openai/gpt-5-mini", input=f"hello {number}", extra_headers=session(number), **more
    )
    return str(made.id)


def keys_asked(upstream: Server) -> list[str]:
    """Since the last time."""
    asked = [entry.named_headers["authorization"].removeprefix("Bearer ") for entry in upstream.simulator.requests]
    upstream.simulator.log.clear()
    return asked


async def test_all_that_names_a_response_goes_to_the_key_that_made_it(upstream: Server) -> None:
    async with gateway_for(upstream.url, **settings(upstream)) as url, sdk(url) as client:
        made = {number: await make(client, number) for number in SESSIONS}
        keys = keys_asked(upstream)
        assert set(keys) == {ONE, TWO}
        for (number, response_id), key in zip(made.items(), keys, strict=True):
            elsewhere = session(number + 1)  # another session, which may prefer the other key
            await client.responses.retrieve(response_id, extra_headers=elsewhere)
            assert [i async for i in client.responses.input_items.list(response_id, extra_headers=elsewhere)]
            stream = await client.responses.create(
                model="openai/gpt-5-mini", input="go on", previous_response_id=response_id, stream=True,
                extra_headers=elsewhere,
            )  # fmt: skip
            first, *_ = [event async for event in stream]
            following = first.response.id  # type: ignore[union-attr]
            await client.responses.retrieve(following, extra_headers=elsewhere)
            with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
                await client.responses.cancel(response_id)
            await client.responses.delete(response_id, extra_headers=elsewhere)
            assert keys_asked(upstream) == [key] * 6


async def test_another_replica_and_another_order_of_the_list(upstream: Server, own_redis: RedisProcess) -> None:
    """A key that has a name is known by it wherever it is listed."""
    named = [{"key": ONE, "name": "east"}, {"key": TWO, "name": "west"}]
    shared = {"GATEWAY_STORAGE_URI": own_redis.uri}
    async with (
        gateway_for(upstream.url, **settings(upstream, *named, **shared)) as one,
        gateway_for(upstream.url, **settings(upstream, *named[::-1], **shared)) as other,
        sdk(one) as maker,
        sdk(other) as reader,
    ):
        made = [await make(maker, number) for number in SESSIONS]
        keys = keys_asked(upstream)
        for response_id in made:
            assert (await reader.responses.retrieve(response_id)).id == response_id
        assert keys_asked(upstream) == keys


async def test_a_key_that_is_throttled_is_not_stood_in_for(upstream: Server) -> None:
    """The other account has nothing to go on from: a wait that ends is better than a "not found" that does not."""
    async with gateway_for(upstream.url, **settings(upstream)) as url, sdk(url) as client:
        response_id = await make(client, 0)
        (key,) = keys_asked(upstream)
        upstream.simulator.behave(Behaviour(status=429, retry_after=7), times=1)
        ask = {"model": "openai/gpt-5-mini", "input": "go on", "previous_response_id": response_id}
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as raw:
            answers = [await raw.post(f"{url}/v1/responses", json=ask) for _ in range(2)]
        assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(429, "7"), (503, "7")]
        assert keys_asked(upstream) == [key]
        await make(client, 0)  # what goes on from nothing goes to the other key
        assert set(keys_asked(upstream)) == {ONE, TWO} - {key}


async def test_where_nobody_knows_the_key_each_is_asked(upstream: Server) -> None:
    """One tenant alone, and responses that were made past the gateway."""
    alone = json.dumps({"acme": {"keys": [digest(KEY.encode())]}})
    async with (
        gateway_for(upstream.url, **settings(upstream, GATEWAY_TENANTS=alone)) as url,
        sdk(url) as client,
        openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key=ONE) as first,
        openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key=TWO) as second,
    ):
        for owner in (first, second):
            made = (await owner.responses.create(model="gpt-5-mini", input="hello")).id
            assert (await client.responses.retrieve(made)).id == made
            stream = await client.responses.retrieve(made, stream=True)
            assert [event.type async for event in stream][-1] == "response.completed"
            await client.responses.delete(made)
        keys_asked(upstream)
        with pytest.raises(openai.NotFoundError, match="Response with id 'resp_none' not found"):
            await client.responses.retrieve("resp_none")
        assert sorted(keys_asked(upstream)) == [ONE, TWO]
        upstream.simulator.behave(Behaviour(status=429, retry_after=5), times=1)
        with pytest.raises(openai.RateLimitError):  # it may be there: not 404
            await client.responses.retrieve("resp_none")
        upstream.simulator.behave(Behaviour(status=500), times=1)
        with pytest.raises(openai.InternalServerError):  # no other key would be told otherwise
            await client.responses.retrieve("resp_none")
        assert len(keys_asked(upstream)) == 3
