"""The gateway behind its own HTTP protocol: what never reaches a layer is answered in the client's dialect as well."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from door_rig import Answer, answers, send
from gateway_middleware.commands.serve import door_limits
from gateway_middleware.serving.descriptors import raise_limit
from gateway_middleware.serving.http.limits import DoorLimits, HalfClose
from gateway_middleware.serving.http.refusal import Refusal
from gateway_middleware.serving.refusals import refuse_in_dialect
from gateway_middleware.settings import Settings
from gateway_middleware.simulator import Simulator
from running import KEY, environment, gateway_for

pytestmark = pytest.mark.anyio
AT_THE_DOOR = pytest.mark.own_server("what uvicorn refuses before any layer it refuses in its own words")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with Simulator().serve() as simulator, gateway_for(simulator.url) as url:
        yield int(url.rpartition(":")[2])


async def ask(port: int, data: bytes) -> Answer:
    (answer,) = answers(await send(port, data))
    return answer


BAD = b"content-length: 1\r\ncontent-length: 2\r\n\r\n"


@AT_THE_DOOR
async def test_what_no_layer_has_seen_is_in_the_metrics(port: int) -> None:
    for _ in range(3):
        await ask(port, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + BAD)
    await ask(port, b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n" % (b"a" * 70_000))
    metrics = (await ask(port, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).body
    assert b'model_gateway_refused_requests_total{code="invalid_http"} 3.0' in metrics
    assert b'model_gateway_refused_requests_total{code="request_target_too_long"} 1.0' in metrics


@AT_THE_DOOR
async def test_openai_dialect(port: int) -> None:
    answer = await ask(port, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n" + BAD)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_http")
    assert answer.header(b"x-request-id") == b"mine"
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"connection") == b"close"


@AT_THE_DOOR
@pytest.mark.parametrize("target", [b"/v1/messages", b"/anthropic/v1/messages?beta=true", b"/v1/models"])
async def test_anthropic_dialect(port: int, target: bytes) -> None:
    answer = await ask(port, b"POST %b HTTP/1.1\r\nhost: x\r\nanthropic-version: 2023-06-01\r\n" % target + BAD)
    document = json.loads(answer.body)
    assert (answer.status, document["type"], document["error"]["type"]) == (400, "error", "invalid_request_error")
    assert document["request_id"].encode() == answer.header(b"x-request-id")


@AT_THE_DOOR
async def test_what_is_too_large_for_the_process_has_the_class_of_the_sdk(port: int) -> None:
    answer = await ask(port, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")


@pytest.mark.own_server("uvicorn keeps the connection of a call whose body it has not read")
async def test_a_refused_call_ends_its_connection_and_one_that_was_read_keeps_it(port: int) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
    early = await ask(port, head + b"\r\n")
    assert (early.status, early.header(b"connection")) == (401, b"close")
    health = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    both = answers(await send(port, head + b"\r\n{}" + health))
    assert [a.status for a in both] == [401, 200]


async def test_http_1_0_without_a_host_is_served(port: int) -> None:
    assert (await ask(port, b"GET /healthz HTTP/1.0\r\n\r\n")).status == 200


async def test_the_sdks_through_it(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    ask: list[Any] = [{"role": "user", "content": "hello"}]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        for _ in range(3):
            stream = await client.chat.completions.create(model="gpt-5-mini", messages=ask, stream=True)
            assert [chunk async for chunk in stream]
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as other:
        whole = await other.messages.create(model="anthropic/claude-9", max_tokens=9, messages=ask)
        assert whole.content


async def test_an_sdk_with_a_wrong_key_and_a_long_prompt_learns_that_the_key_is_wrong(port: int) -> None:
    ask: list[Any] = [{"role": "user", "content": "a" * 8_000_000}]
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="gw-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="gpt-5-mini", messages=ask)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "invalid_http"),
        (405, "invalid_request_error", "method_not_allowed"),
        (408, "timeout_error", "request_timeout"),
        (413, "invalid_request_error", "request_too_large"),
        (414, "invalid_request_error", "request_target_too_long"),
        (431, "invalid_request_error", "request_head_too_large"),
        (500, "api_error", "internal_error"),
        (503, "service_unavailable_error", "unavailable"),
        (505, "invalid_request_error", "http_version_not_supported"),
    ],
)
def test_every_status_has_a_type_and_a_code(status: int, kind: str, code: str) -> None:
    headers, body = refuse_in_dialect(Refusal(status=status, message="why", retry_after=0.5, target=b"\xff%zz?"))
    error = json.loads(body)["error"]
    assert (error["message"], error["type"], error["code"]) == ("why", kind, code)
    names = [name for name, _ in headers]
    assert {b"retry-after", b"retry-after-ms", b"x-request-id", b"content-type"} <= set(names)
    assert b"content-length" not in names


def test_the_settings_are_those_of_the_door() -> None:
    usual = DoorLimits(linger_bytes=16 * 1024 * 1024 + 64 * 1024)
    assert door_limits(Settings()) == msgspec.structs.replace(usual, max_connections=raise_limit(10_000))
    values = {
        "GATEWAY_HEAD_SECONDS": "1",
        "GATEWAY_BODY_SECONDS": "2",
        "GATEWAY_IDLE_SECONDS": "3",
        "GATEWAY_MAX_HEAD_BYTES": "4096",
        "GATEWAY_MAX_HEADERS": "5",
        "GATEWAY_MAX_CONNECTIONS": "6",
        "GATEWAY_MAX_BODIES_BYTES": "7000",
        "GATEWAY_HALF_CLOSE": "allow",
        "GATEWAY_MAX_BODY_BYTES": "8000",
    }
    settings = Settings.from_env(environment("http://127.0.0.1:9", **values))
    assert door_limits(settings) == DoorLimits(
        head_seconds=1,
        body_seconds=2,
        idle_seconds=3,
        linger_bytes=8000 + 64 * 1024,
        max_head_bytes=4096,
        max_headers=5,
        max_connections=6,
        max_bodies_bytes=7000,
        half_close=HalfClose.ALLOW,
    )
    assert any("GATEWAY_MAX_BODIES_BYTES" in line for line in settings.warnings())
    assert not any("GATEWAY_MAX_BODIES_BYTES" in line for line in Settings().warnings())
