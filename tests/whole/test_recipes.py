"""Every entry of docs/recipes.md, with the SDK of its format, at a gateway before a look-alike of the vendor."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anthropic
import openai
import pytest

from gateway_middleware.simulator import Behaviour, Simulator
from gateway_middleware.simulator.vendors import VENDORS
from messages_steps import ASK, SCHEMA, messages_steps
from running import KEY, LogLines, gateway_for

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
RECIPES: dict[str, dict[str, Any]] = {
    name: entry
    for block in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for name, entry in json.loads(block).items()
}
OPENAI = [name for name, entry in RECIPES.items() if entry["kind"] == "openai"]
ANTHROPIC = [name for name, entry in RECIPES.items() if entry["kind"] == "anthropic"]
UPSTREAM_KEY = "vendor-key-0123456789"


class Rig(NamedTuple):
    """A gateway that has one recipe as its only provider."""

    url: str
    simulator: Simulator
    log: LogLines
    model: str

    @property
    def line(self) -> dict[str, Any]:
        """The last line of the access log."""
        lines = [json.loads(line) for line in self.log.raw.splitlines()]
        found: dict[str, Any] = [line for line in lines if line["event"] == "call"][-1]
        return found


def test_every_look_alike_has_a_recipe_and_the_address_of_its_vendor() -> None:
    assert RECIPES.keys() == VENDORS.keys()
    for name, entry in RECIPES.items():
        path = urlsplit(entry["base_url"]).path
        assert VENDORS[name].base == (path if entry["kind"] == "openai" else f"{path}/v1")


MODELS = {"bedrock": "anthropic.claude-opus-4-7", "gemini": "gemini-3.6-flash"}


@contextlib.asynccontextmanager
async def recipe(name: str) -> AsyncIterator[Rig]:
    entry, log = dict(RECIPES[name]), LogLines()
    if "api_key" in entry:
        assert entry["api_key"].startswith("env:")
        entry["api_key"] = UPSTREAM_KEY
    model = MODELS.get(name, "some-model")
    async with Simulator(keys=[UPSTREAM_KEY]).serve() as server:
        entry["base_url"] = f"{server.url}/as/{name}{urlsplit(entry['base_url']).path}"
        providers = json.dumps({name: entry})
        async with gateway_for(server.url, {"write_log": log}, GATEWAY_PROVIDERS=providers) as url:
            yield Rig(url, server.simulator, log, f"{name}/{model}")


@contextlib.asynccontextmanager
async def openai_client(rig: Rig) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def anthropic_client(rig: Rig) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=rig.url, api_key=KEY, max_retries=0) as client:
        yield client


TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


@pytest.mark.parametrize("name", OPENAI)
async def test_chat_stream_tools_and_structured_output_in_openais_format(name: str) -> None:
    async with recipe(name) as rig, openai_client(rig) as client:
        create = client.chat.completions.create
        answer = await create(model=rig.model, messages=ASK, max_tokens=64)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0

        chunks = [chunk async for chunk in await create(model=rig.model, messages=ASK, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

        rig.simulator.behave(Behaviour(tool_calls=2))
        called = await create(model=rig.model, messages=ASK, tools=[TOOL])
        assert [call.type for call in called.choices[0].message.tool_calls or ()] == ["function"] * 2
        pieces = [chunk async for chunk in await create(model=rig.model, messages=ASK, tools=[TOOL], stream=True)]
        assert len(_calls(pieces)) == 2
        assert {json.dumps(call) for call in _calls(pieces)} == {'{"city": "sample"}'}
        rig.simulator.clear()

        form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
        form = {"type": "json_object"} if name == "deepseek" else form
        shaped = await create(model=rig.model, messages=ASK, response_format=form)
        assert json.loads(shaped.choices[0].message.content or "") == ({} if name == "deepseek" else {"city": "sample"})


def _calls(chunks: list[Any]) -> list[Any]:
    """The arguments of each call, as a client puts them together: by index, or where there is none, by id."""
    calls: dict[Any, str] = {}
    for piece in (call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()):
        at = piece.index if piece.index is not None else piece.id
        calls[at] = calls.get(at, "") + (piece.function.arguments or "")
    return [json.loads(arguments) for arguments in calls.values()]


@pytest.mark.parametrize("name", ANTHROPIC)
async def test_chat_stream_tools_and_structured_output_in_anthropics_format(name: str) -> None:
    async with recipe(name) as rig, anthropic_client(rig) as client:
        await messages_steps(client, rig.model, rig.simulator)


@pytest.mark.parametrize("name", OPENAI)
async def test_a_messages_client_has_its_tools_called_by_every_vendor_of_openais_format(name: str) -> None:
    tools: Any = [{"name": "weather", "input_schema": SCHEMA}]
    async with recipe(name) as rig, anthropic_client(rig) as client:
        rig.simulator.behave(Behaviour(tool_calls=2))
        async with client.messages.stream(model=rig.model, max_tokens=64, messages=ASK, tools=tools) as stream:
            final = await stream.get_final_message()

    assert [part.input for part in final.content if part.type == "tool_use"] == [{"city": "sample"}] * 2
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("name", OPENAI)
async def test_a_loop_with_tools_goes_to_its_end_in_each_dialect(name: str) -> None:
    """Gemini wants the signature of each step back: it travels as reasoning of Google's in the other dialects."""
    tools: Any = [{"name": "weather", "input_schema": SCHEMA}]
    functions: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    async with recipe(name) as rig, anthropic_client(rig) as claude, openai_client(rig) as client:
        rig.simulator.behave(Behaviour(tool_calls=2))
        turns = list(ASK)
        async with claude.messages.stream(model=rig.model, max_tokens=64, messages=turns, tools=tools) as stream:
            first = await stream.get_final_message()
        used = [part.id for part in first.content if part.type == "tool_use"]
        turns.append({"role": "assistant", "content": [part.model_dump(exclude_unset=True) for part in first.content]})
        turns.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": at} for at in used]})
        last = await claude.messages.create(model=rig.model, max_tokens=64, messages=turns, tools=tools)
        assert (len(used), last.stop_reason) == (2, "end_turn")

        items: list[Any] = [{"role": "user", "content": "Say hello"}]
        answer = await client.responses.create(model=rig.model, input=items, tools=functions)
        items += [item.model_dump(exclude_unset=True) for item in answer.output]
        called = [item.call_id for item in answer.output if item.type == "function_call"]
        items += [{"type": "function_call_output", "call_id": at, "output": "sunny"} for at in called]
        done = await client.responses.create(model=rig.model, input=items, tools=functions)
        assert (len(called), bool(done.output_text)) == (2, True)


