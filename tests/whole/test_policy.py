"""A policy-adapter over real sockets: real Rego policies, an adapter that misbehaves, two workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from regopy import Interpreter

import ways
from asgi_driver import drive
from gateway_middleware import Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.policy_adapter import UNDEFINED, PolicyAdapter, PolicyFault, PolicyServer
from gateway_middleware.tenancy.keys import digest
from redis_process import free_port
from running import LogLines, environment, gateway_for, serving

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
MINI = "openai/gpt-5-mini"
ADMIN = "an-admin-token-of-some-length"
TENANTS = json.dumps({name: {"keys": [digest(name.encode())]} for name in ("acme", "globex", "initech", "stranger")})
POLICY = Path(__file__).with_name("authorize.rego").read_text("utf-8")


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


@pytest.fixture
async def policy() -> AsyncIterator[PolicyServer]:
    async with PolicyAdapter().serve() as server:
        yield server


def by_rego(policy: str = POLICY, rule: str = "authorize") -> Any:
    """What the policy makes of an input, as OPA would answer."""
    rego = Interpreter()
    rego.add_module("gateway", policy)

    def decide(asked: dict[str, Any]) -> Any:
        rego.set_input(asked)
        output = rego.query(f"x := data.gateway.{rule}")
        return UNDEFINED if str(output) == "undefined" else json.loads(str(output.binding("x")))

    return decide


def variables(policy: PolicyServer, **extra: str) -> dict[str, str]:
    return {
        "GATEWAY_TENANTS": TENANTS,
        "GATEWAY_POLICY_ADAPTER_URL": policy.data_url,
        "GATEWAY_ADMIN_TOKEN": ADMIN,
        **extra,
    }


async def call(url: str, tenant: str, model: str = MINI, path: str = CHAT) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10, verify=False) as client:  # noqa: S501  no TLS here, and no time for its context
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "input": "x"}
        return await client.post(url + path, json=body, headers={"x-api-key": tenant})


async def statuses(url: str, *tenants: str) -> list[int]:
    return [(await call(url, tenant)).status_code for tenant in tenants]


async def test_a_rego_policy_says_who_may_call_what_and_on_which_terms(simulator: Any, policy: PolicyServer) -> None:
    policy.adapter.policy = by_rego()
    log = LogLines()
    async with gateway_for(simulator.url, {"write_log": log}, **variables(policy)) as url:
        assert await statuses(url, "globex", "acme", "acme", "acme") == [200, 200, 200, 429]
        unknown, suspended = await call(url, "stranger"), await call(url, "initech")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (403, "policy_denied")
        assert "unknown tenant" in unknown.json()["error"]["message"]
        assert (suspended.status_code, suspended.json()["error"]["code"]) == (403, "tenant_suspended")
        assert (await call(url, "acme", "openai/gpt-5")).status_code == 404
        assert (await call(url, "globex", "openai/gpt-5")).status_code == 200
        refused = await call(url, "acme", path="/v1/embeddings")
        assert (refused.status_code, "no embeddings" in refused.text) == (403, True)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="stranger", max_retries=0) as client:
            with pytest.raises(openai.PermissionDeniedError):
                await client.models.list()
        async with anthropic.AsyncAnthropic(base_url=url, api_key="stranger", max_retries=0) as other:
            with pytest.raises(anthropic.PermissionDeniedError):
                await other.messages.create(
                    model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "x"}]
                )
    lines = [json.loads(line) for line in log.raw.splitlines()]
    first = next(line for line in lines if line.get("tenant") == "acme" and line["event"] == "call")
    assert (first["policy_decision"], first["labels"]) == ("decision-2", {"plan": "free"})
    denied = next(line for line in lines if line.get("tenant") == "stranger")
    assert (denied["limit"], denied["policy_decision"], denied["error_code"]) == (
        "policy",
        "decision-3",
        "policy_denied",
    )


async def test_what_a_tenant_may_look_up_is_what_the_policy_lets_it_call(simulator: Any, policy: PolicyServer) -> None:
    routes = json.dumps({"fast": [MINI], "smart": ["openai/gpt-5"]})
    policy.adapter.policy = {"acme": {"allow": True, "models": ["fa*"], "limits": {"requests": "7/hour"}}, "*": True}
    async with gateway_for(simulator.url, **variables(policy, GATEWAY_ROUTES=routes)) as url:
        async with httpx.AsyncClient() as client:
            listed = {}
            for tenant in ("acme", "globex"):
                answer = await client.get(f"{url}/v1/models", headers={"x-api-key": tenant})
                listed[tenant] = {model["id"] for model in answer.json()["data"]}
            usage = (await client.get(f"{url}/v1/usage", headers={"x-api-key": "acme"})).json()
            assert (await client.get(f"{url}/v1/models/smart", headers={"x-api-key": "acme"})).status_code == 404
        assert listed == {"acme": {"fast"}, "globex": {"fast", "smart"}}
        assert [(row["unit"], row["limit"]) for row in usage["limits"]] == [("requests", 7)]
        assert {question["action"] for question in policy.adapter.questions} == {"read"}


@pytest.mark.parametrize("rule", ["no_such_rule", "authorize.allow"])
async def test_a_rule_that_is_undefined_is_a_no(simulator: Any, policy: PolicyServer, rule: str) -> None:
    policy.adapter.policy = by_rego("package gateway\nimport rego.v1\nauthorize := {} if false", rule)
    async with gateway_for(simulator.url, **variables(policy)) as url:
        assert await statuses(url, "acme") == [403]


SLOW_SECONDS = 30.0
FAULTS: dict[str, PolicyFault] = {
    "500": PolicyFault(status=500),
    "404": PolicyFault(status=404, body="{}"),
    "garbage": PolicyFault(body="<html>"),
    "huge": PolicyFault(body='{"result": ' + " " * 400_000 + "true}"),
    "deep": PolicyFault(body='{"result": ' + "[" * 50_000),
    "a yes in words": PolicyFault(body='{"result": "true"}'),
    "redirect to a yes": PolicyFault(status=302, location="/v1/data/yes"),
    "drops": PolicyFault(ends="drop"),
    "hangs": PolicyFault(ends="hang"),
    "slow": PolicyFault(delay=SLOW_SECONDS),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_lc6_an_adapter_that_fails(simulator: Any, policy: PolicyServer, name: str) -> None:
    """Who was allowed lately goes on, who is unknown is neither let in nor refused; nobody waits for long."""
    extra = variables(policy, GATEWAY_POLICY_TIMEOUT_SECONDS="0.3", GATEWAY_POLICY_ALLOWED_SECONDS="0.2")
    async with gateway_for(simulator.url, **extra) as url:
        assert await statuses(url, "acme") == [200]
        policy.adapter.behave(FAULTS[name])
        await asyncio.sleep(0.25)
        async with asyncio.timeout(SLOW_SECONDS):
            answers = await asyncio.gather(*(call(url, tenant) for tenant in ["acme", "globex"] * 30))
        assert {answer.status_code for answer in answers[::2]} == {200}
        assert {answer.status_code for answer in answers[1::2]} == {503}
        error = answers[1].json()["error"]
        assert (error["code"], "retry-after" in answers[1].headers) == ("policy_unavailable", True)
        async with httpx.AsyncClient() as client:
            health = (await client.get(f"{url}/v1/health")).json()
            metrics = (await client.get(f"{url}/metrics")).text
        assert (health["policy"]["status"], health["status"]) == ("failing", "degraded")
        assert "model_gateway_policy_failing 1.0" in metrics
        assert policy.url not in json.dumps(health)
        assert len(policy.adapter.questions) <= 6
        policy.adapter.behave_well()
        async with asyncio.timeout(30):
            while await statuses(url, "globex", "acme") != [200, 200]:
                await asyncio.sleep(0.1)


async def test_lc9_it_starts_without_its_adapter(simulator: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1/data/gateway/authorize"
    tenants = json.loads(TENANTS)
    tenants["globex"]["on_policy_outage"] = "allow"
    extra = {"GATEWAY_TENANTS": json.dumps(tenants), "GATEWAY_POLICY_ADAPTER_URL": url}
    async with gateway_for(simulator.url, **extra) as gateway:
        assert await statuses(gateway, "acme", "globex") == [503, 200]
    async with gateway_for(simulator.url, **extra, GATEWAY_POLICY_ON_OUTAGE="allow") as gateway:
        assert await statuses(gateway, "acme") == [200]


async def test_lc7_a_thousand_calls_at_once_are_one_question(simulator: Any, policy: PolicyServer) -> None:
    policy.adapter.behave(PolicyFault(delay=0.2))
    extra = variables(policy, GATEWAY_POLICY_TIMEOUT_SECONDS="5")
    gateway = ways.gateway(Settings.from_env(environment(simulator.url, **extra)), write_log=LogLines())
    body = json.dumps({"model": MINI, "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"x-api-key": "acme", "content-type": "application/json"}
    async with gateway.lifespan():
        calls = (drive(gateway, method="POST", path=CHAT, headers=headers, body=body) for _ in range(1000))
        answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}
    assert len(policy.adapter.questions) == 1


async def test_terms_of_one_generation_are_not_those_of_the_next(simulator: Any, policy: PolicyServer) -> None:
    """The plans of calls go by the terms: neither a limit nor a model list outlives its decision."""
    policy.adapter.policy = {"*": {"allow": True, "limits": {"requests": "1/hour"}}}
    async with gateway_for(simulator.url, **variables(policy)) as url, httpx.AsyncClient() as client:
        invalidate: Any = {
            "url": f"{url}/v1/admin/policy/invalidate/acme",
            "headers": {"authorization": f"Bearer {ADMIN}"},
        }
        assert await statuses(url, "acme", "acme", "globex") == [200, 429, 200]
        policy.adapter.policy = {"*": {"allow": True, "limits": {"requests": "3/hour"}}}
        assert (await client.post(**invalidate)).status_code == 200
        assert await statuses(url, "acme", "acme", "acme", "globex") == [200, 200, 429, 429]
        policy.adapter.policy = {"*": {"allow": True, "models": ["nothing"]}}
        await client.post(**invalidate)
        assert await statuses(url, "acme") == [404]
        policy.adapter.policy = {"*": True}
        await client.post(**invalidate)
        assert await statuses(url, "acme", "acme") == [200, 200]


async def test_the_decision_is_in_the_usage_event(simulator: Any, policy: PolicyServer, tmp_path: Path) -> None:
    policy.adapter.policy = {"*": {"allow": True, "labels": {"cost-center": "42"}}}
    journal = tmp_path / "j.db"
    events: list[Any] = []
    gateway = ways.gateway(
        Settings.from_env(environment(simulator.url, **variables(policy, GATEWAY_JOURNAL=str(journal)))),
        write_log=LogLines(),
    )
    async with serving(GatewayApplication(gateway)) as url:
        assert await statuses(url, "acme") == [200]
    with sqlite3.connect(journal) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            events += [str(row) for row in database.execute(f"SELECT * FROM {table}")]  # noqa: S608  our own tables
    database.close()
    stored = "".join(events)
    assert '"decision_id":"decision-1"' in stored
    assert '"labels":[["cost-center","42"]]' in stored


async def test_the_token_is_sent_and_nowhere_shown(simulator: Any) -> None:
    log = LogLines()
    async with PolicyAdapter(token="policy-secret-token").serve() as policy:
        for token, expected in (("policy-secret-token", 200), ("wrong-secret-token", 503)):
            extra = variables(policy, GATEWAY_POLICY_ADAPTER_TOKEN=token)
            async with gateway_for(simulator.url, {"write_log": log}, **extra) as url:
                answer = await call(url, "acme")
                assert answer.status_code == expected
                assert token not in answer.text
    assert b"secret-token" not in log.raw
    assert policy.data_url.encode() not in log.raw


async def test_invalidating_needs_the_operators_token_and_an_adapter(simulator: Any, policy: PolicyServer) -> None:
    path = "/v1/admin/policy/invalidate"
    async with httpx.AsyncClient() as client:
        async with gateway_for(simulator.url, **variables(policy)) as url:
            assert (await client.post(url + path, headers={"x-api-key": "acme"})).status_code == 403
            assert (await client.post(url + path)).status_code == 401
        async with gateway_for(simulator.url, GATEWAY_ADMIN_TOKEN=ADMIN) as url:
            answer = await client.post(url + path, headers={"authorization": f"Bearer {ADMIN}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_policy_adapter")
            assert (await client.get(f"{url}/v1/health")).json()["policy"] == {"status": "off"}


async def test_lc8_two_workers_forget_a_tenant(simulator: Any, policy: PolicyServer, tmp_path: Path) -> None:
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_"))}
    listed = environment(simulator.url, **variables(policy, GATEWAY_POLICY_ALLOWED_SECONDS="600"))
    listed |= {"GATEWAY_PORT": str(port), "GATEWAY_WORKERS": "2", "GATEWAY_JOURNAL": str(tmp_path / "j.db")}
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "gateway_middleware", "serve"]
    with subprocess.Popen(command, env=kept | listed, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            await _ready(url)
            assert set(await _many(url)) == {200}
            policy.adapter.policy = {"acme": False, "*": True}
            assert 200 in await _many(url), "a worker that has asked before keeps what it was told"
            async with httpx.AsyncClient() as client:
                answer = await client.post(
                    f"{url}/v1/admin/policy/invalidate/acme", headers={"authorization": f"Bearer {ADMIN}"}
                )
            assert answer.json() == {"tenant": "acme", "is_shared": True}
            async with asyncio.timeout(30):
                while set(await _many(url)) != {403}:
                    await asyncio.sleep(0.05)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)


async def _ready(url: str) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(900):
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("it does not start")


async def _many(url: str) -> list[int]:
    """Over connections of their own, so that every worker takes some."""
    return [answer.status_code for answer in await asyncio.gather(*(call(url, "acme") for _ in range(30)))]
