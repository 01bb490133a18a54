"""Guards before a whole gateway: prompts, answers and streams of each dialect."""

from __future__ import annotations

import asyncio
import json
import runpy
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_driver import drive
from gateway_middleware.guard.port import PASS, Guarded, Stage, Verdict
from gateway_middleware.guard.rules import GuardRule
from rawserver import Peer, plain, raw_server, respond
from rig import CHAT, MESSAGES, Rig, answering, chat_events, streaming
from running import KEY, LogLines, gateway_for

pytestmark = pytest.mark.anyio
CARD, CLEAN = "4111-1111", "[card]"
ANSWER = {
    "id": "c", "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": f"It is {CARD}."}, "finish_reason": "stop"}],
}  # fmt: skip


async def redact(guarded: Guarded) -> Verdict:
    if "forbidden" in guarded.content:
        return Verdict(action="refuse", reason="a word that must not be")
    if CARD in guarded.content:
        return Verdict(action="replace", content=guarded.content.replace(CARD, CLEAN))
    return PASS


def rig_with(guard: Any = redact, **rule: Any) -> Rig:
    return Rig(guards=[GuardRule(name="pii", guard=guard, **{"window": 8, "overlap": 9, **rule})])


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_a_prompt_is_replaced_before_its_provider_sees_it() -> None:
    rig = rig_with()
    assert (await rig.call(messages=asking(f"card {CARD}"), temperature=0.5)).status == 200
    sent = json.loads(rig.exchange.requests[0].body)
    assert sent["messages"] == asking(f"card {CLEAN}")
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.5, 9)


async def test_a_guard_cannot_change_what_was_limited() -> None:
    async def greedy(guarded: Guarded) -> Verdict:
        body = json.loads(guarded.content) | {"model": "other", "max_tokens": 100_000, "n": 50}
        return Verdict(action="replace", content=json.dumps(body))

    rig = rig_with(greedy, stages=frozenset({Stage.REQUEST}))
    await rig.call()
    sent = json.loads(rig.exchange.requests[0].body)
    assert (sent["model"], sent["max_tokens"], sent.get("n")) == ("m", 9, None)


@pytest.mark.parametrize("content", ["no json", "[]", '{"messages": "' + "x" * 200_000 + '"}'])
async def test_a_replacement_that_is_no_request_refuses_the_call(content: str) -> None:
    async def odd(_: Guarded) -> Verdict:
        return Verdict(action="replace", content=content)

    rig = rig_with(odd)
    assert (await rig.call()).status in {403, 413}
    assert not rig.calls


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_refused_prompt_reaches_no_provider_and_says_so_in_the_clients_dialect(path: str) -> None:
    rig = rig_with()
    answer = await rig.call(path=path, messages=asking("forbidden"))
    assert answer.status == 403
    assert "Refused by the guard pii: a word that must not be" in answer.json()["error"]["message"]
    assert not rig.calls
    (line,) = rig.lines("guard")
    assert (line["guard"], line["stage"], line["tenant"]) == ("pii", "request", "open")
    assert line["reason"] == "a word that must not be"


async def test_an_answer_is_replaced_and_its_length_is_right() -> None:
    rig = rig_with()
    rig.scripts["a"] = answering(json.dumps(ANSWER).encode())
    answer = await rig.call()
    assert answer.json()["choices"][0]["message"]["content"] == f"It is {CLEAN}."
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_an_answer_that_passes_is_byte_for_byte_the_providers() -> None:
    rig = rig_with()
    body = json.dumps(ANSWER, indent=3).replace(CARD, "none").encode()
    rig.scripts["a"] = answering(body)
    assert (await rig.call()).body == body


async def test_a_refused_answer_is_an_error_and_no_fault_of_its_provider() -> None:
    rig = rig_with()
    rig.scripts["a"] = answering(json.dumps(ANSWER).replace(CARD, "forbidden").encode())
    answer = await rig.call()
    assert (answer.status, answer.json()["error"]["code"]) == (403, "guard_refused")
    assert rig.calls == {"a": 1}
    assert await rig.state() == "closed"


async def test_an_error_of_a_provider_passes() -> None:
    rig = rig_with()
    rig.scripts["a"] = answering(b'{"error":{"message":"forbidden","code":"x"}}', status=400)
    assert (await rig.call()).status == 400


async def test_a_stream_is_replaced_wherever_it_is_cut() -> None:
    rig = rig_with()
    rig.scripts["a"] = streaming(*chat_events("It is 41", "11-", "1111", " they say"))
    answer = await rig.call(stream=True)
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e.get("choices"))
    assert text == f"It is {CLEAN} they say"
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_a_stream_is_refused_where_it_stands_and_its_provider_is_left() -> None:
    rig = rig_with()
    rig.scripts["a"] = streaming(*chat_events("All is well here. ", "This is fine. ", "forbidden", *["more"] * 50))
    body = (await rig.call(stream=True)).body.decode()
    assert "All is well" in body
    assert "forbidden" not in body
    assert "more" not in body
    assert "Refused by the guard pii" in body
    assert "[DONE]" not in body


async def test_a_refused_stream_whose_provider_goes_on_ends_with_the_refusal() -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for event in chat_events("All is well here. ", "This is fine. ", "forbidden"):
            await peer.send(event if b"[DONE]" not in event else b": thinking\n\n")
        await peer.closed.wait()

    log = LogLines()
    rule = GuardRule(name="pii", guard=redact, window=8, overlap=9)
    body = {"model": "openai/m", "messages": asking("Hello"), "stream": True}
    async with raw_server(endless) as server:
        async with gateway_for(server.url, {"guards": [rule], "write_log": log}) as url, httpx.AsyncClient() as client:
            answer = await client.post(url + CHAT, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=20)
            await asyncio.wait_for(server.peers[0].closed.wait(), 1)
    assert "All is well" in answer.text
    assert answer.text.endswith("\n\n")
    assert json.loads(answer.text.split("data: ")[-1])["error"]["code"] == "guard_refused"
    (line,) = [json.loads(line) for line in log.raw.splitlines() if b'"chat"' in line and b"outcome" in line]
    assert line["error_code"] == "guard_refused"


async def test_a_guard_that_must_be_asked_and_cannot_be_is_a_503() -> None:
    async def dying(_: Guarded) -> Verdict:
        raise OSError("gone")

    answer = await rig_with(dying).call()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "guard_unavailable")
    assert answer.headers["retry-after"]
    assert (await rig_with(dying, fails_open=True).call()).status == 200


async def test_verdicts_are_metrics() -> None:
    rig = rig_with()
    await rig.call(messages=asking("forbidden"))
    text = await rig.get_text("/metrics")
    assert 'model_gateway_guard_verdicts_total{guard="pii",result="refuse",stage="request"} 1.0' in text


async def test_the_example_takes_card_numbers_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps(ANSWER).replace(CARD, "4111 1111 1111 1111").encode()
    async with raw_server(respond(plain(answer, extra=b"content-type: application/json\r\n"))) as server:
        monkeypatch.chdir(tmp_path)
        for name, value in {
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "sk-0123456789",
            "GATEWAY_OPEN": "1",
        }.items():
            monkeypatch.setenv(name, value)
        app = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "guarded_prompts.py"))["app"]
        body = json.dumps({"model": "gpt-5", "messages": asking("My card: 4111-1111-1111-1111")}).encode()
        async with app.lifespan():
            got = await drive(app, method="POST", path=CHAT, headers={"content-type": "application/json"}, body=body)
        assert got.json()["choices"][0]["message"]["content"] == "It is [card]."
        assert b"My card: [card]" in server.requests[0]
