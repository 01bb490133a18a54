"""The official SDKs raise the right class for every rendered answer, and for every frame inside a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from gateway_middleware.core import errors
from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.edge.dialects import render, stream_frame

ASK: Any = [{"role": "user", "content": "hello"}]
ERRORS: list[tuple[errors.GatewayError, str, str]] = [
    (errors.InvalidRequestError("m"), "BadRequestError", "BadRequestError"),
    (errors.AuthenticationError("m"), "AuthenticationError", "AuthenticationError"),
    (errors.PermissionDeniedError("m"), "PermissionDeniedError", "PermissionDeniedError"),
    (errors.PathNotFoundError("m"), "NotFoundError", "NotFoundError"),
    (errors.UnknownModelError("m"), "NotFoundError", "NotFoundError"),
    (errors.MethodNotAllowedError("m", allow=["GET"]), "APIStatusError", "APIStatusError"),
    (errors.RateLimitedError("m", retry_after=2), "RateLimitError", "RateLimitError"),
    (errors.UnavailableError("m", retry_after=2), "InternalServerError", "InternalServerError"),
    (errors.UpstreamConnectError("m"), "InternalServerError", "InternalServerError"),
    (errors.UpstreamTimeoutError("m", phase="total"), "InternalServerError", "InternalServerError"),
    (errors.ProviderAuthError("m"), "InternalServerError", "InternalServerError"),
    (
        errors.UpstreamStatusError("m", upstream_status=422, upstream_headers=[], body=b"no JSON"),
        "UnprocessableEntityError",
        "UnprocessableEntityError",
    ),
]


def answering(status: int, headers: Any, body: bytes) -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, content=body))


def openai_client(transport: httpx2.MockTransport) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://g/v1", api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def azure_client(transport: httpx2.MockTransport) -> openai.OpenAI:
    return openai.AzureOpenAI(
        azure_endpoint="http://g",
        api_version="2024-10-21",
        api_key="k",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


def anthropic_client(transport: httpx2.MockTransport) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url="http://g", api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


@pytest.mark.parametrize(("error", "name", "_"), ERRORS)
@pytest.mark.parametrize(
    ("client", "dialect"), [(openai_client, Dialect.OPENAI), (azure_client, Dialect.AZURE)], ids=["openai", "azure"]
)
def test_openai_raises_by_status(
    error: errors.GatewayError, name: str, _: str, client: Callable[..., openai.OpenAI], dialect: Dialect
) -> None:
    with client(answering(*render(error, dialect, "req-9"))) as sdk, pytest.raises(openai.APIStatusError) as caught:
        sdk.chat.completions.create(model="m", messages=ASK)

    assert isinstance(caught.value, getattr(openai, name))
    assert caught.value.code == error.error_code
    assert caught.value.body["message"] == "m"


@pytest.mark.parametrize(("error", "_", "name"), ERRORS)
def test_anthropic_raises_by_status(error: errors.GatewayError, _: str, name: str) -> None:
    transport = answering(*render(error, Dialect.ANTHROPIC, "req-9"))
    with anthropic_client(transport) as sdk, pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(model="m", max_tokens=5, messages=ASK)

    assert isinstance(caught.value, getattr(anthropic, name))
    assert caught.value.body["error"]["message"] == "m"


@pytest.mark.parametrize("seconds", [0.25, 3.0])
def test_openai_sleeps_as_long_as_it_is_told(seconds: float) -> None:
    _, headers, _ = render(errors.RateLimitedError("m", retry_after=seconds), Dialect.OPENAI, "r")
    response = httpx2.Response(429, headers=headers)
    with openai_client(answering(200, [], b"")) as sdk:
        assert sdk._parse_retry_after_header(response.headers) == pytest.approx(  # noqa: SLF001  # the SDK's own reading
            seconds, abs=0.002
        )


STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]
CHAT_EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
)
RESPONSES_EVENT = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","delta":"Hi","sequence_number":3,'
    b'"item_id":"i","output_index":0,"content_index":0,"logprobs":[]}\n\n'
)
MESSAGES_EVENT = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
)
MID_STREAM: list[errors.GatewayError] = [
    errors.UpstreamTimeoutError("broke", phase="idle"),
    errors.UpstreamProtocolError("broke"),
    errors.UpstreamStreamError("broke", provider_type=None, provider_code=None, frame=b"garbage"),
    errors.GatewayError("broke", code="internal_error"),
]


@pytest.mark.parametrize("error", MID_STREAM, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(("client", "dialect"), [(openai_client, Dialect.OPENAI), (azure_client, Dialect.AZURE)])
def test_openai_raises_inside_a_chat_stream(
    error: errors.GatewayError, client: Callable[..., openai.OpenAI], dialect: Dialect
) -> None:
    body = CHAT_EVENT + stream_frame(error, Surface.CHAT, dialect, "r")
    with client(answering(200, STREAM, body)) as sdk:
        stream = sdk.chat.completions.create(model="m", messages=ASK, stream=True)
        assert next(stream).choices[0].delta.content == "Hi"
        with pytest.raises(openai.APIError, match="broke") as caught:
            next(stream)
    assert caught.value.code == error.error_code


@pytest.mark.parametrize("error", MID_STREAM, ids=lambda e: type(e).__name__)
def test_openai_raises_inside_a_responses_stream(error: errors.GatewayError) -> None:
    body = RESPONSES_EVENT + stream_frame(error, Surface.RESPONSES, Dialect.OPENAI, "r")
    with openai_client(answering(200, STREAM, body)) as sdk:
        stream = sdk.responses.create(model="m", input="hello", stream=True)
        assert next(stream).type == "response.output_text.delta"
        with pytest.raises(openai.APIError, match="broke") as caught:
            next(stream)
    assert caught.value.code == error.error_code


@pytest.mark.parametrize("error", MID_STREAM, ids=lambda e: type(e).__name__)
def test_anthropic_raises_inside_a_stream(error: errors.GatewayError) -> None:
    body = MESSAGES_EVENT + stream_frame(error, Surface.MESSAGES, Dialect.ANTHROPIC, "r")
    with anthropic_client(answering(200, STREAM, body)) as sdk:
        stream = sdk.messages.create(model="m", max_tokens=5, messages=ASK, stream=True)
        assert next(stream).type == "content_block_delta"
        with pytest.raises(anthropic.APIStatusError, match="broke"):
            next(stream)
