"""Two tenants on one provider account, through the whole gateway: nothing of the one reaches the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_driver import Transcript, drive
from gateway_middleware import Gateway, Settings
from gateway_middleware.tenancy.keys import digest
from rig import CHAT, GOOD, JSON, MESSAGES, RESPONSES
from running import environment
from scripted import ScriptedAnswer, ScriptedExchange

pytestmark = pytest.mark.anyio

KEYS = {"acme": "gw-acme-0123456789abcdef0123456789", "bravo": "gw-bravo-0123456789abcdef0123456789"}
ANSWER = json.dumps(
    {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "message", "id": "msg_1", "role": "assistant", "content": []},
            {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "cntr_1"},
        ],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
).encode()


class Pair:
    """A gateway with two tenants (or one) over a scripted account."""

    def __init__(self, answer: bytes = GOOD, *, tenants: tuple[str, ...] = ("acme", "bravo"), **extra: str) -> None:
        self.exchange = ScriptedExchange(lambda _: ScriptedAnswer(200, JSON, [answer]))
        listed = {name: {"keys": [digest(KEYS[name].encode())]} for name in tenants}
        variables = environment("http://127.0.0.1:1", GATEWAY_TENANTS=json.dumps(listed), **extra)
        self.gateway = Gateway(Settings.from_env(variables), exchange=self.exchange)

    async def ask(self, path: str, document: dict[str, Any], tenant: str = "acme") -> Transcript:
        headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEYS[tenant]}".encode())]
        body = json.dumps({"model": "m", "max_tokens": 9, **document}).encode()
        return await drive(self.gateway, method="POST", path=path, headers=headers, body=body)


@pytest.mark.parametrize(
    ("path", "document", "param"),
    [
        (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages"),
        (CHAT, {"messages": [], "data_sources": [{"type": "azure_search", "parameters": {}}]}, "data_sources"),
        (RESPONSES, {"input": [{"type": "image_generation_call", "id": "ig_1"}]}, "input"),
        (RESPONSES, {"input": "x", "conversation": "conv_1"}, "conversation"),
        ("/openai/v1/responses", {"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
async def test_a_reference_is_refused_in_openais_words(path: str, document: dict[str, Any], param: str) -> None:
    pair = Pair()

    answer = await pair.ask(path, {"model": "gpt-5", **document})

    assert answer.status == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("shared_resource", param)
    assert pair.exchange.requests == []
    assert (await Pair(tenants=("acme",)).ask(path, {"model": "gpt-5", **document})).status == 200


async def test_a_reference_is_refused_in_anthropics_words() -> None:
    block = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}

    answer = await Pair().ask(MESSAGES, {"model": "claude-x", "messages": [{"role": "user", "content": [block]}]})

    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "`messages` holds `file_id`" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "document",
    [
        {"previous_response_id": "resp_1"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "cntr_1"}]},
        {"input": "x", "tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
    ],
)
async def test_se23_what_a_tenant_got_is_its_own(document: dict[str, Any]) -> None:
    pair = Pair(ANSWER)
    assert (await pair.ask(RESPONSES, {"model": "gpt-5", "input": "x"})).status == 200

    assert (await pair.ask(RESPONSES, {"model": "gpt-5", **document})).status == 200
    assert (await pair.ask(RESPONSES, {"model": "gpt-5", **document}, "bravo")).status == 400
    assert len(pair.exchange.requests) == 2


async def test_what_is_complete_in_itself_goes_up_byte_for_byte() -> None:
    pair = Pair()
    document = {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "file_id"}], "name": "é"}],
        "of_tomorrow": {"level": 1.50, "mode": "fast", "is_on": None},
    }

    assert (await pair.ask(CHAT, document)).status == 200
    assert json.loads(pair.exchange.requests[0].body) == {"max_tokens": 9, **document}


async def test_a_provider_that_keeps_nothing_takes_any_field() -> None:
    own = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": "sk-0123456789", "stateless": True}
    pair = Pair(GATEWAY_PROVIDERS=json.dumps({"vllm": own}))
    document = {"messages": [], "guided_regex": "[a-z]_1"}

    assert (await pair.ask(CHAT, {"model": "vllm/m", **document})).status == 200
    assert (await pair.ask(CHAT, {"model": "openai/m", **document})).status == 400