@pytest.mark.parametrize("name", OPENAI)
async def test_agents_say_who_they_are_and_are_served_by_every_vendor_of_openais_format(name: str) -> None:
    """Claude Code names its user, Codex its cache: a vendor that refuses that is asked without it."""
    who: Any = {"user_id": "user-1"}
    async with recipe(name) as rig, anthropic_client(rig) as claude, openai_client(rig) as client:
        for _ in range(2):
            async with claude.messages.stream(model=rig.model, max_tokens=64, messages=ASK, metadata=who) as stream:
                assert (await stream.get_final_message()).stop_reason == "end_turn"
            answer = await client.responses.create(
                model=rig.model, input="Say hello", prompt_cache_key="k", user="user-1", metadata={"a": "b"}
            )
            assert answer.output_text
        asked = [json.loads(request.body) for request in rig.simulator.requests]
    assert ("user" in asked[-1]) == (name != "mistral")
    assert len(asked) == (5 if name == "mistral" else 4)  # it is learnt once


@pytest.mark.parametrize("name", RECIPES)
async def test_streams_are_metered_with_usage(name: str) -> None:
    async with recipe(name) as rig:
        if name in ANTHROPIC:
            async with anthropic_client(rig) as claude:
                async with claude.messages.stream(model=rig.model, max_tokens=64, messages=ASK) as stream:
                    await stream.get_final_message()
        else:
            async with openai_client(rig) as client:
                chunks = await client.chat.completions.create(model=rig.model, messages=ASK, stream=True)
                with_usage = [chunk async for chunk in chunks if chunk.usage is not None]
                assert bool(with_usage) == (name in UNASKED)
    assert rig.line["output_tokens"] > 0


UNASKED = {"mistral"}
"""Those whose streams have usage, in a chunk with content, that no client asked for: it is passed on as it is."""


ERRORS = {"gemini": "Unknown name", "mistral": "Extra inputs", "groq": "unsupported"}


@pytest.mark.parametrize(("name", "words"), ERRORS.items())
async def test_what_a_vendor_refuses_is_a_clear_error_at_the_client(name: str, words: str) -> None:
    async with recipe(name) as rig, openai_client(rig) as client:
        with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)) as raised:
            await client.chat.completions.create(model=rig.model, messages=ASK, logit_bias={"1": 2})
    assert words in raised.value.message


async def test_cached_tokens_of_deepseek_are_metered_as_such() -> None:
    async with recipe("deepseek") as rig, openai_client(rig) as client:
        rig.simulator.behave(Behaviour(input_tokens=50, cached_tokens=40))
        await client.chat.completions.create(model=rig.model, messages=ASK)
    assert (rig.line["input_tokens"], rig.line["cached_input_tokens"]) == (50, 40)
