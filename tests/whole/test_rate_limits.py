"""Rows RL1 to RL22 of the matrix at the gateway: exact limits, exact refunds, and what clients are told of them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgi_driver import Client, Transcript, drive, http_scope
from gateway_middleware import Gateway, RateLimitMiddleware, Settings
from gateway_middleware.core.asgi import Receive, Scope, Send
from gateway_middleware.core.errors import SettingsError, UpstreamConnectError
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from rig import ADMIN, CHAT, GOOD, JSON, MESSAGES, Rig, answering, chat_events, failing, streaming
from running import KEY, gateway_for
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio


def limited(routes: dict[str, Any] | None = None, *, more: dict[str, Any] | None = None, **limits: Any) -> Rig:
    """A gateway whose tenant `acme` has these limits."""
    tenants = {"acme": {"keys": [digest(KEY.encode())], **limits}}
    extra: dict[str, Any] = {
        "GATEWAY_TENANTS": json.dumps(tenants),
        "GATEWAY_OPEN": "",
        "GATEWAY_MAX_ATTEMPTS": "1",
        **(more or {}),
    }
    return Rig(routes or {"fast": "a/m", "claude": "x/m"}, **extra)


def used(prompt: int, completion: int) -> Any:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return answering(json.dumps({"id": "c", "choices": [], "usage": usage}).encode())


async def standing(rig: Rig, name: str) -> dict[str, Any]:
    answer = await drive(rig.gateway, path="/v1/usage", headers={"authorization": f"Bearer {KEY}"})
    found: dict[str, Any] = next(row for row in answer.json()["limits"] if row["name"] == name)
    return found


async def usage_of(rig: Rig, query: str, token: str = ADMIN) -> Transcript:
    headers = {"authorization": f"Bearer {token}"}
    return await drive(rig.gateway, path="/v1/admin/usage", query=query.encode(), headers=headers)


async def test_an_operator_sees_the_limits_of_any_tenant_and_a_tenant_only_its_own() -> None:
    rig = limited(requests="100/minute")
    await rig.call()
    document = (await usage_of(rig, "tenant=acme")).json()
    (row,) = document["limits"]
    assert (document["tenant"], row["limit"], row["remaining"]) == ("acme", 100, 99)
    assert (await usage_of(rig, "tenant=acme", token=KEY)).status == 403
    for query, status, code in (("tenant=acmee", 404, "unknown_tenant"), ("", 400, None)):
        answer = await usage_of(rig, query)
        assert (answer.status, answer.json()["error"]["code"]) == (status, code)


async def test_rl1_five_hundred_in_parallel_and_exactly_a_hundred_pass() -> None:
    rig = limited(requests="100/minute")
    answers = await asyncio.gather(*(rig.call() for _ in range(500)))
    assert rig.calls["a"] == 100
    assert sorted(a.status for a in answers) == [200] * 100 + [429] * 400


async def test_rl2_never_more_than_the_limit_in_any_minute_and_hardly_less() -> None:
    rig = limited(requests="60/minute")
    admitted: list[float] = []
    for _ in range(3 * 60 * 10):
        if (await rig.call()).status == 200:
            admitted.append(rig.clock())
        rig.clock.advance(1 / 3)
    for start in admitted:
        assert sum(start <= moment < start + 60 for moment in admitted) <= 60
    assert len(admitted) >= 0.97 * 600


async def test_rl3_the_edge_of_a_window_is_no_double_window() -> None:
    rig = limited(requests="100/minute")
    rig.clock.advance(59.8)
    first = [(await rig.call()).status for _ in range(150)].count(200)
    rig.clock.advance(0.3)
    second = [(await rig.call()).status for _ in range(150)].count(200)
    assert (first, second) == (100, 0)


async def test_rl4_a_call_over_the_whole_limit_is_told_so_and_a_small_one_passes() -> None:
    rig = limited(tokens="500/minute")
    huge = await rig.call(messages=[{"role": "user", "content": "word " * 2000}])
    assert (huge.status, huge.json()["error"]["code"]) == (429, "request_exceeds_limit")
    assert huge.headers["x-should-retry"] == "false"
    rig.scripts["a"] = used(3, 1)
    assert [(await rig.call(max_tokens=1)).status for _ in range(100)] == [200] * 100


@pytest.mark.parametrize(
    "limits",
    [
        {"requests": "10/minute", "tokens": "50/minute"},
        {"requests": "10/minute", "per_model": {"fa*": {"requests": "1/minute"}}},
        {"requests": "10/minute", "per_key": {"requests": "1/minute"}},
        {"requests": "10/minute", "concurrency": 1},
    ],
)
async def test_rl5_a_refused_call_takes_nothing_of_any_limit(limits: dict[str, Any]) -> None:
    rig = limited(**limits)
    gate = asyncio.Event()

    class Slow(ScriptedAnswer):
        async def read(self, limit: int) -> bytes:
            await gate.wait()
            return await super().read(limit)

    rig.scripts["a"] = lambda _: Slow(200, [], [b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'])
    first = asyncio.create_task(rig.call(max_tokens=30))
    while not rig.calls["a"]:
        await asyncio.sleep(0)
    refused = [await rig.call(max_tokens=30) for _ in range(5)]
    gate.set()
    await first
    assert {answer.status for answer in refused} == {429}
    assert (await standing(rig, "rpm"))["used"] == 1
    assert rig.calls["a"] == 1


async def test_rl6_reserved_tokens_never_over_admit() -> None:
    rig = limited(tokens="10000/minute")
    rig.scripts["a"] = used(20, 1000)
    answers = await asyncio.gather(*(rig.call(max_tokens=1000) for _ in range(50)))
    admitted = sum(answer.status == 200 for answer in answers)
    assert admitted * 1000 <= 10_000
    assert (await standing(rig, "tpm"))["used"] <= 10_000 * 1.05


async def test_rl6_without_max_tokens_the_learnt_output_keeps_the_limit_and_uses_it() -> None:
    rig = limited(tokens="20000/minute")
    spent: list[tuple[float, int]] = []
    for number in range(1500):
        rig.scripts["a"] = used(30, 150 + (number * 37) % 100)
        answer = await rig.call(max_tokens=None)
        if answer.status == 200:
            spent.append((rig.clock(), 30 + 150 + (number * 37) % 100))
        rig.clock.advance(0.4)
    warm = [pair for pair in spent if pair[0] > spent[0][0] + 60]
    most = max(sum(n for at, n in warm if start <= at < start + 60) for start, _ in warm[:300:7])
    assert most <= 20_000 * 1.10
    assert most >= 20_000 * 0.85


@pytest.mark.parametrize(("prompt", "completion"), [(10, 40), (10, 3000)])
async def test_rl7_what_was_not_used_comes_back_and_what_was_too_much_is_owed(prompt: int, completion: int) -> None:
    rig = limited(tokens="5000/minute")
    rig.scripts["a"] = used(prompt, completion)
    await rig.call(max_tokens=1000)
    assert (await standing(rig, "tpm"))["used"] == prompt + completion


async def test_rl8_the_largest_cap_times_n_is_reserved() -> None:
    rig = limited(tokens="30000/minute")
    gate = asyncio.Event()

    class Slow(ScriptedAnswer):
        async def read(self, limit: int) -> bytes:
            await gate.wait()
            return await super().read(limit)

    rig.scripts["a"] = lambda _: Slow(200, [], [b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'])
    call = asyncio.create_task(rig.call(max_tokens=1, max_completion_tokens=1000, n=8))
    while not rig.calls["a"]:
        await asyncio.sleep(0)
    assert 8000 <= (await standing(rig, "tpm"))["used"] <= 8100
    gate.set()
    await call
    small = limited(tokens="500/minute")
    assert (await small.call(max_tokens=None)).status == 200, "a small limit stays usable"


@pytest.mark.parametrize("cap", [-1, 0, True, "5", 1e308, 10**40])
async def test_rl9_caps_that_make_no_sense_are_the_providers_to_judge(cap: Any) -> None:
    """Whatever is reserved for them, what the provider says was used is what counts."""
    rig = limited(tokens="5000/minute")
    assert (await rig.call(max_tokens=cap)).status == 200
    assert (await standing(rig, "tpm"))["used"] == 5


@pytest.mark.parametrize(
    ("script", "requests", "tokens"),
    [
        (failing(500), 0, 0),
        (failing(429), 0, 0),
        (failing(401), 0, 0),
        (lambda _: UpstreamConnectError("refused"), 0, 0),
        (failing(400, "bad"), 1, 0),
        (answering(b"<html>"), 0, 0),
        (used(7, 5), 1, 12),
        (used(0, 0), 1, 0),
    ],
)
async def test_rl11_every_ending_settles_as_it_should(script: Any, requests: int, tokens: int) -> None:
    rig = limited(requests="100/minute", tokens="50000/minute", concurrency=3)
    rig.scripts["a"] = script
    await rig.call(max_tokens=100)
    found = [(await standing(rig, name))["used"] for name in ("rpm", "tpm", "concurrency")]
    assert found == [requests, tokens, 0]


async def test_rl11_a_refusal_by_the_breaker_costs_nothing() -> None:
    rig = limited(requests="100/minute")
    await rig.command("a", "force-open")
    assert (await rig.call()).status == 503
    assert (await standing(rig, "rpm"))["used"] == 0


async def test_rl11_clients_that_leave_leave_no_slot_behind() -> None:
    rig = limited(concurrency=4, tokens="1000000/minute")
    rig.scripts["a"] = streaming(*chat_events(*["word"] * 20))
    for number in range(300):
        await rig.call(stream=True, leave_after=number % 7)
    assert (await standing(rig, "concurrency"))["used"] == 0
    assert 0 < (await standing(rig, "tpm"))["used"] < 300 * 60


async def test_rl12_the_slot_is_free_when_the_answer_has_ended() -> None:
    async with Simulator(record=False).serve() as simulator:
        tenants = {"acme": {"keys": [digest(KEY.encode())], "concurrency": 1}}
        async with gateway_for(simulator.url, GATEWAY_TENANTS=json.dumps(tenants)) as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                ask = {"model": "openai/gpt", "messages": [{"role": "user", "content": "x"}]}
                statuses = set()
                for number in range(1000):
                    body = {**ask, "stream": number % 2 == 0}
                    answer = await client.post(CHAT, json=body, headers={"authorization": f"Bearer {KEY}"})
                    statuses.add(answer.status_code)
    assert statuses == {200}


async def test_rl17_a_tenant_far_over_its_limit_does_not_disturb_another() -> None:
    other = "gw-other-0123456789abcdef0123456789abcdef"
    tenants = {
        "loud": {"keys": [digest(KEY.encode())], "requests": "10/minute"},
        "quiet": {"keys": [digest(other.encode())], "requests": "100/minute"},
    }
    rig = Rig({"fast": "a/m"}, GATEWAY_TENANTS=json.dumps(tenants), GATEWAY_OPEN="")

    async def quiet() -> int:
        body = json.dumps({"model": "fast", "messages": []}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {other}"}
        return (await drive(rig.gateway, method="POST", path=CHAT, headers=headers, body=body)).status

    statuses = []
    for _ in range(50):
        await asyncio.gather(*(rig.call() for _ in range(10)))
        statuses.append(await quiet())
    assert statuses == [200] * 50


async def test_rl19_a_call_waits_for_a_slot_and_leaves_with_its_client() -> None:
    rig = limited(concurrency=1, more={"GATEWAY_QUEUE_SECONDS": "5"})
    gate = asyncio.Event()

    class Slow(ScriptedAnswer):
        async def read(self, limit: int) -> bytes:
            await gate.wait()
            return await super().read(limit)

    rig.scripts["a"] = lambda _: Slow(200, [], [b"{}"])
    first = asyncio.create_task(rig.call())
    while not rig.calls["a"]:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(rig.call())
    body = json.dumps({"model": "fast", "messages": []}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    client = Client([body])
    scope = http_scope("POST", CHAT, headers=headers)
    leaving = asyncio.create_task(rig.gateway(scope, client.receive, client.send))
    await _until_waiting(rig, 2)
    client.leave()
    await leaving
    assert not client.transcript.messages
    await _until_waiting(rig, 1)
    assert rig.calls["a"] == 1
    gate.set()
    assert [(await call).status for call in (first, waiting)] == [200, 200]
    assert rig.calls["a"] == 2


async def _until_waiting(rig: Rig, count: int) -> None:
    async with asyncio.timeout(10):
        while (await rig.get("/v1/health"))["limits"]["waiting"] != count:
            await asyncio.sleep(0.005)


async def test_rl19_what_cannot_fit_in_time_is_refused_at_once() -> None:
    rig = limited(requests="1/minute", more={"GATEWAY_QUEUE_SECONDS": "20"})
    await rig.call()
    refused = await asyncio.wait_for(rig.call(), 10)
    assert refused.status == 429


async def test_rl21_success_and_refusal_say_how_the_limits_stand() -> None:
    rig = limited(requests="2/minute", tokens="9000/minute")
    good = await rig.call(max_tokens=10)
    assert good.headers["x-ratelimit-limit-requests"] == "2"
    assert good.headers["x-ratelimit-remaining-requests"] == "1"
    assert int(good.headers["x-ratelimit-remaining-tokens"]) < 9000
    assert '"rpm";q=2;w=60' in good.headers["ratelimit-policy"]
    rig.scripts["a"] = streaming(*chat_events("x"))
    assert (await rig.call(stream=True)).headers["x-ratelimit-remaining-requests"] == "0"
    refused = await rig.call()
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    wait = int(refused.headers["retry-after"])
    assert 60 <= wait <= 62
    assert abs(int(refused.headers["retry-after-ms"]) - wait * 1000) <= 1000
    rig.clock.advance(wait)
    assert (await rig.call()).status == 200, "whoever obeys succeeds"


async def test_rl21_anthropics_clients_get_their_own_headers() -> None:
    rig = limited(requests="1/minute")
    rig.scripts["x"] = answering(b'{"id":"msg","usage":{"input_tokens":3,"output_tokens":2}}')
    good = await rig.call("claude", path=MESSAGES)
    assert good.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert good.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    refused = await rig.call("claude", path=MESSAGES)
    assert (refused.status, refused.json()["error"]["type"]) == (429, "rate_limit_error")


async def test_rl21_the_sdks_raise_and_wait() -> None:
    tenants = {"acme": {"keys": [digest(KEY.encode())], "requests": "1/second"}}
    async with Simulator().serve() as simulator:
        async with gateway_for(simulator.url, GATEWAY_TENANTS=json.dumps(tenants)) as url:
            ask: Any = [{"role": "user", "content": "x"}]
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
                await client.chat.completions.create(model="openai/gpt", messages=ask)
                with pytest.raises(openai.RateLimitError):
                    await client.chat.completions.create(model="openai/gpt", messages=ask)
            async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=2) as claude:
                for _ in range(2):
                    await claude.messages.create(model="anthropic/c", messages=ask, max_tokens=3)
        assert len(simulator.simulator.requests) == 3


async def test_rl22_workers_share_out_what_is_in_memory_or_do_not_start() -> None:
    rig = limited(requests="100/minute", more={"GATEWAY_WORKERS": "4"})
    assert [(await rig.call()).status for _ in range(40)].count(200) == 25
    with pytest.raises(SettingsError, match="3 requests per minute"):
        limited(requests="3/minute", more={"GATEWAY_WORKERS": "4"})


async def test_shadow_limits_count_and_refuse_nothing() -> None:
    rig = limited(requests="1/minute", shadow=True)
    assert [(await rig.call()).status for _ in range(3)] == [200, 200, 200]
    text = (await drive(rig.gateway, path="/metrics")).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counted = {s.labels["decision"]: s.value for s in families["model_gateway_limit_decisions"].samples}
    assert counted == {"admitted": 1.0, "refused": 0.0, "shadowed": 2.0}
    assert len(rig.lines("limit_shadow")) == 2
    assert (await standing(rig, "rpm"))["is_shadow"] is True


async def test_limits_of_a_route_are_for_all_tenants_together_and_models_have_their_own() -> None:
    rig = limited(
        {"fast": {"to": "a/m", "limits": {"requests": "3/minute"}}, "slow": "a/n"},
        per_model={"slow": {"requests": "1/minute"}},
    )
    assert [(await rig.call("fast")).status for _ in range(4)] == [200, 200, 200, 429]
    assert [(await rig.call("slow")).status for _ in range(2)] == [200, 429]
    refused = await rig.call("fast")
    assert "route-rpm" in refused.json()["error"]["message"]


async def test_spend_is_limited_by_the_price_of_the_deployment() -> None:
    prices = json.dumps({"a/m": {"input": 10, "output": 100}})
    rig = limited(spend="0.01/month", more={"GATEWAY_PRICES": prices})
    rig.scripts["a"] = used(10, 45)  # 0.0001 + 0.0045 dollars
    assert [(await rig.call(max_tokens=40)).status for _ in range(3)] == [200, 200, 429]
    found = await standing(rig, "spmo")
    assert (found["used"], found["period"]) == (pytest.approx(0.0092), "month")


async def test_spend_is_settled_by_the_tier_that_served_the_call() -> None:
    prices = json.dumps({"a/m": {"input": 10, "output": 100, "tiers": {"flex": 0.5}}})
    rig = limited(spend="1/month", more={"GATEWAY_PRICES": prices})
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    rig.scripts["a"] = answering(json.dumps({"id": "c", "service_tier": "flex", "usage": usage}).encode())
    assert (await rig.call()).headers["x-gateway-cost"] == "0.01"
    assert (await standing(rig, "spmo"))["used"] == pytest.approx(0.01)


async def test_a_limit_is_raised_without_a_restart() -> None:
    rig = limited(requests="1/minute")
    await rig.call()
    assert (await rig.call()).status == 429
    tenants = {"acme": {"keys": [digest(KEY.encode())], "requests": "5/minute"}}
    rig.environment["GATEWAY_TENANTS"] = json.dumps(tenants)
    await rig.post("/v1/admin/reload")
    assert [(await rig.call()).status for _ in range(5)] == [200] * 4 + [429], "what was counted stays"


async def test_without_limits_nothing_is_said_of_them() -> None:
    rig = Rig()
    answer = await rig.call()
    assert not [name for name in answer.headers if "ratelimit" in name]


async def test_the_default_limits_are_for_whoever_names_none() -> None:
    rig = Rig({"fast": "a/m"}, GATEWAY_DEFAULT_REQUESTS="2/minute")
    assert [(await rig.call()).status for _ in range(3)] == [200, 200, 429]


# Alone, on a foreign application.


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def _ask(app: Any, caller: str) -> Transcript:
    return await drive(app, headers={"x-caller": caller})


async def test_the_middleware_alone_limits_by_key() -> None:
    app = RateLimitMiddleware(
        hello, key=lambda scope: dict(scope["headers"]).get(b"x-caller", b"").decode() or None, limits="2/minute;3/hour"
    )
    assert [(await _ask(app, "a")).status for _ in range(3)] == [200, 200, 429]
    refused = await _ask(app, "a")
    assert refused.headers["retry-after"] in {"60", "61"}
    assert refused.json()["detail"].startswith("Rate limit reached: 2 requests per minute")
    assert (await _ask(app, "b")).headers["x-ratelimit-remaining-requests"] == "1"
    assert {(await _ask(app, "")).status for _ in range(9)} == {200}


async def test_the_example_runs() -> None:
    path = Path(__file__).parents[2] / "docs" / "examples" / "limited_app.py"
    spec = importlib.util.spec_from_file_location("limited_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [(await _ask(module.app, "me")).status for _ in range(6)] == [200] * 5 + [429]


async def test_spend_without_any_price_is_no_promise() -> None:
    environ = {"OPENAI_API_KEY": "sk-0123456789", "GATEWAY_OPEN": "true", "GATEWAY_DEFAULT_SPEND": "1/day"}
    assert Gateway(Settings.from_env(environ)).settings.limits_spend


async def test_the_line_of_a_refusal_names_tenant_and_limit_or_the_queue() -> None:
    rig = limited(concurrency=1, more={"GATEWAY_QUEUE_SECONDS": "5"})
    gate = asyncio.Event()

    class Slow(ScriptedAnswer):
        async def read(self, limit: int) -> bytes:
            await gate.wait()
            return await super().read(limit)

    rig.scripts["a"] = lambda _: Slow(200, JSON, [GOOD])
    calls = [asyncio.create_task(rig.call()) for _ in range(70)]
    while not any(call.done() for call in calls):
        await asyncio.sleep(0.01)
    gate.set()
    statuses = [call.status for call in await asyncio.gather(*calls)]
    assert (statuses.count(200), statuses.count(429)) == (65, 5), "one at work, 64 wait"
    refused = [line for line in rig.lines("call") if line["status"] == 429]
    assert {(line["tenant"], line["limit"]) for line in refused} == {("acme", "queue")}

    rig = limited(requests="1/minute")
    assert [(await rig.call()).status for _ in range(2)] == [200, 429]
    (line,) = [line for line in rig.lines("call") if line["status"] == 429]
    assert (line["tenant"], line["limit"]) == ("acme", "rpm")
