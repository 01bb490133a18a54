"""Rows CB1 to CB23 of the matrix: what the gateway makes of providers that fail. Time is moved, not waited for."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from asgi_driver import drive
from clock import Clock
from gateway_middleware.core.errors import UpstreamConnectError, UpstreamTimeoutError
from rig import CHAT, MESSAGES, RESPONSES, Rig, answering, chat_events, failing, streaming
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
ONE = {"fast": {"to": "a/m", "max_attempts": 1}}


async def test_cb1_five_failures_open_it_and_later_calls_do_not_reach_the_provider() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(500)

    statuses = [(await rig.call()).status for _ in range(12)]

    assert rig.calls["a"] == 5
    assert statuses == [500] * 5 + [503] * 7
    assert await rig.state() == "open"


@pytest.mark.parametrize(("share", "opens"), [(0.5, True), (0.4, False)])
async def test_cb2_half_of_the_calls_failing_opens_it_and_two_fifths_never_do(share: float, opens: bool) -> None:
    rig = Rig(ONE)
    pattern = {0.5: "10", 0.4: "1010010100"}[share]
    scripts = {"1": failing(500), "0": answering()}
    for number in range(1000):
        rig.scripts["a"] = scripts[pattern[number % len(pattern)]]
        await rig.call()
        rig.clock.advance(0.5)
        if await rig.state() == "open":
            break

    assert (await rig.state() == "open") is opens
    assert not opens or number < 20


async def test_cb3_four_failures_and_a_success_leave_it_closed() -> None:
    rig = Rig(ONE)
    for _ in range(50):
        for script in [failing(500)] * 4 + [answering()] * 5:
            rig.scripts["a"] = script
            await rig.call()
        rig.clock.advance(70)

    assert await rig.state() == "closed"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "bad"), (404, "none"), (409, "conflict"), (413, "big"), (422, "odd"), (400, "content_filter")],
)
async def test_cb4_what_is_the_clients_fault_is_passed_on_and_counts_for_nothing(status: int, code: str) -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(status, code)

    answers = [await rig.call() for _ in range(170)]

    assert {a.status for a in answers} == {status}
    assert {a.json()["error"]["code"] for a in answers} == {code}
    assert rig.calls["a"] == 170
    assert await rig.state() == "closed"


async def test_cb5_a_429_cools_the_deployment_until_the_latest_deadline_and_the_other_one_answers() -> None:
    rig = Rig()
    rig.scripts["a"] = failing(429, "rate_limit_exceeded", headers={"retry-after": "3"})
    assert (await rig.call()).status == 200
    rig.clock.advance(2.9)
    await rig.call()
    assert (rig.calls["a"], rig.calls["b"]) == (1, 2)

    rig.clock.advance(0.2)
    rig.scripts["a"] = failing(429, "rate_limit_exceeded", headers={"retry-after": "6"})
    await rig.call()
    rig.clock.advance(5.9)
    await rig.call()
    assert rig.calls["a"] == 2
    rig.clock.advance(0.2)
    rig.scripts["a"] = answering()
    await rig.call()

    assert rig.calls["a"] == 3
    assert await rig.state() == "closed"


async def test_cb5_a_cooling_deployment_alone_is_a_503_that_says_when() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(429, headers={"retry-after": "7"})
    first = await rig.call()
    second = await rig.call()

    assert (first.status, second.status) == (429, 503)
    assert second.json()["error"]["code"] == "provider_cooling_down"
    assert second.headers["retry-after"] == "7"
    assert rig.calls["a"] == 1


async def test_cb6_an_exhausted_quota_bars_the_whole_credential_for_five_minutes() -> None:
    rig = Rig({"fast": ["a/m", "a/n", "b/m"]})
    rig.scripts["a"] = failing(429, "insufficient_quota")

    assert (await rig.call()).status == 200
    await rig.call()
    assert (rig.calls["a"], rig.calls["b"]) == (1, 2)

    rig.clock.advance(301)
    await rig.call()
    assert rig.calls["a"] == 2


async def test_cb6_anthropic_without_credit_is_no_fault_of_the_client() -> None:
    rig = Rig({"fast": ["x/claude", "x/other"]})
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}}
    rig.scripts["x"] = answering(json.dumps(said).encode(), status=400)

    await rig.call(path=MESSAGES)
    refused = await rig.call(path=MESSAGES)

    assert rig.calls["x"] == 1
    assert (refused.status, refused.json()["error"]["type"]) == (503, "overloaded_error")


@pytest.mark.parametrize("status", [401, 403])
async def test_cb7_a_refused_credential_of_ours_is_a_502_and_never_shown(status: int) -> None:
    rig = Rig(ONE)
    said = json.dumps({"error": {"message": "Incorrect API key: sk-secret-of-a", "code": "invalid_api_key"}}).encode()
    rig.scripts["a"] = answering(said, status=status)

    answer = await rig.call()

    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_auth_error")
    assert await rig.state() == "closed"
    rig.gateway.log.lines.flush()
    assert b"sk-secret" not in answer.body + rig.log.raw
    assert (await rig.call()).status == 503, "the credential is left alone for a minute"


async def test_cb8_an_overloaded_provider_is_left_alone_for_as_long_as_it_asked() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(529, headers={"retry-after": "40"})
    for _ in range(5):
        await rig.call()

    assert await rig.state() == "open"
    rig.clock.advance(39.9)
    await rig.call()
    assert rig.calls["a"] == 5
    rig.clock.advance(8.2)
    await rig.call()
    assert rig.calls["a"] == 6


async def test_cb9_a_dead_host_is_out_for_all_its_models() -> None:
    rig = Rig({name: {"to": f"a/{name}", "max_attempts": 1} for name in ("one", "two", "three")})
    rig.scripts["a"] = lambda _: UpstreamConnectError("refused")
    for name in ("one", "two", "three") * 4:
        await rig.call(name)

    assert rig.calls["a"] == 5
    breakers = (await rig.get("/v1/health"))["circuit_breakers"]["a"]
    assert breakers["state"] == "open"
    assert breakers["endpoints"]["endpoint:a.test:443"]["state"] == "open"
    assert {d["state"] for d in breakers["deployments"].values()} == {"closed"}


async def test_cb9_a_host_that_answers_errors_leaves_other_models_of_it_alone() -> None:
    rig = Rig({name: {"to": f"a/{name}", "max_attempts": 1} for name in ("one", "two")})
    rig.scripts["a"] = lambda request: (failing(500) if b'"one"' in request.body else answering())(request)
    for _ in range(8):
        await rig.call("one")

    assert (await rig.call("two")).status == 200
    assert await rig.state() == "closed", "one dead model never closes a provider"


STARTS = {
    CHAT: (b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
           b'data: {"error":{"message":"The server had an error","type":"server_error"}}\n\n'),
    RESPONSES: (b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n',
                b'event: error\ndata: {"type":"error","code":"server_error","message":"broken"}\n\n'),
    MESSAGES: (b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg","usage":{}}}\n\n',
               b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'),
}  # fmt: skip
GOOD_STREAMS = {
    CHAT: chat_events("hello", " you"),
    RESPONSES: [
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"q"}}\n\n',
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"q"}}\n\n',
    ],
    MESSAGES: [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m2","usage":{}}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta"}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
}


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("has_start", [False, True])
async def test_cb11_an_error_before_the_content_moves_the_stream_and_nobody_sees_it(path: str, has_start: bool) -> None:
    first, second = ("x", "x") if path == MESSAGES else ("a", "b")
    rig = Rig({"fast": [f"{first}/m", f"{second}/n"]})
    start, error = STARTS[path]
    bad = streaming(*([start] if has_start else []), error)
    good = streaming(*GOOD_STREAMS[path])
    rig.scripts[first] = rig.scripts[second] = lambda request: (bad if b'"m"' in request.body else good)(request)

    answer = await rig.call(path=path, stream=True)

    assert answer.status == 200
    assert answer.body == b"".join(GOOD_STREAMS[path])
    attempts = answer.headers["x-gateway-attempts"].split(", ")
    assert [attempt.split(";")[1] for attempt in attempts] == ["stream_error", "streaming"]
    assert answer.headers["x-gateway-deployment"] == f"{second}/n"


async def test_cb12_streams_that_break_after_their_content_count_and_are_never_repeated() -> None:
    rig = Rig()
    for number in range(12):
        events = chat_events(*["word"] * (number + 1), end=False)
        rig.scripts["a"] = streaming(*events)
        answer = await rig.call(stream=True)
        if rig.calls["b"]:
            break
        assert answer.body.startswith(b"".join(events))
        assert b'"error"' in answer.body

    assert rig.calls["b"] <= 1, "only once the breaker was open"
    assert rig.calls["a"] <= 12
    breaker = (await rig.get("/v1/health"))["circuit_breakers"]["a"]["deployments"]["a/m"]
    assert (breaker["state"], breaker["why"]) == ("open", {"truncated": rig.calls["a"]})


@pytest.mark.parametrize(
    "script",
    [
        answering(b"<html><body>gateway</body></html>", headers={}),
        answering(b'{"id":"chatcmpl-1","choi'),
        answering(b""),
        lambda _: ScriptedAnswer(200, [(b"content-type", b"text/html")], [b"<html></html>"]),
    ],
)
async def test_cb13_garbage_with_200_is_a_502_and_counts(script: Any) -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = script

    statuses = [(await rig.call()).status for _ in range(6)]

    assert statuses == [502] * 5 + [503]
    assert await rig.state() == "open"


async def test_cb14_clients_that_leave_count_for_nothing() -> None:
    rig = Rig(ONE)
    for number in range(50):
        await rig.call(stream=True, leave_after=number % 3)

    assert await rig.state() == "closed"


async def test_cb15_one_probe_at_a_time_however_many_wait() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    rig.clock.advance(13)
    rig.scripts["a"] = answering()

    answers = await asyncio.gather(*(rig.call() for _ in range(200)))

    assert rig.calls["a"] == 6
    assert sorted(answer.status for answer in answers) == [200] + [503] * 199
    assert await rig.state() == "half_open"
    await rig.call()
    assert await rig.state() == "closed"


async def test_cb16_a_probe_whose_client_leaves_gives_its_place_back() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    rig.clock.advance(13)
    await rig.call(leave_after=0)
    rig.scripts["a"] = answering()

    assert (await rig.call()).status == 200


async def test_cb17_a_slow_call_of_before_says_nothing_of_now() -> None:
    rig = Rig(ONE)
    release = asyncio.Event()

    class Slow(ScriptedAnswer):
        async def read(self, limit: int) -> bytes:
            await release.wait()
            return await super().read(limit)

    rig.scripts["a"] = lambda _: Slow(500, [], [b"{}"])
    slow = asyncio.create_task(rig.call())
    while not rig.calls["a"]:
        await asyncio.sleep(0)
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    rig.clock.advance(13)
    rig.scripts["a"] = answering()
    await rig.call()
    await rig.call()
    assert await rig.state() == "closed"
    release.set()
    await slow

    breaker = (await rig.get("/v1/health"))["circuit_breakers"]["a"]["deployments"]["a/m"]
    assert (breaker["state"], breaker["failures"]) == ("closed", 0)


async def test_cb18_open_times_double_to_the_cap_and_begin_anew_after_health() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    opened = []
    for _ in range(8):
        opened.append(_open_seconds(rig))
        rig.clock.advance(opened[-1] + 0.01)
        await rig.call()
    for before, after in itertools.pairwise(opened):
        assert after == pytest.approx(min(before * 2, 300), rel=0.6)
    assert max(opened) <= 300.001
    rig.scripts["a"] = answering()
    rig.clock.advance(301)
    await rig.call()
    await rig.call()
    rig.clock.advance(60 * 8)
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    assert 8 <= _open_seconds(rig) <= 12


def _open_seconds(rig: Rig) -> float:
    seconds: float = [line for line in rig.lines("circuit_breaker") if line["after"] == "open"][-1]["seconds"]
    return seconds


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "service_unavailable_error"), (MESSAGES, "overloaded_error")])
async def test_cb19_when_all_are_open_the_dialects_503_says_when_to_come_back(path: str, kind: str) -> None:
    providers = ("x", "x") if path == MESSAGES else ("a", "b")
    rig = Rig({"fast": [f"{providers[0]}/m", f"{providers[1]}/n"]}, GATEWAY_MAX_ATTEMPTS="1")
    for name in providers:
        await rig.command(name, "force-open", {"ttl": 20})
    rig.clock.advance(12.5)

    answer = await rig.call(path=path)

    assert answer.status == 503
    assert answer.json()["error"]["type"] == kind
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("8", "7500")
    assert "x-should-retry" not in answer.headers
    assert not rig.calls


async def test_cb19_an_hour_is_too_long_for_an_sdk_to_wait() -> None:
    rig = Rig(ONE)
    await rig.command("a", "force-open")

    assert (await rig.call()).headers["x-should-retry"] == "false"


async def test_cb21_forces_hold_against_all_evidence_until_their_time_is_over() -> None:
    rig = Rig(ONE)
    await rig.command("a/m", "force-close", {"ttl": 30})
    rig.scripts["a"] = failing(500)
    for _ in range(20):
        await rig.call()
    assert rig.calls["a"] == 20
    await rig.command("a", "force-open", {"ttl": 3, "reason": "drill"})
    assert (await rig.call()).status == 503
    rig.clock.advance(2.9)
    assert (await rig.call()).status == 503
    assert rig.calls["a"] == 20

    rig.clock.advance(0.2)
    rig.scripts["a"] = answering()
    assert [(await rig.call()).status for _ in range(3)] == [200, 200, 200]
    assert await rig.state() == "closed"


async def test_cb22_a_dead_deployment_leaves_the_others_of_its_provider_alone() -> None:
    rig = Rig({"dead": {"to": "a/dead", "max_attempts": 1}, "well": "a/well"})
    rig.scripts["a"] = lambda request: (failing(500) if b'"dead"' in request.body else answering())(request)
    statuses = []
    for _ in range(20):
        await rig.call("dead")
        statuses.append((await rig.call("well")).status)

    assert statuses == [200] * 20


@pytest.mark.parametrize(("every", "most"), [(1, 1.20), (10, 1.115)])
async def test_cb23_the_retry_budget_holds(every: int, most: float) -> None:
    rig = Rig({"fast": "a/m"}, GATEWAY_BREAKER="off", sleep=Clock().sleep)  # 200 calls a second, whatever they wait
    rig.scripts["a"] = lambda request: (answering() if rig.calls["a"] % every else failing(503))(request)
    for _ in range(1000):
        await rig.call()
        rig.clock.advance(1 / 200)

    assert rig.calls["a"] <= most * 1000 + 3


async def test_a_dead_primary_costs_a_fifth_more_calls_at_most() -> None:
    rig = Rig()
    rig.scripts["a"] = failing(503)
    statuses = []
    for _ in range(500):
        statuses.append((await rig.call()).status)
        rig.clock.advance(0.05)

    assert set(statuses) == {200}
    assert sum(rig.calls.values()) <= 1.2 * 500


async def test_spent_attempts_tell_the_sdk_not_to_try_again() -> None:
    rig = Rig({"fast": "a/m"})
    rig.scripts["a"] = failing(503)

    answer = await rig.call()

    assert (answer.status, rig.calls["a"]) == (503, 3)
    assert len(rig.clock.sleeps) == 2
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-gateway-attempts"].count("a;server_error") == 3


async def test_a_provider_that_may_still_bill_is_not_asked_twice() -> None:
    rig = Rig({"fast": "a/m"})
    rig.scripts["a"] = lambda _: UpstreamTimeoutError("late", phase="first_byte")

    assert (await rig.call()).status == 504
    assert rig.calls["a"] == 1


async def test_special_failures_go_to_their_own_lists() -> None:
    rig = Rig({"fast": {"to": ["a/m", "a/n"], "on_context_window": "b/long", "on_content_policy": ["c/mild"]}})
    rig.scripts["a"] = failing(400, "context_length_exceeded")
    assert (await rig.call()).headers["x-gateway-deployment"] == "b/long"
    rig.scripts["a"] = failing(400, "content_filter")
    assert (await rig.call()).headers["x-gateway-deployment"] == "c/mild"

    rig.scripts["c"] = failing(400, "content_filter")
    assert (await rig.call()).status == 400
    assert dict(rig.calls) == {"a": 3, "b": 1, "c": 2}
    assert await rig.state() == "closed"


async def test_a_model_that_is_not_there_is_looked_for_elsewhere() -> None:
    rig = Rig()
    rig.scripts["a"] = failing(404, "model_not_found")

    assert (await rig.call()).headers["x-gateway-deployment"] == "b/m"


async def test_shadow_refuses_nothing_and_reports_everything() -> None:
    rig = Rig(ONE, GATEWAY_BREAKER="shadow")
    rig.scripts["a"] = failing(500)
    for _ in range(8):
        assert (await rig.call()).status == 500

    breaker = (await rig.get("/v1/health"))["circuit_breakers"]["a"]["deployments"]["a/m"]
    assert (breaker["state"], breaker["mode"], breaker["refused"]) == ("open", "shadow", 3)


async def test_off_keeps_no_count_and_no_cooldown() -> None:
    rig = Rig(ONE, GATEWAY_BREAKER="off")
    for script in [failing(500)] * 8 + [failing(429, headers={"retry-after": "9"})] * 3:
        rig.scripts["a"] = script
        await rig.call()

    assert rig.calls["a"] == 11
    assert await rig.state() == "closed"


async def test_a_response_that_failed_moves_on_before_content_and_counts_after_it() -> None:
    said = {"type": "response.failed", "response": {"id": "r", "error": {"code": "server_error", "message": "no"}}}
    failed = b"event: response.failed\ndata: " + json.dumps(said).encode() + b"\n\n"
    rig = Rig()
    rig.scripts["a"] = streaming(STARTS[RESPONSES][0], failed)
    rig.scripts["b"] = streaming(*GOOD_STREAMS[RESPONSES])
    assert (await rig.call(path=RESPONSES, stream=True)).body == b"".join(GOOD_STREAMS[RESPONSES])

    alone = Rig(ONE)
    alone.scripts["a"] = streaming(*GOOD_STREAMS[RESPONSES][:2], failed)
    for _ in range(5):
        answer = await alone.call(path=RESPONSES, stream=True)
        assert answer.body.endswith(failed), "it is relayed as it came"
    assert await alone.state() == "open"


async def test_a_whole_answer_that_holds_an_error_moves_on() -> None:
    rig = Rig()
    rig.scripts["a"] = answering(b'{"error":{"message":"no","code":"server_error"}}')
    assert (await rig.call()).headers["x-gateway-deployment"] == "b/m"


async def test_a_reload_changes_the_numbers_of_live_breakers_at_once() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(500)
    await rig.call()
    providers = json.loads(rig.environment["GATEWAY_PROVIDERS"])
    providers["a"]["breaker"] = {"consecutive": 2}
    rig.environment["GATEWAY_PROVIDERS"] = json.dumps(providers)

    document = (await rig.post("/v1/admin/reload")).json()
    await rig.call()

    assert (document["changed"], document["need_restart"]) == (["providers"], [])
    assert (rig.calls["a"], await rig.state()) == (2, "open")


async def test_what_no_time_heals_is_an_error_in_the_log_and_a_metric_that_begins_at_zero() -> None:
    rig = Rig()
    name = 'model_gateway_provider_alarms_total{class="provider_auth",provider="a"}'
    metrics = (await drive(rig.gateway, path="/metrics")).body.decode()
    assert f"{name} 0.0" in metrics
    rig.scripts["a"] = failing(401, "invalid_api_key")
    await rig.call()
    metrics = (await drive(rig.gateway, path="/metrics")).body.decode()

    assert f"{name} 1.0" in metrics
    cooled = rig.lines("provider_cooldown")[0]
    assert (cooled["level"], cooled["class"], cooled["provider"]) == ("error", "provider_auth", "a")


@pytest.mark.parametrize("failure", [failing(500), failing(503), lambda _: UpstreamConnectError("refused")])
async def test_a_hundred_at_once_meet_a_dead_primary_and_all_are_answered_by_the_backup(failure: Any) -> None:
    rig = Rig()
    rig.scripts["a"] = failure
    answers = await asyncio.gather(*(rig.call() for _ in range(100)))

    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["x-gateway-provider"] for answer in answers} == {"b"}


async def test_one_poisonous_call_is_one_failure_whatever_its_attempts() -> None:
    rig = Rig({"fast": "a/m"})
    rig.scripts["a"] = failing(500)
    statuses = [(await rig.call()).status for _ in range(4)]

    assert (statuses, rig.calls["a"], await rig.state()) == ([500] * 4, 12, "closed")
    await rig.call()
    assert await rig.state() == "open"


POISON = [{"role": "user", "content": "poison"}]
BROKEN = [
    pytest.param(failing(500), False, id="status"),
    pytest.param(lambda _: UpstreamTimeoutError("late", phase="first_byte"), False, id="silence"),
    pytest.param(answering(b"<html>"), False, id="garbage"),
    pytest.param(streaming(*chat_events("Hi", end=False)), True, id="broken stream"),
    pytest.param(streaming(b'data: {"error":{"type":"server_error","message":"no"}}\n\n'), True, id="error event"),
]


@pytest.mark.parametrize(("script", "is_stream"), BROKEN)
async def test_one_prompt_that_fails_again_and_again_hurts_nobody_else(script: Any, *, is_stream: bool) -> None:
    rig = Rig({"fast": "a/m", "again": "a/m"}, GATEWAY_MAX_ATTEMPTS="1")
    rig.scripts["a"] = script
    for _ in range(30):
        await rig.call(messages=POISON, stream=is_stream)
        rig.clock.advance(1.5)
    row = (await rig.get("/v1/health"))["circuit_breakers"]["a"]["deployments"]["a/m"]
    assert (row["state"], row["successes"], row["failures"]) == ("closed", 0, 1)

    rig.scripts["a"] = answering()
    assert (await rig.call()).status == 200
    rig.scripts["a"] = script
    for _ in range(5):
        await rig.call(stream=is_stream)
    assert await rig.state() == "open", "five different ones prove it"


async def test_one_prompt_that_fails_keeps_no_breaker_open() -> None:
    rig = Rig({"fast": "a/m"}, GATEWAY_MAX_ATTEMPTS="1")
    rig.scripts["a"] = failing(500)
    for _ in range(4):
        await rig.call()
    await rig.call(messages=POISON)
    assert await rig.state() == "open"
    rig.clock.advance(13)
    assert [(await rig.call(messages=POISON)).status for _ in range(3)] == [500] * 3, "it is let through as the probe"
    rig.scripts["a"] = answering()
    await rig.call()
    await rig.call()
    assert await rig.state() == "closed"


async def test_that_nobody_is_there_counts_whatever_the_prompt() -> None:
    rig = Rig({"fast": "a/m"}, GATEWAY_MAX_ATTEMPTS="1")
    rig.scripts["a"] = lambda _: UpstreamConnectError("refused")
    for _ in range(5):
        await rig.call(messages=POISON)
    assert await rig.state() == "open"
