"""The official Anthropic SDK against the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from gateway_middleware.simulator import Behaviour, Server, Simulator
from simulated import ASK

pytestmark = pytest.mark.anyio
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


@pytest.fixture(params=["", "/anthropic"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[anthropic.AsyncAnthropic]:
    # Without TLS there is nothing to verify; reading the certificates takes longer than the test.
    http = anthropic.DefaultAsyncHttpxClient(verify=False, trust_env=False)
    async with anthropic.AsyncAnthropic(
        base_url=server.url + request.param, api_key="k", max_retries=0, http_client=http
    ) as found:
        yield found


async def test_messages(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(model="claude-x", max_tokens=100, messages=ASK)

    assert answer.content[0].type == "text"
    assert "“Good morning”" in answer.content[0].text
    assert (answer.model, answer.stop_reason) == ("claude-x", "end_turn")
    assert str(answer._request_id).startswith("req_")  # noqa: SLF001  # public: the SDK documents it


async def test_usage_leaves_out_what_the_cache_gave_or_took(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(
        model="sim-input-100+cached-30+cachewrite-20+output-9", max_tokens=100, messages=ASK
    )

    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (50, 30, 20)
    assert usage.output_tokens == 9


async def test_the_stream_helper_says_the_same_as_the_whole_answer(client: anthropic.AsyncAnthropic) -> None:
    whole: Any = await client.messages.create(model="claude", max_tokens=100, messages=ASK)
    async with client.messages.stream(model="claude", max_tokens=100, messages=ASK) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == "end_turn"


async def test_events_come_in_the_order_of_the_wire_format(client: anthropic.AsyncAnthropic) -> None:
    stream = await client.messages.create(model="sim-length-2", max_tokens=100, messages=ASK, stream=True)

    assert [event.type async for event in stream] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_tool_use(client: anthropic.AsyncAnthropic) -> None:
    whole = await client.messages.create(model="sim-tools-2", max_tokens=100, messages=ASK, tools=[TOOL])
    async with client.messages.stream(model="sim-tools-2", max_tokens=100, messages=ASK, tools=[TOOL]) as stream:
        final = await stream.get_final_message()

    for answer in (whole, final):
        blocks: list[Any] = list(answer.content)
        assert [(b.type, b.name, b.input) for b in blocks] == [("tool_use", "weather", {"city": "sample"})] * 2
        assert answer.stop_reason == "tool_use"


async def test_the_output_cap_is_kept(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(model="claude", max_tokens=3, messages=ASK)

    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


async def test_tokens_are_a_quarter_of_the_bytes(client: anthropic.AsyncAnthropic, server: Server) -> None:
    counted = await client.messages.count_tokens(model="claude", messages=ASK)

    assert counted.input_tokens == -(-len(server.simulator.requests[-1].body) // 4)


async def test_models(client: anthropic.AsyncAnthropic) -> None:
    page = await client.models.list()

    assert "claude-sonnet-4-5" in {model.id for model in page.data}
    assert (await client.models.retrieve("claude-x")).display_name == "Simulated claude-x"


ERRORS = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (403, anthropic.PermissionDeniedError, "permission_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (413, anthropic.RequestTooLargeError, "request_too_large"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (529, anthropic.OverloadedError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind", "named"), ERRORS)
async def test_each_status_is_the_right_error(
    client: anthropic.AsyncAnthropic, status: int, kind: type[anthropic.APIStatusError], named: str
) -> None:
    with pytest.raises(kind) as caught:
        await client.messages.create(model=f"sim-{status}-2", max_tokens=8, messages=ASK)

    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", named)
    assert body["request_id"] == caught.value.response.headers["request-id"]
    assert caught.value.response.headers["retry-after"] == "2"


async def test_an_error_event_is_raised(client: anthropic.AsyncAnthropic) -> None:
    stream = await client.messages.create(model="sim-error-2", max_tokens=80, messages=ASK, stream=True)

    with pytest.raises(anthropic.APIStatusError, match="in the middle"):
        [event async for event in stream]


async def test_usage_can_be_missing(server: Server, client: anthropic.AsyncAnthropic) -> None:
    server.simulator.behave(Behaviour(usage=False))

    answer = await client.messages.create(model="claude", max_tokens=8, messages=ASK)

    assert "usage" not in answer.model_fields_set
