"""A provider with several keys: each is left alone by itself, and a conversation stays with one."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.simulator import Behaviour, Simulator
from gateway_middleware.tenancy.keys import digest
from rig import GOOD, Rig, answering, failing
from running import KEY
from server_process import ADMIN, Server

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = "sk-one-0123456789", "sk-two-0123456789", "sk-three-0123456789"
REFUSED = failing(401, "invalid_api_key")


class Keyed(Rig):
    """Provider `a` has three keys; `keys` are the scripts of those that do not serve."""

    def __init__(self, listed: Any = (ONE, TWO, THREE), routes: Any = None, **more: Any) -> None:
        super().__init__(routes, **{"GATEWAY_PROVIDERS": self.written(listed), **more})
        self.keys: dict[str, Any] = {}
        self.scripts["a"] = self._by_key

    @staticmethod
    def written(listed: Any) -> str:
        providers = json.loads(Rig().environment["GATEWAY_PROVIDERS"])
        providers["a"]["api_key"] = list(listed)
        return json.dumps(providers)

    def _by_key(self, request: UpstreamRequest) -> Any:
        script = self.keys.get(key_of(request))
        return answering(GOOD)(request) if script is None else script(request)

    def asked(self) -> list[str]:
        """The keys that were sent since the last time."""
        requests = self.exchange.requests[:]
        self.exchange.requests.clear()
        return [key_of(request) for request in requests]

    async def first_key(self, **more: Any) -> str:
        """The key that calls of this kind prefer."""
        assert (await self.call(**more)).status == 200
        (key,) = self.asked()
        return key


def key_of(request: UpstreamRequest) -> str:
    return dict((*request.target.headers, *request.headers))[b"authorization"].decode().removeprefix("Bearer ")


def session(number: int) -> dict[str, Any]:
    return {"headers": {"x-gateway-session": f"session-{number}"}}


async def test_a_session_stays_with_its_key_in_every_process_and_sessions_spread() -> None:
    one, other = Keyed(), Keyed([THREE, ONE, TWO])
    keys = [await one.first_key(**session(number)) for number in range(60)]
    assert [await one.first_key(**session(number)) for number in range(60)] == keys
    assert [await other.first_key(**session(number)) for number in range(60)] == keys  # wherever it is listed
    assert min(Counter(keys)[key] for key in (ONE, TWO, THREE)) >= 8


@pytest.mark.parametrize(
    "of",
    [
        lambda n: {"user": f"user-{n}"},
        lambda n: {"prompt_cache_key": f"cache-{n}"},
        lambda n: {"path": "/v1/responses", "conversation": f"conv_{n}", "input": "x"},
    ],
)
async def test_so_does_an_end_user_a_cache_key_and_a_conversation(of: Any) -> None:
    rig = Keyed()
    keys = [await rig.first_key(**of(number)) for number in range(40)]
    assert [await rig.first_key(**of(number)) for number in range(40)] == keys
    assert len(set(keys)) == 3


async def test_a_tenant_without_any_of_these_stays_with_one() -> None:
    rig = Keyed()
    assert len({await rig.first_key() for _ in range(20)}) == 1


async def test_a_route_that_balances_by_affinity_says_what_stays_together() -> None:
    rig = Keyed(routes={"fast": {"to": ["a/m", "b/m"], "balance": "affinity", "affinity": {"by": "header:x-team"}}})
    teams = [{"headers": {"x-team": f"team-{number}", **session(number)["headers"]}} for number in range(30)]
    keys = [await rig.first_key(**team) for team in teams]
    assert [await rig.first_key(**team) for team in teams] == keys
    assert {ONE, TWO, THREE} < set(keys)  # and some go to b


async def test_a_refused_key_is_out_while_others_serve() -> None:
    rig = Keyed()
    first = await rig.first_key()
    name = f"key-{[ONE, TWO, THREE].index(first) + 1}"
    rig.keys[first] = REFUSED
    assert (await rig.call()).status == 200
    asked = rig.asked()
    assert asked[0] == first
    assert len(asked) == 2
    assert (await rig.call()).status == 200
    assert rig.asked() == asked[1:]

    (line,) = rig.lines("provider_error")
    assert line["message"].startswith("Provider error: a/m: provider_auth, status 401")
    assert (line["provider_key"], line["paid_by"]) == (name, "gateway")
    assert (
        f'model_gateway_provider_alarms_total{{class="provider_auth",provider="a#{name}"}} 1.0'
        in await rig.get_text("/metrics")
    )
    keys = {row["name"]: row for row in (await rig.get("/v1/providers/a/status"))["keys"]}
    assert [keys[other]["refused"] for other in sorted(keys)].count("provider_auth") == 1
    assert keys[name]["refused"] == "provider_auth"
    assert keys[name]["cooldowns"] == [{"deployment": None, "seconds": 60.0, "class": "provider_auth"}]
    assert await rig.state("a") == "closed"
    assert (await rig.get("/v1/health"))["status"] != "unavailable"

    rig.clock.advance(60)
    rig.keys.clear()
    assert await rig.first_key() == first  # it is tried again, and has healed
    assert {row["refused"] for row in (await rig.get("/v1/providers/a/status"))["keys"]} == {None}


async def test_a_throttled_key_waits_as_long_as_it_was_told_and_others_do_not() -> None:
    rig = Keyed(routes={"fast": ["a/m"]})
    for key, seconds in ((ONE, "30"), (TWO, "20"), (THREE, "10")):
        rig.keys[key] = failing(429, "rate_limit_exceeded", headers={"retry-after": seconds})
    assert (await rig.call()).status == 429
    assert sorted(rig.asked()) == sorted([ONE, TWO, THREE])
    refused = await rig.call()
    assert (refused.status, refused.headers["retry-after"], rig.asked()) == (503, "10", [])
    rig.keys.clear()
    rig.clock.advance(10)
    assert await rig.first_key() == THREE


async def test_a_failing_deployment_is_asked_with_one_key_only() -> None:
    rig = Keyed()
    rig.keys = dict.fromkeys((ONE, TWO, THREE), failing(500))
    assert (await rig.call()).status == 200
    assert [key.startswith("sk-secret-of-b") for key in rig.asked()] == [False, True]


async def test_a_reload_replaces_keys() -> None:
    rig = Keyed()
    rig.keys = dict.fromkeys((ONE, TWO, THREE), REFUSED)
    assert (await rig.call()).status == 502
    rig.asked()
    rig.environment["GATEWAY_PROVIDERS"] = Keyed.written(["sk-four-0123456789", "sk-five-0123456789"])
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert (await rig.first_key()) in {"sk-four-0123456789", "sk-five-0123456789"}
    rig.environment["GATEWAY_PROVIDERS"] = Keyed.written(["sk-six-01234567890"])
    assert (await rig.post("/v1/admin/reload")).status == 200
    assert await rig.first_key() == "sk-six-01234567890"
    assert (await rig.get("/v1/providers/a/status"))["keys"] == []


async def test_an_event_says_which_key_and_who_pays(tmp_path: Path) -> None:
    own = {"keys": [digest(b"gw-own-0123456789ab")], "credentials": {"a": "sk-tenants-012345"}}
    clients = {"keys": [digest(b"gw-client-0123456789")], "credentials": {"a": "client"}}
    listed = {"acme": {"keys": [digest(KEY.encode())]}, "own": own, "clients": clients}
    rig = Keyed(GATEWAY_JOURNAL=str(tmp_path / "j.db"), GATEWAY_OPEN="false", GATEWAY_TENANTS=json.dumps(listed))
    first = await rig.first_key()
    assert (await rig.call(headers={"x-gateway-key": "gw-own-0123456789ab"})).status == 200
    client = {"x-gateway-key": "gw-client-0123456789", "authorization": "Bearer sk-callers-01234"}
    assert (await rig.call(sends_key=False, headers=client)).status == 200
    await rig.gateway.aclose()
    with sqlite3.connect(rig.gateway.settings.journal) as db:
        rows = db.execute("SELECT body FROM events ORDER BY seq").fetchall()
    told = [msgspec.json.decode(body, type=UsageEvent) for (body,) in rows]
    name = f"key-{[ONE, TWO, THREE].index(first) + 1}"
    assert [(event.tenant, event.paid_by, event.provider_key) for event in told] == [
        ("acme", "gateway", name), ("own", "tenant", None), ("clients", "client", None),
    ]  # fmt: skip


async def test_no_key_is_shown() -> None:
    rig = Keyed()
    rig.keys = {key: answering(f'{{"error":{{"message":"bad {key}"}}}}'.encode(), status=401) for key in (ONE, TWO)}
    answers = [await rig.call(**session(number)) for number in range(9)]
    pages = [await rig.get_text(path) for path in ("/v1/health", "/v1/providers/a/status", "/metrics")]
    rig.gateway.log.lines.flush()
    shown = "".join([*pages, rig.log.raw.decode(), *(answer.body.decode() for answer in answers)])
    assert [key for key in (ONE, TWO, THREE) if key in shown] == []


async def test_official_client_at_two_workers_with_a_dead_key_and_a_reload_under_load(tmp_path: Path) -> None:
    async with Simulator(keys=[TWO, THREE]).serve() as upstream:
        server = Server(tmp_path, upstream.url, GATEWAY_WORKERS="2")
        written = server.file.read_text()

        def list_provider(*keys: str) -> None:
            listed = ", ".join(f'"{key}"' for key in keys)
            entry = f'kind = "openai"\nbase_url = "{upstream.url}/v1"\napi_key = [{listed}]'
            server.file.with_suffix(".draft").write_text(f"[providers.openai]\n{entry}\n{written}")
            server.file.with_suffix(".draft").replace(server.file)

        list_provider(ONE, TWO)
        with server.run():
            await server.wait_for(2, workers=2)
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
                await asyncio.gather(*(ask(client, number) for number in range(40)))
                assert sent(upstream) == {ONE, TWO}
                upstream.simulator.clear()
                upstream.simulator.behave(Behaviour(ttft=0.05))
                calls = [asyncio.ensure_future(ask(client, number)) for number in range(40)]
                list_provider(TWO, THREE)
                assert (await server.ask("POST", "/v1/admin/reload", ADMIN)).status_code == 200
                await asyncio.gather(*calls)
                upstream.simulator.clear()
                await asyncio.gather(*(ask(client, number) for number in range(40)))
                assert sent(upstream) == {TWO, THREE}
        assert "Provider error: openai/gpt-5-mini: provider_auth, status 401" in server.log.read_text()
        assert ONE not in server.log.read_text()


async def ask(client: openai.AsyncOpenAI, number: int) -> None:
    answer = await client.chat.completions.create(
        model="openai/gpt-5-mini",
        messages=[{"role": "user", "content": "hi"}],
        extra_headers={"x-gateway-session": f"session-{number}"},
    )
    assert answer.choices[0].message.content


def sent(upstream: Any) -> set[str]:
    entries = upstream.simulator.requests
    return {entry.named_headers["authorization"].removeprefix("Bearer ") for entry in entries}
