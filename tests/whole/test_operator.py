"""What an operator sees and does: breakers read, reset and forced; the configuration reloaded under load."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgi_driver import drive
from rig import SSE, Rig, answering, chat_events, failing, streaming
from running import KEY
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio
ONE = {"fast": {"to": "a/m", "max_attempts": 1}}


async def opened(rig: Rig) -> Rig:
    rig.scripts["a"] = failing(500)
    for _ in range(5):
        await rig.call()
    return rig


async def test_health_lists_every_provider_and_deployment() -> None:
    rig = await opened(Rig(ONE))
    breakers = (await rig.get("/v1/health"))["circuit_breakers"]

    assert set(breakers) == {"a", "b", "c", "x"}
    assert breakers["b"]["state"] == "closed"
    found = breakers["a"]["deployments"]["a/m"]
    assert (found["state"], found["why"], found["consecutive_failures"]) == ("open", {"server_error": 5}, 5)
    assert 7 < found["next_probe_in"] < 13


async def test_the_status_of_a_provider_says_why_and_until_when() -> None:
    rig = await opened(Rig(ONE))
    rig.scripts["b"] = failing(429, headers={"retry-after": "30"})
    await rig.call("b/other")

    status = await rig.get("/v1/providers/a/status")
    assert (status["state"], status["reason"]) == ("open", "5 failures in a row")
    assert status["why"] == {"server_error": 5}
    assert status["breaker"] == "a/m"
    assert status["last_minute"]["error_rate"] == 1.0
    assert status["deployments"]["a/m"]["circuit_breaker"]["state"] == "open"
    cooling = (await rig.get("/v1/providers/b/status"))["cooldowns"]
    assert cooling == [{"deployment": "b/other", "seconds": 30.0, "class": "rate_limited"}]


async def test_a_reset_closes_at_once_and_leaves_an_audit_line() -> None:
    rig = await opened(Rig(ONE))
    answer = await rig.command("a/m", "reset", {"reason": "it is well again"})
    assert answer.json() == {"key": "a/m", "command": "reset", "ttl": None, "circuit_breakers": ["a/m"]}
    rig.scripts["a"] = answering()

    assert (await rig.call()).status == 200
    line = rig.lines("audit")[0]
    assert (line["action"], line["key"], line["reason"]) == ("circuit-breaker reset", "a/m", "it is well again")
    assert line["client"] == "127.0.0.1"


async def test_a_reset_of_a_provider_ends_its_cooldowns() -> None:
    rig = Rig(ONE)
    rig.scripts["a"] = failing(429, headers={"retry-after": "30"})
    await rig.call()
    assert (await rig.call()).status == 503
    await rig.command("a", "reset")
    await rig.call()
    assert rig.calls["a"] == 2


async def test_auto_ends_a_force() -> None:
    rig = Rig(ONE)
    await rig.command("a/m", "force-open")
    assert await rig.state() == "forced_open"
    await rig.command("a/m", "auto")
    assert (await rig.call()).status == 200


@pytest.mark.parametrize(
    ("key", "command", "body", "status"),
    [
        ("nobody", "reset", None, 404),
        ("a/m", "explode", None, 404),
        ("a/m", "force-open", {"ttl": -1}, 400),
        ("a/m", "force-open", {"ttl": 1e9}, 400),
        ("a/m", "force-open", {"ttl": "long"}, 400),
        ("a/m", "reset", {"ttl": 5}, 400),
        ("a/m", "reset", {"why": "?"}, 400),
        ("a/m", "reset", [], 400),
        ("a/m", "reset", {"reason": "x" * 300}, 400),
        ("a/m", "reset", {"reason": "x" * 30000}, 413),
    ],
)
async def test_commands_that_make_no_sense_are_refused(key: str, command: str, body: object, status: int) -> None:
    rig = Rig(ONE)
    answer = await rig.command(key, command, body)
    assert answer.status == status
    assert await rig.state() == "closed"
    assert rig.lines("audit") == []


async def test_se23_only_the_admin_token_opens_administration() -> None:
    rig = Rig(ONE)
    for token, status in [(KEY, 403), ("wrong", 403)]:
        answer = await rig.post("/v1/admin/circuit-breakers/a/reset", token=token)
        assert answer.status == status
    anonymous = await drive(rig.gateway, method="POST", path="/v1/admin/circuit-breakers/a/reset")
    assert anonymous.status == 401
    disabled = Rig(ONE, GATEWAY_ADMIN_TOKEN="")
    assert (await disabled.command("a", "reset")).status == 403


async def test_transitions_are_log_lines_and_metrics() -> None:
    rig = await opened(Rig(ONE))
    line = rig.lines("circuit_breaker")[0]
    assert (line["before"], line["after"], line["level"]) == ("closed", "open", "warning")
    assert line["message"].startswith("Circuit breaker a/m: closed -> open for ")
    errors = rig.lines("provider_error")
    assert all(e["message"].startswith("Provider error") and e["class"] == "server_error" for e in errors)

    text = (await drive(rig.gateway, path="/metrics")).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    states = {
        (s.labels["breaker"], s.labels["state"]): s.value
        for s in families["model_gateway_circuit_breaker_state"].samples
    }
    assert states["a/m", "open"] == 1.0
    assert states["a/m", "closed"] == 0.0
    transitions = families["model_gateway_circuit_breaker_transitions"].samples
    assert [(s.labels, s.value) for s in transitions] == [({"breaker": "a/m", "state": "open"}, 1.0)]
    attempts = {
        (s.labels["deployment"], s.labels["outcome"]): s.value for s in families["model_gateway_attempts"].samples
    }
    expected = {("a/m", "server_error"): 5.0, ("a/m", "provider_auth"): 0.0, ("other", "provider_auth"): 0.0}
    assert attempts.items() >= expected.items()
    assert sum(attempts.values()) == 5.0


async def test_se25_metrics_name_only_what_the_configuration_names() -> None:
    rig = Rig(ONE, GATEWAY_MAX_ATTEMPTS="1")
    rig.scripts["a"] = failing(500)
    for number in range(30):
        await rig.call(f"a/made-up-{number}")
    text = (await drive(rig.gateway, path="/metrics")).body.decode()
    assert "made-up" not in text


async def test_a_backup_is_one_change_of_the_routes_away() -> None:
    rig = Rig(ONE)
    await rig.call()
    rig.environment["GATEWAY_ROUTES"] = json.dumps({"fast": "b/m", "new": "c/m"})

    document = (await rig.post("/v1/admin/reload")).json()

    assert (document["changed"], document["need_restart"]) == (["routes"], [])
    assert (await rig.call()).headers["x-gateway-deployment"] == "b/m"
    assert (await rig.call("new")).status == 200
    assert [d["id"] for d in (await rig.get("/v1/models"))["data"]] == ["fast", "new"]
    assert rig.lines("audit")[0]["action"] == "reload"


async def test_a_reload_keeps_calls_in_flight_and_the_state_of_what_stays() -> None:
    rig = Rig({"fast": "a/m", "other": {"to": "b/m", "max_attempts": 1}})
    gate = asyncio.Event()

    class Waiting(ScriptedAnswer):
        async def chunk(self) -> bytes:
            await gate.wait()
            return await super().chunk()

    rig.scripts["a"] = lambda _: Waiting(200, [(b"content-type", b"text/event-stream")], chat_events("hello"))
    running = asyncio.create_task(rig.call(stream=True))
    rig.scripts["b"] = failing(500)
    for _ in range(5):
        await rig.call("other")
    providers = json.loads(rig.environment["GATEWAY_PROVIDERS"])
    del providers["a"]
    rig.environment |= {
        "GATEWAY_PROVIDERS": json.dumps(providers),
        "GATEWAY_ROUTES": json.dumps({"other": {"to": "b/m", "max_attempts": 1}}),
    }

    assert (await rig.post("/v1/admin/reload")).json()["changed"] == ["providers", "routes"]
    gate.set()

    assert (await running).body == b"".join(chat_events("hello"))
    assert (await rig.call("fast")).status != 200 or rig.calls["a"] == 1
    assert (await rig.call("other")).status == 503, "b is still open"
    assert set((await rig.get("/v1/health"))["circuit_breakers"]) == {"b", "c", "x"}


async def test_a_faulty_configuration_is_refused_and_the_old_one_stays() -> None:
    rig = Rig(ONE)
    rig.environment["GATEWAY_ROUTES"] = json.dumps({"fast": "nobody/m"})

    answer = await rig.post("/v1/admin/reload")

    assert answer.status == 400
    assert "GATEWAY_ROUTES.fast" in answer.json()["error"]["message"]
    assert (await rig.call()).status == 200


async def test_hedging_asks_the_second_when_the_first_is_silent() -> None:
    rig = Rig({"fast": {"to": ["a/m", "b/m"], "hedge": 0.01}})
    never = asyncio.Event()

    class Silent(ScriptedAnswer):
        async def chunk(self) -> bytes:
            await never.wait()
            return b""

    silent: list[Silent] = []

    def stay_silent(_: object) -> Silent:
        silent.append(Silent(200, [(b"content-type", b"text/event-stream")], []))
        return silent[-1]

    rig.scripts["a"] = stay_silent
    rig.scripts["b"] = streaming(*chat_events("hello"))

    answer = await rig.call(stream=True)

    assert answer.body == b"".join(chat_events("hello"))
    assert answer.headers["x-gateway-deployment"] == "b/m"
    assert silent[0].is_closed, "the loser is left at once"
    assert await rig.state() == "closed"
    call = rig.lines("call")[0]
    assert (call["attempts"], call["outcome"], call["deployment"]) == (2, "success", "b/m")
    attempts = answer.headers["x-gateway-attempts"].split(", ")
    assert [a.split(";")[0] for a in attempts] == ["a", "b"]


async def test_hedging_leaves_a_quick_first_alone_and_survives_two_failures() -> None:
    rig = Rig({"fast": {"to": ["a/m", "b/m"], "hedge": 5}}, GATEWAY_MAX_ATTEMPTS="2")
    assert (await rig.call()).headers["x-gateway-deployment"] == "a/m"
    assert not rig.calls["b"]
    rig.scripts["a"] = failing(500)
    assert (await rig.call()).headers["x-gateway-deployment"] == "b/m"
    rig.scripts["b"] = failing(503)
    failed = await rig.call()
    assert failed.status == 503
    assert [a.split(";")[:2] for a in failed.headers["x-gateway-attempts"].split(", ")] == [
        ["a", "server_error"], ["b", "server_error"],
    ]  # fmt: skip


async def test_a_hedged_call_whose_client_leaves_closes_both() -> None:
    rig = Rig({"fast": {"to": ["a/m", "b/m"], "hedge": 0.01}})
    never, answers = asyncio.Event(), []

    class Silent(ScriptedAnswer):
        async def chunk(self) -> bytes:
            await never.wait()
            return b""

    def stay_silent(_: object) -> Silent:
        answers.append(Silent(200, [(b"content-type", b"text/event-stream")], []))
        return answers[-1]

    rig.scripts["a"] = rig.scripts["b"] = stay_silent
    call = asyncio.create_task(rig.call(stream=True))
    while len(answers) < 2:
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert all(answer.is_closed for answer in answers)
    breakers = (await rig.get("/v1/health"))["circuit_breakers"]
    assert {breakers[name]["state"] for name in "ab"} == {"closed"}


async def test_weights_share_and_affinity_sticks() -> None:
    rig = Rig(
        {"fast": [{"to": "a/m", "weight": 3}, "b/m"], "warm": {"to": ["a/m", "b/m", "c/m"], "balance": "affinity"}}
    )
    for _ in range(400):
        await rig.call()
    assert 240 < rig.calls["a"] < 360

    async def asked(**more: Any) -> str:
        return (await rig.call("warm", **more)).headers["x-gateway-deployment"]

    homes = {key: {await asked(prompt_cache_key=key) for _ in range(5)} for key in map(str, range(12))}
    assert all(len(home) == 1 for home in homes.values())
    assert len(set.union(*homes.values())) == 3
    prompt = [{"role": "user", "content": "The same long beginning. " * 200}]
    assert len({await asked(messages=prompt) for _ in range(5)}) == 1


async def test_the_quickest_is_asked_first() -> None:
    rig = Rig({"fast": {"to": ["a/m", "b/m"], "balance": "latency"}})

    def slowly(_: object) -> ScriptedAnswer:
        rig.clock.advance(2)
        return ScriptedAnswer(200, SSE, chat_events("x"))

    rig.scripts["a"] = slowly
    rig.scripts["b"] = streaming(*chat_events("x"))
    for _ in range(10):
        await rig.call(stream=True)

    assert (rig.calls["a"], rig.calls["b"]) == (1, 9)


async def test_health_names_a_refused_key_and_the_client_hears_why() -> None:
    rig = Rig(ONE, GATEWAY_MAX_ATTEMPTS="1")
    assert (await rig.get("/v1/health"))["status"] == "ok"
    rig.scripts["a"] = failing(401, "invalid_api_key", headers={"x-request-id": "req_up_1"})

    first = await rig.call()
    assert (first.status, first.headers["x-gateway-upstream-request-id"]) == (502, "req_up_1")
    health = await rig.get("/v1/health")
    assert health["status"] == "degraded"
    assert {(p["kind"], p["name"]) for p in health["problems"]} == {("provider_auth", "a"), ("route_out", "fast")}
    assert health["circuit_breakers"]["a"]["cooldowns"][0]["class"] == "provider_auth"
    assert (await rig.get("/v1/providers/a/status"))["why"] == {"provider_auth": 1}
    assert (await drive(rig.gateway, path="/readyz")).status == 200, "another replica would fare no better"

    refused = await rig.call()
    error = refused.json()["error"]
    assert (refused.status, error["code"]) == (503, "provider_auth")
    assert "refuses the gateway's own credential" in error["message"]
    (line, *_) = rig.lines("provider_error")
    assert line["upstream_request_id"] == "req_up_1"
    (call,) = [line for line in rig.lines("call") if line["status"] == 502]
    assert call["upstream_request_id"] == "req_up_1"

    assert (await rig.command("a/typo", "reset")).status == 404
    rig.scripts["a"] = answering()
    await rig.command("a", "reset")
    assert (await rig.call()).status == 200
    assert (await rig.get("/v1/health"))["status"] == "ok"


@pytest.mark.parametrize(
    ("command", "state", "problems"),
    [("force-open", "forced_open", [("provider_out", "c")]), ("force-close", "forced_closed", [])],
)
async def test_a_force_on_a_provider_that_nobody_has_called_is_seen(
    command: str, state: str, problems: list[tuple[str, str]]
) -> None:
    rig = Rig()
    assert (await rig.command("c", command, {"ttl": 60})).status == 200
    health = await rig.get("/v1/health")
    assert health["circuit_breakers"]["c"]["state"] == state
    assert [(problem["kind"], problem["name"]) for problem in health["problems"]] == problems
    rig.clock.advance(61)
    assert await rig.state("c") == "closed"
