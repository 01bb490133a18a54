"""The official SDKs against a running gateway in front of the simulator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway_middleware.simulator import Simulator
from running import KEY, gateway_for

pytestmark = pytest.mark.anyio

ROUTES = {
    "fast": ["openai/gpt-5-mini"],
    "claude": ["anthropic/claude-sonnet-4-5"],
    "gpt5mini": ["azure/gpt5mini", "openai/gpt-5-mini"],
    "mixed": ["openai/gpt-5-mini"],
}
ASK: Any = [{"role": "user", "content": "Say hello to the gateway"}]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with Simulator().serve() as simulator:
        async with gateway_for(
            simulator.url, GATEWAY_ROUTES=json.dumps(ROUTES), GATEWAY_MAX_BODY_BYTES="10000000"
        ) as found:
            yield found


@pytest.fixture
async def oai(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def azure(url: str) -> AsyncIterator[openai.AsyncAzureOpenAI]:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


async def test_chat(oai: openai.AsyncOpenAI) -> None:
    answer = await oai.chat.completions.create(model="fast", messages=ASK)

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_chat_stream_hides_the_usage_that_the_client_did_not_ask_for(oai: openai.AsyncOpenAI) -> None:
    stream = await oai.chat.completions.create(model="fast", messages=ASK, stream=True)

    chunks = [chunk async for chunk in stream]

    assert all(chunk.usage is None and "usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_chat_stream_has_the_usage_that_the_client_asked_for(oai: openai.AsyncOpenAI) -> None:
    stream = await oai.chat.completions.create(
        model="fast", messages=ASK, stream=True, stream_options={"include_usage": True}
    )

    chunks = [chunk async for chunk in stream]

    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_responses(oai: openai.AsyncOpenAI) -> None:
    answer = await oai.responses.create(model="fast", input="Hello")

    assert answer.output_text
    assert answer.usage is not None


async def test_a_response_stream(oai: openai.AsyncOpenAI) -> None:
    events = [event async for event in await oai.responses.create(model="fast", input="Hello", stream=True)]

    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


async def test_embeddings(oai: openai.AsyncOpenAI) -> None:
    answer = await oai.embeddings.create(model="fast", input=["one", "two"])

    assert len(answer.data) == 2
    assert answer.data[0].embedding


async def test_models_are_those_of_the_routes(oai: openai.AsyncOpenAI) -> None:
    names = {model.id async for model in oai.models.list()}

    assert names == set(ROUTES)
    assert (await oai.models.retrieve("claude")).id == "claude"


async def test_azure_chat_by_deployment(azure: openai.AsyncAzureOpenAI) -> None:
    answer = await azure.chat.completions.create(model="gpt5mini", messages=ASK)

    assert answer.choices[0].message.content


async def test_azure_client_reaches_an_openai_deployment(azure: openai.AsyncAzureOpenAI) -> None:
    raw = await azure.chat.completions.with_raw_response.create(model="fast", messages=ASK)

    assert raw.headers["x-gateway-provider"] == "openai"
    assert raw.parse().choices[0].message.content


async def test_azure_stream_and_embeddings_and_responses(azure: openai.AsyncAzureOpenAI) -> None:
    stream = await azure.chat.completions.create(model="gpt5mini", messages=ASK, stream=True)
    assert [chunk async for chunk in stream]
    assert (await azure.embeddings.create(model="gpt5mini", input="one")).data
    assert (await azure.responses.create(model="gpt5mini", input="Hello")).output_text


async def test_openai_client_reaches_an_azure_deployment(oai: openai.AsyncOpenAI) -> None:
    raw = await oai.chat.completions.with_raw_response.create(model="gpt5mini", messages=ASK)

    assert raw.headers["x-gateway-deployment"] == "azure/gpt5mini"


async def test_azure_v1_client(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key=KEY, max_retries=0) as client:
        assert (await client.responses.create(model="gpt5mini", input="Hello")).output_text


async def test_messages(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(model="claude", max_tokens=64, messages=ASK)

    assert answer.content[0].type == "text"
    assert answer.usage.input_tokens > 0
    assert answer._request_id  # noqa: SLF001  # public: the SDK documents it


async def test_a_message_stream(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(model="claude", max_tokens=64, messages=ASK) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert text
    assert final.usage.output_tokens > 0


async def test_count_tokens(claude: anthropic.AsyncAnthropic) -> None:
    assert (await claude.messages.count_tokens(model="claude", messages=ASK)).input_tokens > 0


async def test_models_in_the_shape_of_anthropic(claude: anthropic.AsyncAnthropic) -> None:
    page = await claude.models.list()

    assert {model.id for model in page.data} == set(ROUTES)
    assert (await claude.models.retrieve("claude")).display_name == "claude"


async def test_the_anthropic_prefix_works_too(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=f"{url}/anthropic", api_key=KEY, max_retries=0) as client:
        assert (await client.messages.create(model="claude", max_tokens=8, messages=ASK)).content


async def test_moderations_images_and_audio_pass_through(oai: openai.AsyncOpenAI) -> None:
    assert (await oai.moderations.create(model="openai/omni-moderation-latest", input="hello")).results
    assert (await oai.images.generate(model="openai/gpt-image-1", prompt="a door")).data
    speech = await oai.audio.speech.create(model="openai/tts-1", voice="alloy", input="hello")
    assert speech.content
    heard = await oai.audio.transcriptions.create(model="openai/whisper-1", file=("a.wav", b"RIFF" + bytes(100)))
    assert heard.text is not None


OPENAI_ERRORS: list[tuple[str, type[openai.APIStatusError]]] = [
    ("openai/sim-status-400", openai.BadRequestError),
    ("openai/sim-status-404", openai.NotFoundError),
    ("openai/sim-status-409", openai.ConflictError),
    ("openai/sim-status-422", openai.UnprocessableEntityError),
    ("openai/sim-429-1", openai.RateLimitError),
    ("openai/sim-status-500", openai.InternalServerError),
    ("openai/sim-status-503", openai.InternalServerError),
    ("openai/sim-status-401", openai.InternalServerError),
    ("openai/sim-reset", openai.InternalServerError),
    ("openai/sim-html", openai.InternalServerError),
    ("nowhere/../else", openai.BadRequestError),
    ("fast\n", openai.BadRequestError),
]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("model", "expected"), OPENAI_ERRORS)
async def test_openai_errors(
    oai: openai.AsyncOpenAI, model: str, expected: type[openai.APIStatusError], is_stream: bool
) -> None:
    with pytest.raises(expected) as caught:
        await oai.chat.completions.create(model=model, messages=ASK, stream=is_stream)

    assert caught.value.body
    assert "sk-upstream" not in str(caught.value)


@pytest.mark.parametrize(("model", "expected"), OPENAI_ERRORS[:8])
async def test_azure_errors(azure: openai.AsyncAzureOpenAI, model: str, expected: type[openai.APIStatusError]) -> None:
    with pytest.raises(expected):
        await azure.chat.completions.create(model=model.replace("openai/", "azure/"), messages=ASK)


ANTHROPIC_ERRORS: list[tuple[str, type[anthropic.APIStatusError]]] = [
    ("anthropic/sim-status-400", anthropic.BadRequestError),
    ("anthropic/sim-status-404", anthropic.NotFoundError),
    ("anthropic/sim-status-413", anthropic.RequestTooLargeError),
    ("anthropic/sim-429-1", anthropic.RateLimitError),
    ("anthropic/sim-status-500", anthropic.InternalServerError),
    ("anthropic/sim-status-529", anthropic.OverloadedError),
    ("anthropic/sim-status-401", anthropic.InternalServerError),
    ("anthropic/sim-reset", anthropic.InternalServerError),
]


@pytest.mark.parametrize(("model", "expected"), ANTHROPIC_ERRORS)
async def test_anthropic_errors(
    claude: anthropic.AsyncAnthropic, model: str, expected: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(expected) as caught:
        await claude.messages.create(model=model, max_tokens=8, messages=ASK)

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "error"


FAULTS = ["truncate-3", "eof-3", "error-3", "length-12:truncate-3"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_chat_stream_raises(oai: openai.AsyncOpenAI, fault: str) -> None:
    stream = await oai.chat.completions.create(model=f"openai/sim-{fault}", messages=ASK, stream=True)

    with pytest.raises(openai.APIError):
        [chunk async for chunk in stream]


@pytest.mark.parametrize("fault", FAULTS[:3])
async def test_a_broken_response_stream_raises(oai: openai.AsyncOpenAI, fault: str) -> None:
    stream = await oai.responses.create(model=f"openai/sim-{fault}", input="Hello", stream=True)

    with pytest.raises(openai.APIError):
        [event async for event in stream]


@pytest.mark.parametrize("fault", FAULTS[:3])
async def test_a_broken_message_stream_raises(claude: anthropic.AsyncAnthropic, fault: str) -> None:
    stream = await claude.messages.create(model=f"anthropic/sim-{fault}", max_tokens=64, messages=ASK, stream=True)

    with pytest.raises(anthropic.APIError):
        [event async for event in stream]


async def test_a_wrong_key_is_an_authentication_error_in_each_dialect(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="gw-no", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="fast", messages=ASK)
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=url, api_key="gw-no", api_version="2024-10-21", max_retries=0
    ) as azure:
        with pytest.raises(openai.AuthenticationError):
            await azure.chat.completions.create(model="fast", messages=ASK)
    async with anthropic.AsyncAnthropic(base_url=url, api_key="gw-no", max_retries=0) as claude:
        with pytest.raises(anthropic.AuthenticationError):
            await claude.messages.create(model="claude", max_tokens=8, messages=ASK)


async def test_unknown_models_and_paths_are_not_found_in_each_dialect(
    oai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, url: str
) -> None:
    with pytest.raises(openai.NotFoundError):
        await oai.files.list()
    with pytest.raises(openai.NotFoundError):
        await oai.models.retrieve("opemai/gpt-5-mini")  # nearly a provider: no publisher's name of a model
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.batches.list()


RAW: list[tuple[str, str, dict[str, str], bytes, int]] = [
    ("GET", "/v1/chat/completions", {}, b"", 405),
    ("POST", "/v1/nothing", {}, b"{}", 404),
    ("POST", "/v1/chat/completions", {"content-type": "text/plain"}, b"{}", 415),
    ("POST", "/v1/chat/completions", {"content-type": "application/json"}, b"[" * 100_000, 400),
    ("POST", "/v1/chat/completions", {"content-type": "application/json"}, b" " * 11_000_000, 413),
    ("POST", "/v1/messages", {"content-type": "application/json"}, b"nonsense", 400),
    ("POST", "/v1/messages", {"content-type": "application/json"}, b" " * 11_000_000, 413),
    ("DELETE", "/v1/messages", {}, b"", 405),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), RAW)
async def test_edge_errors_wear_the_dialect_of_the_path(
    url: str, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(
            method, url + path, headers={**headers, "authorization": f"Bearer {KEY}"}, content=body
        )

    document = answer.json()
    assert answer.status_code == status
    assert document["error"]["message"]
    assert (document.get("type") == "error") is path.startswith("/v1/messages")
    assert answer.headers["x-request-id"]


Check = Callable[[httpx.Response], bool]
