"""The official OpenAI SDK against the simulator, OpenAI and Azure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from gateway_middleware.simulator import Behaviour, Server, Simulator
from simulated import ASK

pytestmark = pytest.mark.anyio

CHAT_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["c", "f"]}},
        },
    },
}
FLAT_TOOL: Any = {"type": "function", **CHAT_TOOL["function"], "strict": False}
ARGUMENTS = {"city": "sample", "days": 1, "unit": "c"}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


@pytest.fixture(params=["openai", "azure-v1", "azure-dated"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    made: dict[str, Any] = {
        "openai": lambda **o: openai.AsyncOpenAI(base_url=f"{server.url}/v1", **o),
        "azure-v1": lambda **o: openai.AsyncOpenAI(base_url=f"{server.url}/openai/v1", **o),
        "azure-dated": lambda **o: openai.AsyncAzureOpenAI(azure_endpoint=server.url, api_version="2024-10-21", **o),
    }
    # Without TLS there is nothing to verify; reading the certificates takes longer than the test.
    http = openai.DefaultAsyncHttpxClient(verify=False, trust_env=False)
    async with made[request.param](api_key="k", max_retries=0, http_client=http) as found:
        yield found


def is_azure(client: openai.AsyncOpenAI) -> bool:
    return "/openai" in str(client.base_url)


async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-5-mini", messages=ASK)

    assert "“Good morning”" in (answer.choices[0].message.content or "")
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-5-mini", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert ("prompt_filter_results" in (answer.model_extra or {})) is is_azure(client)
    assert ("content_filter_results" in (answer.choices[0].model_extra or {})) is is_azure(client)


async def test_a_chat_stream_says_the_same_as_the_whole_answer(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    chunks = [c async for c in await client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)]

    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert ("prompt_filter_results" in (chunks[0].model_extra or {})) is is_azure(client)


async def test_stream_usage_is_null_until_the_last_chunk(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="sim-cached-5+reasoning-3+input-40", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *others, last = [chunk async for chunk in stream]

    named = [chunk for chunk in others if chunk.id]
    assert named
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in named)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == 40
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == 5
    assert last.usage.completion_tokens_details is not None
    assert last.usage.completion_tokens_details.reasoning_tokens == 3


async def test_choices_are_as_many_as_asked_for(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="sim-length-2", messages=ASK, n=3)
    stream = await client.chat.completions.create(model="sim-length-2", messages=ASK, n=3, stream=True)
    finished = [choice.index async for c in stream for choice in c.choices if choice.finish_reason == "stop"]

    assert [choice.index for choice in whole.choices] == finished == [0, 1, 2]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6


async def test_the_output_cap_is_kept(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=3)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_tool_calls(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="sim-tools-2", messages=ASK, tools=[CHAT_TOOL])

    message = answer.choices[0].message
    assert (answer.choices[0].finish_reason, message.content) == ("tool_calls", None)
    calls: list[Any] = list(message.tool_calls or [])
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [("weather", ARGUMENTS)] * 2
    assert len({c.id for c in calls}) == 2


async def test_streamed_tool_calls_are_put_together_by_the_sdk(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="sim-tools-2", messages=ASK, tools=[CHAT_TOOL]) as stream:
        final = await stream.get_final_completion()

    calls: list[Any] = list(final.choices[0].message.tool_calls or [])
    assert [json.loads(c.function.arguments) for c in calls] == [ARGUMENTS] * 2


async def test_without_tools_there_are_no_tool_calls(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="sim-tools-2", messages=ASK)

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


async def test_completions(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=100)
    stream = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=100, stream=True)

    assert "".join([choice.text async for chunk in stream for choice in chunk.choices]) == whole.choices[0].text
    assert whole.usage is not None


async def test_responses(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="sim-cached-2+cachewrite-1+reasoning-4", input="Good morning")

    assert "“Good morning”" in answer.output_text
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.cached_tokens == 2
    assert answer.usage.output_tokens_details.reasoning_tokens == 4


async def test_a_response_to_a_list_of_items(client: openai.AsyncOpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "And you?"}]},
    ]

    assert "“And you?”" in (await client.responses.create(model="gpt-5", input=items)).output_text


async def test_a_response_stream_is_numbered_and_complete(client: openai.AsyncOpenAI) -> None:
    events: list[Any] = [e async for e in await client.responses.create(model="gpt-5", input="Hi", stream=True)]

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[1].type, events[-1].type) == (
        "response.created",
        "response.in_progress",
        "response.completed",
    )
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text


async def test_the_stream_helper_of_responses(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="sim-tools-2", input="Hi", tools=[FLAT_TOOL]) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()

    calls: list[Any] = final.output
    assert [(c.type, json.loads(c.arguments)) for c in calls] == [("function_call", ARGUMENTS)] * 2


async def test_a_capped_response_is_incomplete(client: openai.AsyncOpenAI) -> None:
    events: list[Any] = [
        e async for e in await client.responses.create(model="gpt-5", input="Hi", stream=True, max_output_tokens=2)
    ]

    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"


async def test_embeddings_are_the_same_in_base64_and_as_floats(client: openai.AsyncOpenAI) -> None:
    texts = ["one door", "two doors"]
    packed = await client.embeddings.create(model="text-embedding-3-small", input=texts)
    floats = await client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")

    assert [row.embedding for row in packed.data] == [row.embedding for row in floats.data]
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(packed.data[0].embedding) == 1536
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0


@pytest.mark.parametrize(("given", "rows"), [("text", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1], [2]], 2)])
async def test_each_input_has_one_embedding(server: Server, given: Any, rows: int) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
        answer = await client.embeddings.create(model="m", input=given, dimensions=7)

    assert [len(row.embedding) for row in answer.data] == [7] * rows


async def test_moderations(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
        moderation = await client.moderations.create(model="omni-moderation-latest", input=["a", "b"])

    assert [result.flagged for result in moderation.results] == [False, False]


async def test_images(client: openai.AsyncOpenAI) -> None:
    picture = await client.images.generate(model="gpt-image-1", prompt="a door", n=2)
    edited = await client.images.edit(model="gpt-image-1", prompt="a door", image=("a.png", b"\x89PNG"))

    assert len(picture.data or []) == 2
    assert (edited.data or [])[0].b64_json


async def test_image_events(client: openai.AsyncOpenAI) -> None:
    stream = await client.images.generate(model="gpt-image-1", prompt="a door", stream=True)

    assert [event.type async for event in stream] == ["image_generation.partial_image", "image_generation.completed"]


async def test_speech_and_transcripts(client: openai.AsyncOpenAI) -> None:
    speech = await client.audio.speech.create(model="tts-1", voice="alloy", input="Good morning")
    recording: Any = ("a.wav", b"RIFF" + bytes(64))
    heard = await client.audio.transcriptions.create(model="whisper-1", file=recording)
    text: Any = await client.audio.transcriptions.create(model="whisper-1", file=recording, response_format="text")
    events: list[Any] = [
        event
        async for event in await client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=recording, stream=True
        )
    ]

    assert speech.content.startswith(b"\xff\xfb")
    assert heard.text.split() == str(text).split()
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text


async def test_models(client: openai.AsyncOpenAI) -> None:
    names = {model.id async for model in client.models.list()}

    assert "gpt-5-mini" in names
    assert (await client.models.retrieve("gpt-5")).id == "gpt-5"


async def test_the_deployment_is_the_model_on_azure(server: Server) -> None:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=server.url, api_key="k", api_version="2024-10-21", azure_deployment="sim-length-3"
    ) as client:
        answer = await client.chat.completions.create(model="ignored", messages=ASK)

    assert answer.model == "sim-length-3"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert server.simulator.requests[-1].model == "sim-length-3"


ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind"), ERRORS)
async def test_each_status_is_the_right_error(
    client: openai.AsyncOpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model=f"sim-status-{status}", messages=ASK)

    body: Any = caught.value.body
    assert body["message"]
    assert ("type" in body) is not is_azure(client)


async def test_an_error_event_is_raised(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIError, match="in the middle"):
        [c async for c in await client.chat.completions.create(model="sim-error-2", messages=ASK, stream=True)]
    with pytest.raises(openai.APIError, match="in the middle"):
        [e async for e in await client.responses.create(model="sim-error-2", input="Hi", stream=True)]


async def test_azure_content_filter(server: Server) -> None:
    server.simulator.behave(Behaviour(status=400, error_code="content_filter"), provider="azure")
    async with openai.AsyncOpenAI(base_url=f"{server.url}/openai/v1", api_key="k", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="gpt", messages=ASK)

    body: Any = caught.value.body
    assert caught.value.code == "content_filter"
    assert body["innererror"]["content_filter_result"]["hate"]["filtered"] is True


async def test_the_sdk_waits_as_long_as_it_is_told(server: Server) -> None:
    server.simulator.behave(Behaviour(status=429, retry_after=0.5, retry_after_ms=20), times=1)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=1) as client:
        assert (await client.chat.completions.create(model="gpt", messages=ASK)).choices

    assert [entry.status for entry in server.simulator.requests] == [429, 200]
