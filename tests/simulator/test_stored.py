"""Responses that the simulator has stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.stored import CAPACITY

pytestmark = pytest.mark.anyio
ITEMS: Any = [{"role": "user", "content": f"{n}"} for n in range(5)]


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    async with Simulator().serve() as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk", max_retries=0) as made:
            yield made


async def test_the_input_comes_in_pages_the_newest_first(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model="gpt-5", input=ITEMS)
    page = await client.responses.input_items.list(made.id, limit=2)
    assert [item.to_dict()["content"][0]["text"] for item in page.data] == ["4", "3"]  # type: ignore[index]
    assert page.has_more
    every = [item.id async for item in client.responses.input_items.list(made.id, limit=2, order="asc")]
    assert len(every) == len(set(every)) == 5


@pytest.mark.parametrize("limit", [0, 101, "many"])
async def test_a_page_has_its_bounds(client: openai.AsyncOpenAI, limit: Any) -> None:
    made = await client.responses.create(model="gpt-5", input="hello")
    with pytest.raises(openai.BadRequestError, match="Invalid 'limit'"):
        await client.responses.input_items.list(made.id, limit=limit)


async def test_the_oldest_go_first(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model="gpt-5", input="hello")
    second = await client.responses.create(model="gpt-5", input="hello")
    for _ in range(CAPACITY - 1):
        await client.responses.create(model="gpt-5", input="hello")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)
    assert (await client.responses.retrieve(second.id)).output_text == second.output_text


async def test_what_answers_from_memory_is_stored_as_well(client: openai.AsyncOpenAI) -> None:
    made = [await client.responses.create(model="gpt-5", input="hello") for _ in range(3)]
    read = [(await client.responses.retrieve(each.id)).output_text for each in made]
    assert read == [each.output_text for each in made]


async def test_compaction_keeps_what_users_said(client: openai.AsyncOpenAI) -> None:
    spoken = [*ITEMS, {"role": "assistant", "content": "well"}]
    compacted = await client.responses.compact(model="gpt-5", input=spoken)
    assert [item.type for item in compacted.output] == ["message"] * 5 + ["compaction"]
    assert compacted.usage.total_tokens > 0
