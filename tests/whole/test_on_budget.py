"""`on_budget` over sockets: a budget that is spent sends calls to a cheaper route, and the answers say so."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from asgi_driver import drive
from gateway_middleware import Settings
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from rig import ADMIN, Rig, answering
from running import KEY, LogLines, environment, gateway_for

pytestmark = pytest.mark.anyio
ROUTES = {"smart": ["openai/sim-input-10:output-100"], "cheap": ["openai/sim-output-100:input-10"]}
PRICES = {
    "openai/sim-input-10:output-100": {"input": "10000", "output": "10000"},
    "openai/sim-output-100:input-10": {"input": "200", "output": "200"},
}
"""A call of `smart` costs 1.1 dollars, one of `cheap` 2.2 cents."""
ASK: Any = [{"role": "user", "content": "Good morning"}]
STEP = {"route": "cheap"}


def tenants(**of_acme: Any) -> str:
    return json.dumps({"acme": {"keys": [digest(KEY.encode())], "spend": "3/month", **of_acme}})


@asynccontextmanager
async def client_of(folder: Path, log: LogLines, **extra: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with Simulator().serve() as simulator:
        chosen = {
            "GATEWAY_JOURNAL": str(folder / "journal.db"),
            "GATEWAY_ROUTES": json.dumps(ROUTES),
            "GATEWAY_PRICES": json.dumps(PRICES),
            "GATEWAY_TENANTS": tenants(on_budget=STEP),
            **extra,
        }
        async with gateway_for(simulator.url, {"write_log": log}, **chosen) as url:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
                yield client


async def ways(client: openai.AsyncOpenAI, count: int, **more: Any) -> list[tuple[str | None, str]]:
    """Of each call `x-gateway-budget` and the model that answered; of a refused one its code."""
    found: list[tuple[str | None, str]] = []
    for _ in range(count):
        try:
            answer = await client.chat.completions.with_raw_response.create(
                model="smart", messages=ASK, max_tokens=100, **more
            )
        except openai.RateLimitError as error:
            found.append((None, str(error.code)))
        else:
            headers = answer.headers
            found.append((headers.get("x-gateway-budget"), headers["x-gateway-deployment"]))
            assert headers.get("x-gateway-route") == ("cheap" if headers.get("x-gateway-budget") else None)
    return found


DEAR = (None, "openai/sim-input-10:output-100")
CHEAP = ("stepped-down", "openai/sim-output-100:input-10")


async def test_headers_log_events_and_sums_say_it(tmp_path: Path) -> None:
    log = LogLines()
    async with client_of(tmp_path, log) as client:
        assert await ways(client, 5) == [DEAR, DEAR, CHEAP, CHEAP, CHEAP]
        stream = await client.chat.completions.create(model="smart", messages=ASK, max_tokens=100, stream=True)
        assert [chunk async for chunk in stream]
        async with httpx.AsyncClient(trust_env=False) as plain:
            told = await plain.get(f"{client.base_url}usage", headers={"authorization": f"Bearer {KEY}"})
        (budget,) = [row for row in told.json()["limits"] if row["unit"] == "spend"]
    lines = [json.loads(line) for line in log.raw.splitlines() if b'"event":"call"' in line]
    calls = [line for line in lines if line.get("model") == "smart"]
    assert [line.get("budget") for line in calls] == [None, None, *["stepped-down"] * 4]
    assert [line["route"] for line in calls] == ["smart"] * 2 + ["cheap"] * 4
    with sqlite3.connect(tmp_path / "journal.db") as db:
        events = [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]
    assert [(e["model"], e["route"], e.get("budget")) for e in events] == [("smart", "smart", None)] * 2 + [
        ("smart", "cheap", "stepped-down")
    ] * 4
    assert sum(Decimal(e["cost"]) for e in events) == Decimal("2.288") == Decimal(str(budget["used"]))


async def test_a_group_and_a_route_may_say_it_and_a_share_is_enough(tmp_path: Path) -> None:
    group = {"team": {"tenants": ["acme"], "spend": "2/month", "on_budget": {"route": "cheap", "percent": 50}}}
    of_group = {"GATEWAY_TENANTS": tenants(spend="100/month"), "GATEWAY_GROUPS": json.dumps(group)}
    async with client_of(tmp_path, LogLines(), **of_group) as client:
        assert await ways(client, 3) == [DEAR, CHEAP, CHEAP]
    routes = {**ROUTES, "smart": {"to": ROUTES["smart"], "on_budget": STEP}}
    of_route = {"GATEWAY_TENANTS": tenants(spend="2/month"), "GATEWAY_ROUTES": json.dumps(routes)}
    (tmp_path / "other").mkdir()
    async with client_of(tmp_path / "other", LogLines(), **of_route) as client:
        assert await ways(client, 3) == [DEAR, CHEAP, CHEAP]


async def test_when_the_cheaper_one_does_not_fit_either_the_refusal_is_as_ever(tmp_path: Path) -> None:
    few = {"cheap": {"requests": "1/day"}}
    chosen = tenants(spend="2/month", on_budget=STEP, per_model=few)
    async with client_of(tmp_path, LogLines(), GATEWAY_TENANTS=chosen) as client:
        assert await ways(client, 3) == [DEAR, CHEAP, (None, "rate_limit_exceeded")]


@pytest.mark.parametrize(
    "of_acme",
    [{"models": ["smart"]}, {"require": {"region": ["eu"]}}],
    ids=["a model that is not allowed", "a provider without the label"],
)
async def test_a_cheaper_route_that_is_not_permitted_is_none(of_acme: dict[str, Any]) -> None:
    providers = {
        "eu": {"kind": "openai", "base_url": "https://a.test/v1", "api_key": "k", "labels": {"region": "eu"}},
        "us": {"kind": "openai", "base_url": "https://b.test/v1", "api_key": "k", "labels": {"region": "us"}},
    }
    rig = Rig(
        {"smart": ["eu/m"], "cheap": ["us/m"]},
        GATEWAY_PROVIDERS=json.dumps(providers),
        GATEWAY_PRICES=json.dumps({"eu/m": {"input": 1000, "output": 1}, "us/m": {"input": 1, "output": 1}}),
        GATEWAY_OPEN="",
        GATEWAY_TENANTS=tenants(spend="1/month", on_budget=STEP, **of_acme),
    )
    rig.scripts["a"] = answering(
        b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":0}}'
    )
    assert [(await rig.call("smart")).status for _ in range(2)] == [200, 429]
    assert rig.calls == {"a": 1}
    await rig.gateway.aclose()


MADE = "/v1/admin/tenants"


def rig_with_budget(**extra: Any) -> Rig:
    """A call of `smart` costs 90 cents, one of `cheap` and of `cheaper` a thousandth of it."""
    rig = Rig(
        {"smart": ["a/m"], "cheap": ["b/m"], "cheaper": ["c/m"]},
        GATEWAY_PRICES=json.dumps({key: {"input": 0, "output": cost} for key, cost in PER_MILLION.items()}),
        **{"GATEWAY_OPEN": "", "GATEWAY_TENANTS": json.dumps({"listed": {"keys": [digest(KEY.encode())]}}), **extra},
    )
    for provider in "abc":
        rig.scripts[provider] = answering(
            b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9}}'
        )
    return rig


PER_MILLION = {"a/m": 100_000, "b/m": 100, "c/m": 100}


async def made(rig: Rig, **body: Any) -> str:
    """A key of a tenant that is made."""
    answer = await rig.post(MADE, {"name": "new", "limits": {"spend": "2/month"}, **body})
    assert answer.status == 201, answer.json()
    key: str = (await rig.post(f"{MADE}/new/keys")).json()["key"]
    return key


async def changed(rig: Rig, **body: Any) -> Any:
    headers = {"authorization": f"Bearer {ADMIN}"}
    answer = await drive(
        rig.gateway, method="PATCH", path=f"{MADE}/new", headers=headers, body=json.dumps(body).encode()
    )
    return answer.status, answer.json()


async def steps(rig: Rig, key: str, count: int = 1) -> list[Any]:
    """Of each call the route that it went down to, None where it did not; of one that was refused its status."""
    answers = [await rig.call("smart", headers={"x-gateway-key": key}) for _ in range(count)]
    return [a.headers.get("x-gateway-route") if a.status == 200 else a.status for a in answers]


async def test_tenants_that_are_made_at_run_time_have_their_own(tmp_path: Path) -> None:
    rig = rig_with_budget(GATEWAY_JOURNAL=str(tmp_path / "journal.db"))
    key = await made(rig, on_budget={"route": "cheap"})
    assert await steps(rig, key, 4) == [None, None, "cheap", "cheap"]
    assert await changed(rig, on_budget={"route": "cheaper", "percent": 50}) == (
        200, (await rig_row(rig)) | {"on_budget": {"route": "cheaper", "percent": 50}}
    )  # fmt: skip
    assert await steps(rig, key) == ["cheaper"]
    metrics = await rig.get_text("/metrics")
    assert 'model_gateway_budget_steps_total{route="cheap",tenant="new"} 2.0' in metrics
    assert 'model_gateway_budget_steps_total{route="cheaper",tenant="new"} 1.0' in metrics
    assert (await changed(rig, on_budget=None))[1]["on_budget"] is None
    assert await steps(rig, key) == [429]
    await changed(rig, limits={"spend": "3/month"})  # 1.8027 are spent
    assert await steps(rig, key, 2) == [None, 429]
    await rig.gateway.aclose()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        events = [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]
    told = [event["changes"].get("on_budget", "-") for event in events if event.get("event") == "audit"]
    assert told == [{"route": "cheap", "percent": 100}, "-", {"route": "cheaper", "percent": 50}, None, "-"]


async def rig_row(rig: Rig) -> Any:
    answer = await drive(rig.gateway, path=MADE, headers={"authorization": f"Bearer {ADMIN}"})
    (row,) = [row for row in answer.json()["tenants"] if row["name"] == "new"]
    return row


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ({"route": "chaep"}, "on_budget.route"),
        ({"route": "cheap", "percent": 0}, "on_budget.percent"),
        ({"route": "cheap", "percent": 101}, "on_budget.percent"),
        ({"route": ""}, "on_budget.route"),
        ({"percent": 5}, "on_budget"),
        ({"route": "cheap", "more": 1}, "on_budget"),
        ("cheap", "on_budget"),
    ],
)
async def test_a_step_that_is_none_is_refused(step: Any, place: str) -> None:
    rig = rig_with_budget()
    refused = await rig.post(MADE, {"name": "new", "on_budget": step})
    assert (refused.status, refused.json()["error"]["param"]) == (400, place)
    await made(rig)
    assert (await changed(rig, on_budget=step))[0] == 400
    assert (await rig_row(rig))["on_budget"] is None
    await rig.gateway.aclose()


async def test_the_configuration_is_stronger_and_a_route_that_is_gone_is_no_step() -> None:
    rig = rig_with_budget()
    key = await made(rig, on_budget={"route": "cheap"})
    assert await steps(rig, key, 3) == [None, None, "cheap"]
    listed = {"listed": {"keys": [digest(KEY.encode())]}, "new": {"spend": "2/month"}}
    rig.environment["GATEWAY_TENANTS"] = json.dumps(listed)
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert await steps(rig, key) == [429]
    del listed["new"]
    rig.environment["GATEWAY_TENANTS"] = json.dumps(listed)
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert await steps(rig, key) == ["cheap"]
    rig.environment["GATEWAY_ROUTES"] = json.dumps({"smart": ["a/m"], "other": ["b/m"]})
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert await steps(rig, key) == [429]
    await rig.gateway.aclose()


@pytest.mark.parametrize(
    ("place", "extra"),
    [
        ("GATEWAY_TENANTS.acme.on_budget.route", {"GATEWAY_TENANTS": tenants(on_budget={"route": "chaep"})}),
        ("GATEWAY_TENANTS.acme.on_budget", {"GATEWAY_TENANTS": tenants(on_budget={})}),
        ("GATEWAY_TENANTS.acme.on_budget.percent", {"GATEWAY_TENANTS": tenants(on_budget={**STEP, "percent": 0})}),
        (
            "GATEWAY_GROUPS.team.on_budget.route",
            {"GATEWAY_GROUPS": '{"team": {"tenants": ["acme"], "on_budget": {"route": "x"}}}'},
        ),
        (
            "GATEWAY_ROUTES.smart.on_budget.route",
            {"GATEWAY_ROUTES": '{"smart": {"to": "openai/m", "on_budget": {"route": "smart"}}}'},
        ),
    ],
)
def test_a_step_that_leads_nowhere_is_a_fault(place: str, extra: dict[str, str]) -> None:
    chosen = {"GATEWAY_ROUTES": json.dumps(ROUTES), "GATEWAY_PRICES": json.dumps(PRICES), **extra}
    with pytest.raises(SettingsError) as fault:
        Settings.from_env(environment("http://127.0.0.1:1", **chosen))
    assert place in str(fault.value)
