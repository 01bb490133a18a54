"""Clients of one dialect on providers of another, through the whole stack."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from rig import CHAT, GOOD, JSON, MESSAGES, RESPONSES, Rig, answering, failing, streaming
from running import KEY
from scripted import ScriptedAnswer
from translation.translating import chunk, events_of, message_stream, sse

pytestmark = pytest.mark.anyio
MESSAGE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-9",
        "content": [{"type": "text", "text": "Good day"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
).encode()
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-9",
        "created": 1,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
).encode()
TEXT = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "Good day"}]


def mixed(routes: dict[str, Any] | None = None, *, translation: str = "allow") -> Rig:
    usual = {"claude": "x/claude-sonnet-4-5", "gpt": "a/gpt-4o", "both": ["a/gpt-4o", "x/claude-opus-4-7"]}
    rig = Rig(routes or usual, GATEWAY_TRANSLATION=translation)
    rig.scripts["x"] = answering(MESSAGE)
    rig.scripts["a"] = answering(COMPLETION)
    return rig


def sent(rig: Rig) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(rig.exchange.requests[-1].body)
    return body


async def test_a_chat_client_on_claude() -> None:
    rig = mixed()
    answer = await rig.call("claude", seed=3)
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Good day"
    assert answer.json()["usage"]["total_tokens"] == 10
    assert answer.headers["x-gateway-dropped"] == "input, seed"
    assert rig.exchange.requests[-1].target.path == "/v1/messages"
    assert sent(rig)["model"] == "claude-sonnet-4-5"


async def test_a_messages_client_on_openai() -> None:
    rig = mixed()
    answer = await rig.call("gpt", path=MESSAGES)
    assert answer.json()["content"] == [{"type": "text", "text": "Hi"}]
    assert answer.json()["usage"]["input_tokens"] == 7
    assert rig.exchange.requests[-1].target.path == "/v1/chat/completions"


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_a_stream_ends_with_its_terminator_in_the_last_message(path: str) -> None:
    rig = mixed()
    whole = message_stream(TEXT)
    rig.scripts["x"] = streaming(*[whole[i : i + 7] for i in range(0, len(whole), 7)])
    answer = await rig.call("claude", path=path, stream=True)
    assert answer.is_complete
    assert (b"data: [DONE]" if path == CHAT else b"event: response.completed") in answer.chunks[-1]


async def test_a_call_falls_over_from_openai_to_claude_and_back() -> None:
    rig = mixed()
    rig.scripts["a"] = failing(503)
    answer = await rig.call("both", temperature=0.5)
    assert answer.json()["choices"][0]["message"]["content"] == "Good day"
    assert answer.headers["x-gateway-deployment"] == "x/claude-opus-4-7"
    assert "temperature" in answer.headers["x-gateway-dropped"]
    rig.scripts["x"] = failing(529)
    rig.scripts["a"] = answering(COMPLETION)
    back = await rig.call("both", path=MESSAGES)
    assert back.json()["content"][0]["text"] == "Hi"


async def test_a_stream_falls_over_before_its_first_content() -> None:
    rig = mixed()
    error = sse({"error": {"message": "no", "type": "server_error"}})
    rig.scripts["a"] = streaming(sse(chunk({"role": "assistant"})), error)
    rig.scripts["x"] = streaming(message_stream(TEXT))
    answer = await rig.call("both", stream=True)
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events_of(answer.body)) == "Good day"
    again = await rig.call("both", stream=True, path=MESSAGES)
    assert [e["type"] for e in events_of(again.body)][-1] == "message_stop"


async def test_a_strict_client_is_told_what_would_be_lost() -> None:
    rig = mixed()
    answer = await rig.call("claude", seed=3, headers={"x-gateway-strict": "true"})
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "input"
    assert "`seed`" in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == "lossy_translation"
    assert not rig.exchange.requests
    assert (await rig.call("claude", seed=3, headers={"x-gateway-strict": "perhaps"})).status == 400


async def test_a_strict_call_goes_on_to_a_deployment_that_loses_nothing() -> None:
    rig = mixed({"both": {"to": ["x/claude-opus-4-7", "a/gpt-4o"], "translate": "strict"}})
    answer = await rig.call("both", temperature=0.5)
    assert answer.headers["x-gateway-deployment"] == "a/gpt-4o"
    assert rig.calls == {"a": 1}


async def test_what_one_provider_cannot_say_goes_to_another() -> None:
    rig = mixed({"both": ["x/claude-opus-4-7", "a/gpt-4o"], "claude": "x/claude-opus-4-7"})
    answer = await rig.call("both", n=2)
    assert answer.headers["x-gateway-deployment"] == "a/gpt-4o"
    alone = await rig.call("claude", n=2)
    assert (alone.status, alone.json()["error"]["param"]) == (400, "n")


@pytest.mark.parametrize("route", [{"max_attempts": 1}, {"max_attempts": 1, "hedge": 5}])
async def test_that_the_next_one_cannot_be_told_is_not_why_the_first_one_failed(route: dict[str, Any]) -> None:
    rig = mixed({"both": {"to": ["a/gpt-4o", "x/claude-opus-4-7"], **route}})
    rig.scripts["a"] = failing(503)
    answer = await rig.call("both", n=2)
    assert answer.status == 503
    assert "x" not in rig.calls


async def test_one_that_failed_is_asked_again_where_the_next_one_cannot_be_told() -> None:
    rig = mixed()
    rig.scripts["a"] = failing(503)
    answer = await rig.call("both", n=2)
    assert answer.status == 503
    assert rig.calls == {"a": 3}


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-next-99"])
async def test_the_longest_output_is_what_the_route_says_of_the_model(model: str) -> None:
    rig = mixed({"claude": {"to": [{"to": f"x/{model}", "max_output": 1234}]}})
    assert (await rig.call("claude", max_tokens=None)).status == 200
    assert sent(rig)["max_tokens"] == 1234


async def test_without_translation_a_route_serves_its_own_dialect_only() -> None:
    rig = mixed(translation="off")
    answer = await rig.call("claude")
    assert (answer.status, answer.json()["error"]["code"]) == (400, "unsupported_surface")
    assert (await rig.call("claude", path=MESSAGES)).status == 200
    own = mixed({"claude": {"to": "x/claude-opus-4-7", "translate": "allow"}}, translation="off")
    assert (await own.call("claude")).status == 200


async def test_surfaces_that_nobody_translates_are_refused_by_name() -> None:
    answer = await mixed().call("claude", path="/v1/embeddings")
    assert answer.status == 400
    assert "embeddings" in answer.json()["error"]["message"]


async def test_models_without_a_route_go_where_their_names_belong() -> None:
    rig = mixed()
    assert (await rig.call("gpt-4o", path=MESSAGES)).headers["x-gateway-provider"] == "a"
    assert (await rig.call("claude-opus-4-7")).headers["x-gateway-provider"] == "x"


LONG = "Good morning to everyone. " * 400
"""About 2,000 tokens."""
COUNTING = [
    ("gpt", f"{MESSAGES}/count_tokens", {"messages": [{"role": "user", "content": LONG}]}, {}),
    ("claude", f"{RESPONSES}/input_tokens", {"input": LONG}, {"object": "response.input_tokens"}),
]


@pytest.mark.parametrize(("model", "path", "prompt", "more"), COUNTING)
async def test_a_count_by_estimate_grows_with_the_prompt(
    model: str, path: str, prompt: dict[str, Any], more: dict[str, Any]
) -> None:
    rig = mixed()
    answer = await rig.call(model, path=path, **prompt)
    assert answer.headers["x-gateway-estimated"] == "input_tokens"
    tokens = answer.json().pop("input_tokens")
    assert answer.json() == {"input_tokens": tokens, **more}
    assert 2000 < tokens < 3000
    assert not rig.exchange.requests


@pytest.mark.parametrize(("model", "path", "prompt", "more"), COUNTING)
async def test_a_count_takes_a_request_of_the_limits(
    model: str, path: str, prompt: dict[str, Any], more: dict[str, Any]
) -> None:
    tenants = {
        "acme": {
            "keys": [f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"],
            "requests": "2/hour",
            "tokens": "20/hour",
        }
    }
    routes = {"claude": "x/claude-sonnet-4-5", "gpt": "a/gpt-4o"}
    rig = Rig(routes, GATEWAY_TENANTS=json.dumps(tenants), GATEWAY_OPEN="")
    answers = [await rig.call(model, path=path, **prompt) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert all(item in answers[0].json().items() for item in more.items())


async def test_input_tokens_are_counted_by_the_deployment_that_can() -> None:
    rig = mixed({"both": ["x/claude-opus-4-7", "a/gpt-4o"]})
    rig.scripts["a"] = answering(b'{"object":"response.input_tokens","input_tokens":12}')
    answer = await rig.call("both", path=f"{RESPONSES}/input_tokens", input=LONG)
    assert answer.json() == {"object": "response.input_tokens", "input_tokens": 12}
    assert "x-gateway-estimated" not in answer.headers
    assert rig.exchange.requests[-1].target.path == "/v1/responses/input_tokens"


@pytest.mark.parametrize(
    ("status", "body", "is_estimated"),
    [
        (404, b'{"detail":"Not Found"}', True),
        (405, b"", True),
        (404, b'{"error":{"message":"The model `gpt-4o` does not exist","code":"model_not_found"}}', False),
        (400, b'{"error":{"message":"Unknown parameter"}}', False),
        (503, b"", False),
    ],
)
async def test_a_provider_without_the_path_does_not_count(status: int, body: bytes, *, is_estimated: bool) -> None:
    rig = mixed()
    rig.scripts["a"] = lambda _: ScriptedAnswer(status, JSON, [body])
    answer = await rig.call("gpt", path=f"{RESPONSES}/input_tokens", input=LONG)
    assert (answer.status == 200, "x-gateway-estimated" in answer.headers) == (is_estimated, is_estimated)


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "prompt"])
async def test_what_only_a_provider_has_stored_is_not_estimated(field: str) -> None:
    stored: dict[str, Any] = {field: "resp_1"}
    answer = await mixed().call("claude", path=f"{RESPONSES}/input_tokens", **stored)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == field


async def test_tokens_are_counted_by_the_deployment_that_can() -> None:
    rig = mixed()
    path = f"{MESSAGES}/count_tokens"
    rig.scripts["x"] = lambda _: ScriptedAnswer(200, JSON, [b'{"input_tokens":12}'])
    counted = await rig.call("both", path=path)
    assert counted.json() == {"input_tokens": 12}
    assert "x-gateway-estimated" not in counted.headers


async def test_a_provider_has_the_surfaces_that_it_is_said_to_have() -> None:
    providers = {"a": {"kind": "openai", "base_url": "https://a.test/v1", "api_key": "k", "surfaces": ["responses"]}}
    rig = Rig({"gpt": "a/gpt-4o"}, GATEWAY_PROVIDERS=json.dumps(providers))
    response = {"id": "resp_1", "object": "response", "model": "gpt", "status": "completed", "output": [], "usage": {}}
    rig.scripts["a"] = answering(json.dumps(response).encode())
    answer = await rig.call("gpt")
    assert answer.json()["object"] == "chat.completion"
    assert rig.exchange.requests[-1].target.path == "/v1/responses"


async def test_the_access_log_names_both_surfaces() -> None:
    rig = mixed()
    async with rig.gateway.lifespan():
        await rig.call("claude")
    (line,) = [found for raw in rig.log.raw.splitlines() if (found := json.loads(raw)).get("path") == CHAT]
    assert (line["surface"], line["upstream_surface"]) == ("chat", "messages")


async def test_an_answer_of_the_own_dialect_says_nothing_of_translation() -> None:
    rig = mixed()
    rig.scripts["a"] = answering(GOOD)
    answer = await rig.call("gpt")
    assert answer.body == GOOD
    assert "x-gateway-dropped" not in answer.headers
