"""Rows MT1 to MT19 at the gateway: one usage event for every attempt that used something, in every ending."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from asgi_driver import drive
from gateway_middleware import Journal, UsageMiddleware
from gateway_middleware.core.asgi import Receive, Scope, Send
from gateway_middleware.core.errors import (
    ProtocolFault,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.simulator import Simulator
from rig import ASK, CHAT, MESSAGES, Rig, answering, chat_events, failing, streaming
from running import KEY, gateway_for
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
START = {"type": "message_start", "message": {"id": "m1", "model": "claude-x", "usage": {"input_tokens": 70}}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 20}}


def event(said: dict[str, Any]) -> bytes:
    return f"event: {said['type']}\ndata: {json.dumps(said)}\n\n".encode()


FINISHED = b'data: {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'


class Metered:
    """A rig with a journal, and the events in it."""

    def __init__(self, folder: Path, routes: dict[str, Any] | None = None, **extra: Any) -> None:
        self.path = folder / "journal.db"
        self.rig = Rig(routes, GATEWAY_JOURNAL=str(self.path), **extra)

    async def events(self) -> list[UsageEvent]:
        """Everything that was closed."""
        await self.rig.gateway.aclose()
        with sqlite3.connect(self.path) as db:
            rows = db.execute("SELECT body FROM events ORDER BY seq").fetchall()
        return [msgspec.json.decode(body, type=UsageEvent) for (body,) in rows]

    async def only(self) -> UsageEvent:
        (found,) = await self.events()
        return found


async def test_mt1_every_answered_call_is_one_exact_event(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    for number in range(200):
        usage = {"prompt_tokens": number, "completion_tokens": 2 * number}
        metered.rig.scripts["a"] = answering(json.dumps({"id": "c", "model": "m-1", "usage": usage}).encode())
        await metered.rig.call(stream=False)
    events = await metered.events()
    assert len({e.id for e in events}) == 200
    assert sum(e.usage.input_tokens or 0 for e in events) == sum(range(200))
    assert sum(e.usage.output_tokens or 0 for e in events) == 2 * sum(range(200))
    first = events[5]
    assert (first.usage_source, first.outcome, first.status) == ("provider", "success", 200)
    assert (first.tenant, first.provider, first.deployment, first.model, first.route) == (
        "open",
        "a",
        "a/m",
        "fast",
        "fast",
    )
    assert (first.model_served, json.loads(bytes(first.raw_usage))) == (
        "m-1",
        {"prompt_tokens": 5, "completion_tokens": 10},
    )


async def test_header_and_event_tell_the_same_cost(tmp_path: Path) -> None:
    prices = json.dumps({"a/m": {"input": "0.15", "output": "0.6", "cached_input": "0.075", "version": "mine"}})
    metered = Metered(tmp_path, GATEWAY_PRICES=prices)
    odd = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 9}}
    answers = []
    for usage in ({"prompt_tokens": 1001, "completion_tokens": 13}, odd, {"prompt_tokens": 1001}, None):
        body = {"id": "c", "model": "m"} | ({} if usage is None else {"usage": usage})
        metered.rig.scripts["a"] = answering(json.dumps(body).encode())
        answers.append(await metered.rig.call(stream=False))
    metered.rig.scripts["a"] = streaming(*chat_events("hi"))
    answers.append(await metered.rig.call(stream=True))
    plain, strange, *others = await metered.events()
    assert [answer.headers.get("x-gateway-cost") for answer in answers] == [plain.cost, strange.cost, None, None, None]
    assert (plain.cost, plain.price_version, strange.cost) == ("0.00015795", "mine", "0.000004875")
    assert len(others) == 3


async def test_mt10_a_stream_that_is_left_is_partial_with_what_is_known(tmp_path: Path) -> None:
    metered = Metered(tmp_path, {"claude": "x/m"})

    class Slowly(ScriptedAnswer):
        async def chunk(self) -> bytes:
            await asyncio.sleep(0.01)
            return await super().chunk()

    chunks = [event(START), *[event(TEXT)] * 50]
    metered.rig.scripts["x"] = lambda _: Slowly(200, [(b"content-type", b"text/event-stream")], chunks)
    await metered.rig.call("claude", path=MESSAGES, stream=True, leave_after=6)
    found = await metered.only()
    assert (found.outcome, found.usage_source, found.usage.input_tokens) == ("client_disconnect", "partial", 70)
    assert 20 * 4 <= (found.usage.output_tokens or 0) <= 20 * 51 * 1.5
    assert found.ttft is not None


async def test_mt11_left_before_the_first_token_the_input_is_estimated(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    asked = asyncio.Event()

    class Thinking(ScriptedAnswer):
        async def chunk(self) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

    metered.rig.scripts["a"] = lambda _: Thinking(200, [(b"content-type", b"text/event-stream")], [])
    call = asyncio.create_task(metered.rig.call(stream=True, messages=[{"role": "user", "content": "word " * 400}]))
    await asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    found = await metered.only()
    assert (found.usage_source, found.usage.output_tokens) == ("estimated", None)
    assert 300 < (found.usage.input_tokens or 0) < 700


@pytest.mark.own_engine("a read of httpx that was cancelled cannot be gone on with")
async def test_mt12_drain_reads_on_for_the_providers_own_numbers(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        provider = {
            "kind": "openai", "base_url": f"{simulator.url}/v1", "api_key": "sk", "on_disconnect": "drain",
        }  # fmt: skip
        journal = tmp_path / "journal.db"
        async with gateway_for(
            simulator.url, GATEWAY_PROVIDERS=json.dumps({"p": provider}), GATEWAY_JOURNAL=str(journal)
        ) as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                body = {"model": "p/sim-gap-5:length-40:output-40", "messages": ASK, "stream": True}
                headers = {"authorization": f"Bearer {KEY}"}
                async with client.stream("POST", CHAT, json=body, headers=headers) as answer:
                    await anext(answer.aiter_lines())
            await asyncio.sleep(0.6)
        with sqlite3.connect(journal) as db:
            ((found,),) = db.execute("SELECT body FROM events").fetchall()
    event = msgspec.json.decode(found, type=UsageEvent)
    assert (event.usage_source, event.usage.output_tokens, event.outcome) == ("provider", 40, "client_disconnect")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_mt13_missing_usage_is_estimated_and_flagged(tmp_path: Path, is_stream: bool) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 12
    metered = Metered(tmp_path)
    whole = {"id": "c", "choices": [{"message": {"role": "assistant", "content": text}}]}
    metered.rig.scripts["a"] = streaming(*chat_events(text)) if is_stream else answering(json.dumps(whole).encode())
    await metered.rig.call(stream=is_stream)
    found = await metered.only()
    assert (found.usage_source, found.flags) == ("estimated", ("usage_missing",))
    assert 100 <= (found.usage.output_tokens or 0) <= 140


async def test_mt13_zero_is_zero_and_nonsense_is_nothing(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    usages = [{"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": -5, "completion_tokens": 3},
              {"prompt_tokens": 10**12, "completion_tokens": 3}]  # fmt: skip
    for usage in usages:
        metered.rig.scripts["a"] = answering(json.dumps({"id": "c", "usage": usage}).encode())
        await metered.rig.call()
    zero, negative, huge = await metered.events()
    assert (zero.usage.input_tokens, zero.usage.output_tokens, zero.usage_source) == (0, 0, "provider")
    for odd in (negative, huge):
        assert (odd.usage_source, odd.flags, odd.usage.output_tokens) == ("partial", ("usage_odd",), 3)
        assert 5 <= (odd.usage.input_tokens or 0) <= 50


async def test_mt16_one_event_for_each_attempt_that_used_something(tmp_path: Path) -> None:
    metered = Metered(tmp_path, {"fast": ["x/m", "x/n"]})
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "o"}}
    good = [event(START), event(TEXT), event({"type": "message_delta", "usage": {"output_tokens": 22}}),
            event({"type": "message_stop"})]  # fmt: skip
    scripts = [streaming(event(START), event(overloaded)), streaming(*good)]
    metered.rig.scripts["x"] = lambda request: scripts.pop(0)(request)
    await metered.rig.call(path=MESSAGES, stream=True)
    first, second = await metered.events()
    assert (first.attempt, first.outcome, first.usage_source) == (1, "stream_error", "partial")
    assert (second.attempt, second.outcome, second.usage_source) == (2, "success", "provider")
    assert second.usage.output_tokens == 22
    assert first.id[:-1] == second.id[:-1]


HEADLESS = [
    lambda _: UpstreamTimeoutError("late", phase="first_byte"),
    lambda _: UpstreamProtocolError("cut", fault=ProtocolFault.TRUNCATED),
    lambda _: UpstreamConnectError("refused"),
]


@pytest.mark.parametrize("script", [failing(500), failing(400, "bad"), failing(429), *HEADLESS])
async def test_failures_without_usage_are_no_event(tmp_path: Path, script: Any) -> None:
    metered = Metered(tmp_path, GATEWAY_MAX_ATTEMPTS="1")
    metered.rig.scripts["a"] = script
    await metered.rig.call()
    metering = (await metered.rig.get("/v1/health"))["metering"]
    assert metering["disk"] == "ok"
    health = metering["calls"]
    assert (health["admitted"], health["voided"], health["open"]) == (1, 1, 0)
    assert await metered.events() == []


@pytest.mark.parametrize("body", [b"<html>", b'{"id": "c", "usage": {"prompt_tok'])
async def test_an_answer_that_the_gateway_refuses_is_metered_as_estimated(tmp_path: Path, body: bytes) -> None:
    metered = Metered(tmp_path, GATEWAY_MAX_ATTEMPTS="1")
    metered.rig.scripts["a"] = answering(body)
    assert (await metered.rig.call()).status == 502
    event = await metered.only()
    assert (event.outcome, event.usage_source, event.status) == ("protocol_error", "estimated", 200)
    assert event.usage.input_tokens


async def test_the_last_count_of_a_provider_stands_though_the_stream_breaks_after_it(tmp_path: Path) -> None:
    metered = Metered(tmp_path, {"fast": "a/m", "claude": "x/m"}, GATEWAY_MAX_ATTEMPTS="1")
    usage = {"id": "c", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    metered.rig.scripts["a"] = streaming(
        *chat_events("word " * 40, end=False), b"data: %b\n\n" % json.dumps(usage).encode()
    )
    await metered.rig.call(stream=True)
    told = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})
    lost = UpstreamProtocolError("The connection was lost.", fault=ProtocolFault.TRUNCATED)
    metered.rig.scripts["x"] = streaming(event(START), event(TEXT), told, failure=lost)
    await metered.rig.call("claude", path=MESSAGES, stream=True)
    chat, message = await metered.events()
    assert (chat.usage.output_tokens, chat.usage_source) == (2, "provider")
    assert (message.usage.input_tokens, message.usage.output_tokens, message.usage_source) == (70, 2, "provider")


STOPPED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}


CUT_CHAT = [*chat_events("word " * 9, end=False), FINISHED]
CUT_MESSAGE = [event(START), event(TEXT), event(STOPPED)]


@pytest.mark.parametrize(
    ("model", "path", "last"),
    [
        ("fast", CHAT, b"[DONE]"),
        ("fast", MESSAGES, b"message_stop"),
        ("claude", MESSAGES, b"message_stop"),
        ("claude", CHAT, b"[DONE]"),
    ],
)
async def test_a_stream_that_lacks_only_its_terminating_event_is_a_success(
    tmp_path: Path, model: str, path: str, last: bytes
) -> None:
    metered = Metered(tmp_path, {"fast": ["a/m", "b/m"], "claude": "x/m"})
    metered.rig.scripts = {"a": streaming(*CUT_CHAT), "x": streaming(*CUT_MESSAGE)}
    answer = await metered.rig.call(model, path=path, stream=True)
    assert last in answer.body.splitlines()[-2]
    assert b'"error"' not in answer.body
    rows = (await metered.rig.get("/v1/health"))["circuit_breakers"]["a" if model == "fast" else "x"]["deployments"]
    assert [(row["successes"], row["failures"]) for row in rows.values()] == [(1, 0)]
    found = await metered.only()
    assert (found.outcome, found.usage_source) == ("success", "estimated" if model == "fast" else "provider")


async def test_output_that_a_provider_does_not_count_is_estimated(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    whole = {"id": "c", "choices": [{"message": {"content": "word " * 50}}], "usage": {"prompt_tokens": 5}}
    metered.rig.scripts["a"] = answering(json.dumps(whole).encode())
    await metered.rig.call()
    found = await metered.only()
    assert (found.usage_source, found.flags, found.usage.input_tokens) == ("partial", ("usage_odd",), 5)
    assert 40 <= (found.usage.output_tokens or 0) <= 70


async def test_mt17_what_a_client_calls_its_call_is_not_the_id(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    body = json.dumps({"model": "fast", "messages": []}).encode()
    headers = {"content-type": "application/json", "x-request-id": "same", "idempotency-key": "same"}
    for _ in range(2):
        await drive(metered.rig.gateway, method="POST", path=CHAT, headers=headers, body=body)
    one, other = await metered.events()
    assert one.id != other.id
    assert one.request_id == other.request_id == "same"


async def test_mt18_no_prompt_and_no_key_in_any_file(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    canary = "canary-prompt-4711"
    for script in (answering(), failing(500), streaming(*chat_events("x", end=False))):
        metered.rig.scripts["a"] = script
        await metered.rig.call(messages=[{"role": "user", "content": canary}], stream=True)
    await metered.events()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert canary.encode() not in content
    assert b"sk-secret" not in content
    assert KEY.encode() not in content


async def test_a_price_is_exact_and_an_unknown_one_is_null(tmp_path: Path) -> None:
    prices = {"a/m": {"input": 1.25, "output": 10, "cached_input": 0.125, "version": "ours-1"}}
    metered = Metered(tmp_path, {"fast": "a/m", "odd": "b/unheard-of"}, GATEWAY_PRICES=json.dumps(prices))
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    metered.rig.scripts["a"] = metered.rig.scripts["b"] = answering(json.dumps({"id": "c", "usage": usage}).encode())
    await metered.rig.call("fast")
    await metered.rig.call("odd")
    text = (await drive(metered.rig.gateway, path="/metrics")).body.decode()
    assert "model_gateway_usage_unpriced_total 1.0" in text
    priced, unknown = await metered.events()
    assert (priced.cost, priced.price_version) == ("0.0018", "ours-1")
    assert (unknown.cost, unknown.price_version) == (None, None)


async def test_mt6_what_cannot_be_recorded_is_not_asked(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    metered = Metered(folder)
    await metered.rig.call()
    assert (await drive(metered.rig.gateway, path="/readyz")).status == 200
    folder.rename(tmp_path / "elsewhere")
    folder.write_bytes(b"in the way")
    async with asyncio.timeout(5):
        while (refused := await metered.rig.call()).status == 200:
            await asyncio.sleep(0.05)
    assert (refused.status, refused.json()["error"]["code"]) == (503, "journal_unavailable")
    asked = metered.rig.calls["a"]
    assert (await metered.rig.call()).status == 503
    assert metered.rig.calls["a"] == asked
    assert (await drive(metered.rig.gateway, path="/readyz")).status == 503
    folder.unlink()
    (tmp_path / "elsewhere").rename(folder)
    async with asyncio.timeout(5):
        while (await drive(metered.rig.gateway, path="/readyz")).status != 200:
            await asyncio.sleep(0.05)
    assert (await metered.rig.call()).status == 200


async def test_mt19_reconcile_adds_up_and_a_tenant_sees_its_own(tmp_path: Path) -> None:
    metered = Metered(tmp_path, GATEWAY_MAX_ATTEMPTS="1")
    for script in (answering(), answering(), failing(500), streaming(*chat_events("x", end=False))):
        metered.rig.scripts["a"] = script
        await metered.rig.call(stream=True)
    await asyncio.sleep(0.1)
    day = datetime.fromtimestamp(metered.rig.clock.wall(), UTC).date().isoformat()
    answer = await metered.rig.post(f"/v1/admin/usage/reconcile?from={day}&to={day}")
    found = (await drive(metered.rig.gateway, method="POST", path="/v1/admin/usage/reconcile",
                         query=f"from={day}&to={day}".encode(),
                         headers={"authorization": "Bearer an-admin-token-of-some-length"})).json()  # fmt: skip
    calls = found["calls"]
    assert answer.status in {200, 404}
    assert calls["admitted"] == calls["closed"] + calls["open"] + calls["orphaned"] + calls["voided"] == 4
    (total,) = found["totals"]
    assert (total["tenant"], total["closed"], total["voided"]) == ("open", 3, 1)
    used = (await metered.rig.get("/v1/usage"))["usage"]
    assert used["today"][0]["closed"] == 3
    bad = await drive(metered.rig.gateway, method="POST", path="/v1/admin/usage/reconcile", query=b"from=yesterday",
                      headers={"authorization": "Bearer an-admin-token-of-some-length"})  # fmt: skip
    assert bad.status == 400
    await metered.rig.gateway.aclose()


# Alone, on a foreign application.


async def test_the_middleware_alone_reads_usage_of_what_passes(tmp_path: Path) -> None:
    said = {"model": "house", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    bodies: list[tuple[bytes, list[bytes]]] = [
        (b"application/json", [json.dumps(said).encode()]),
        (b"text/event-stream", [b'data: {"choices":[]}\n\n', b"data: %b\n\n" % json.dumps(said).encode()]),
        (b"text/event-stream", [event(START), event({"type": "message_delta", "usage": {"output_tokens": 9}})]),
        (b"text/html", [b"<html>"]),
    ]  # fmt: skip

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        media, chunks = bodies.pop(0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media)]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    journal = Journal(tmp_path / "usage.db", keeps=1e9)
    journal.start()
    seen: list[UsageEvent] = []
    layer = UsageMiddleware(app, journal=journal, tenant_of=lambda _: "acme", on_event=seen.append)
    for _ in range(4):
        await drive(layer, method="POST", path="/v1/chat/completions")
    assert [(e.usage.input_tokens, e.usage.output_tokens, e.model) for e in seen] == [
        (7, 3, "house"), (7, 3, "house"), (70, 9, "claude-x"),
    ]  # fmt: skip
    assert journal.counts.voided == 1
    await journal.aclose()


async def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(__file__).parents[2] / "docs" / "examples" / "metered_app.py"
    spec = importlib.util.spec_from_file_location("metered_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with module.lifespan(module.app):
        for _ in range(3):
            await drive(module.app, method="POST", path="/v1/chat/completions", headers={"x-tenant": "acme"})
        await asyncio.sleep(0.1)
        (row,) = (await drive(module.app, path="/usage")).json()
    assert (row["tenant"], row["closed"], row["input_tokens"]) == ("acme", 3, 36)
