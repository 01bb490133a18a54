"""Thoughts of other vendors that a Messages client brings to Anthropic: asked again without them, and only then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import UpstreamStatusError
from gateway_middleware.simulator import Simulator
from provider_calls import deployment, model_request, tried_without
from running import KEY, gateway_for
from translation.translating import CHAT, MESSAGES, provider

TARGET = deployment("claude-sonnet-4-5", "anthropic")
INVALID = b'{"type":"error","error":{"message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}'
SIGNED: dict[str, Any] = {"type": "thinking", "thinking": "t", "signature": "RXJr"}
USED: dict[str, Any] = {"type": "tool_use", "id": "c", "name": "f", "input": {}}


def thought(signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "", "signature": signature}


def asked(*content: Any, surface: Surface = MESSAGES, **more: Any) -> Any:
    turns: list[Any] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": list(content)}]
    body = json.dumps({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": turns}).encode()
    return model_request(surface, body, **more)


def refusal(body: bytes = INVALID, status: int = 400) -> UpstreamStatusError:
    return UpstreamStatusError("no", upstream_status=status, upstream_headers=[], body=body)


@pytest.mark.parametrize("surface", [MESSAGES, Surface.COUNT_TOKENS])
@pytest.mark.parametrize("mark", ["openai.rs_1.gAAA", "google.c2ln"])
def test_after_a_refusal_they_are_left_out(mark: str, surface: Surface) -> None:
    wrapped, request = provider("anthropic"), asked(thought(mark), SIGNED, USED, surface=surface)
    assert wrapped.prepare(request, TARGET).body == request.body
    assert tried_without(wrapped, request, TARGET, refusal())
    turns = json.loads(wrapped.prepare(request, TARGET).body)["messages"]
    assert turns == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [SIGNED, USED]}]


def test_a_turn_of_nothing_else_is_left_out_and_other_requests_pass_byte_for_byte() -> None:
    wrapped, request = provider("anthropic"), asked(thought("google.x"))
    assert tried_without(wrapped, request, TARGET, refusal())
    assert json.loads(wrapped.prepare(request, TARGET).body)["messages"] == [{"role": "user", "content": "hi"}]
    for other in (asked(SIGNED, USED), asked("x", 1, None), asked({"type": "text", "text": '"signature":"openai.'})):
        assert wrapped.prepare(other, TARGET).body == other.body


@pytest.mark.parametrize(
    "messages", [b"1", b'[{"role":"user","content":[1e999,{"signature":"google.x"}]}]', b'["google."]']
)
def test_turns_that_cannot_be_read_are_the_providers_affair(messages: bytes) -> None:
    wrapped = provider("anthropic")
    assert tried_without(wrapped, asked(thought("google.x")), TARGET, refusal())
    body = b'{"model":"claude-sonnet-4-5","messages":%b,"x":{"signature":"google.x"}}' % messages
    request = model_request(MESSAGES, body)
    assert wrapped.prepare(request, TARGET).body == body


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (asked(SIGNED), refusal()),
        (asked(thought("google.x")), refusal(b"overloaded")),
        (asked(thought("google.x")), refusal(status=500)),
        (asked(thought("google.x"), is_strict=True), refusal()),
        (asked(thought("google.x"), surface=CHAT), refusal()),
    ],
)
def test_other_errors_teach_nothing(request_: Any, error: UpstreamStatusError) -> None:
    assert not tried_without(provider("anthropic"), request_, TARGET, error)


def test_a_strict_client_loses_none() -> None:
    wrapped = provider("anthropic")
    assert tried_without(wrapped, asked(thought("google.x")), TARGET, refusal())
    strict = asked(thought("google.x"), is_strict=True)
    assert wrapped.prepare(strict, TARGET).body == strict.body


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


@pytest.mark.anyio
async def test_a_conversation_that_comes_from_another_vendor_goes_on(simulator: Any) -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "1"}
    turns: Any = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [thought("google.c2ln"), USED]},
        {"role": "user", "content": [result]},
    ]
    async with gateway_for(simulator.url) as url:
        async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
            for _ in range(2):
                answer = await client.messages.create(model="anthropic/claude", max_tokens=9, messages=turns)
                assert answer.content
    assert [b"google." in request.body for request in simulator.simulator.requests] == [True, False, False]
