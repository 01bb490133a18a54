"""Callers who bring their own credential of a provider: it goes to that provider alone, and stays theirs alone."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import anthropic
import openai
import pytest

from asgi_driver import Transcript, drive
from gateway_middleware import Settings
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.simulator import Behaviour, Simulator
from gateway_middleware.tenancy.keys import digest
from rig import ADMIN, CHAT, GOOD, MESSAGES, Rig, answering, chat_events, failing, streaming
from running import KEY, LogLines, environment, gateway_for
from server_process import Server

pytestmark = pytest.mark.anyio

KEYS = {"acme": "gw-acme-0123456789", "beta": "gw-beta-0123456789", "plain": "gw-plain-012345678"}
MINE, THEIRS, SUBSCRIPTION = "sk-mine-0123456789", "sk-theirs-0123456789", "sk-ant-oat01-0123456789"
OWN_OF_B = "authorization: Bearer sk-secret-of-b"
MESSAGE = (
    b'{"id":"m","type":"message","model":"c","role":"assistant","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
)


def tenants(**credentials: Any) -> str:
    return json.dumps({
        name: {"keys": [digest(key.encode())], "credentials": credentials.get(name, {})} for name, key in KEYS.items()
    })  # fmt: skip


class World(Rig):
    """Calls of `acme` and `beta` to one provider carry the caller's own credential."""

    def __init__(self, routes: dict[str, Any] | None = None, provider: str = "a", **more: Any) -> None:
        listed = tenants(acme={provider: "client"}, beta={provider: "client"})
        super().__init__(routes, GATEWAY_OPEN="false", GATEWAY_TENANTS=listed, **more)

    async def ask(
        self,
        own: str | None = MINE,
        tenant: str = "acme",
        *,
        form: str = "authorization",
        path: str = CHAT,
        **more: Any,
    ) -> Transcript:
        extra = more.pop("headers", {})
        headers = {"content-type": "application/json", "x-gateway-key": KEYS[tenant], **extra}
        if own is not None:
            headers[form] = f"Bearer {own}" if form == "authorization" else own
        messages = [{"role": "user", "content": f"hello {next(self._numbers)}"}]
        body = json.dumps({"model": "fast", "max_tokens": 9, "messages": messages, **more}).encode()
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        return await drive(self.gateway, method="POST", path=path, headers=sent, body=body, catches=True)

    def sent(self) -> list[tuple[str, str]]:
        """Which credential each provider was sent since the last time."""
        requests = self.exchange.requests[:]
        self.exchange.requests.clear()
        return [(request.target.origin.host.partition(".")[0], credential_in(request)) for request in requests]

    async def shown(self) -> str:
        """What anybody but the caller can see."""
        pages = [
            await self.get_text(path) for path in ("/v1/health", "/v1/providers", "/v1/providers/a/status", "/metrics")
        ]
        status = await drive(
            self.gateway, path="/v1/admin/status", headers=[(b"authorization", f"Bearer {ADMIN}".encode())]
        )
        self.gateway.log.lines.flush()
        return "".join(pages) + status.body.decode() + self.log.raw.decode()


def credential_in(request: UpstreamRequest) -> str:
    named = (b"authorization", b"x-api-key", b"api-key")
    headers = (*request.target.headers, *request.headers)
    return ", ".join(f"{name.decode()}: {value.decode()}" for name, value in headers if name in named)


def test_how_the_provider_is_named() -> None:
    many = environment(
        "http://127.0.0.1:1", GATEWAY_TENANTS=tenants(acme={"anthropic": "client", "openai": "sk-acme-0123"})
    )
    acme = Settings.from_env(many).tenants[0]
    assert (acme.client_provider, [name for name, _ in acme.credentials]) == ("anthropic", ["openai"])
    alone = {"ANTHROPIC_API_KEY": "sk-upstream", "GATEWAY_TENANTS": tenants(acme="client")}
    assert Settings.from_env(alone).tenants[0].client_provider == "anthropic"
    keyless = json.dumps({"claude": {"kind": "anthropic", "auth": "none"}})
    own = {"GATEWAY_PROVIDERS": keyless, "GATEWAY_TENANTS": tenants(acme={"claude": "client"})}
    assert Settings.from_env(own).tenants[0].client_provider == "claude"


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ("client", "expected which provider"),
        ({"nobody": "client"}, "expected the name of a provider: openai, anthropic, azure"),
        ({"openai": "client", "azure": "client"}, 'expected "client" for one provider, not for openai and azure'),
    ],
)
def test_a_provider_that_is_not_said(credentials: Any, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(environment("http://127.0.0.1:1", GATEWAY_TENANTS=tenants(acme=credentials)))
    assert words in str(raised.value)


async def test_it_goes_to_the_one_provider_and_each_call_has_its_own() -> None:
    world = World()
    for own, tenant in ((MINE, "acme"), (THEIRS, "acme"), (MINE, "beta"), (MINE, "plain"), (THEIRS, "beta")):
        assert (await world.ask(own, tenant)).status == 200
    assert world.sent() == [
        ("a", f"authorization: Bearer {MINE}"),
        ("a", f"authorization: Bearer {THEIRS}"),
        ("a", f"authorization: Bearer {MINE}"),
        ("a", "authorization: Bearer sk-secret-of-a"),
        ("a", f"authorization: Bearer {THEIRS}"),
    ]


async def test_a_provider_that_is_not_named_gets_its_own() -> None:
    world = World({"fast": ["a/m", "b/m"], "other": ["b/m"]})
    world.scripts["a"] = failing(500)
    assert (await world.ask()).status == 200
    assert (await world.ask(model="other")).status == 200
    assert (await world.ask(None, model="other")).status == 200  # nothing of the caller's is needed
    assert world.sent() == [("a", f"authorization: Bearer {MINE}"), ("b", OWN_OF_B), ("b", OWN_OF_B), ("b", OWN_OF_B)]


@pytest.mark.parametrize(
    ("form", "own", "path", "sent"),
    [
        ("authorization", SUBSCRIPTION, MESSAGES, f"authorization: Bearer {SUBSCRIPTION}"),
        ("x-api-key", MINE, MESSAGES, f"x-api-key: {MINE}"),
        ("authorization", MINE, CHAT, f"x-api-key: {MINE}"),
        ("api-key", MINE, MESSAGES, f"x-api-key: {MINE}"),
    ],
)
async def test_in_the_form_that_anthropic_takes(form: str, own: str, path: str, sent: str) -> None:
    world = World({"fast": ["x/m"]}, "x")
    world.scripts["x"] = answering(MESSAGE)
    beta = {"anthropic-beta": "oauth-2025-04-20"}
    assert (await world.ask(own, form=form, path=path, headers=beta)).status == 200
    headers = dict(world.exchange.requests[0].headers)
    assert headers.get(b"anthropic-beta") == (b"oauth-2025-04-20" if path == MESSAGES else None)
    assert world.sent() == [("x", sent)]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_call_without_one_is_a_401_of_the_dialect(path: str) -> None:
    world = World()
    answer = await world.ask(None, path=path)
    assert (answer.status, world.sent()) == (401, [])
    error = answer.json()["error"]
    assert "a credential of your own at its provider" in error["message"]
    assert error["type"] == ("authentication_error" if path == MESSAGES else error["type"])
    in_place_of_ours = await world.call(headers={"authorization": f"Bearer {KEYS['acme']}"}, path=path)
    assert in_place_of_ours.status == 401


async def test_a_key_of_the_gateway_never_goes_to_a_provider() -> None:
    world = World()
    assert (await world.ask(KEYS["acme"])).status == 401
    assert world.sent() == []


async def test_what_a_provider_refuses_goes_to_the_caller_and_hurts_nobody_else() -> None:
    world = World()
    refused = {"error": {"message": f"Incorrect API key provided: {MINE}.", "code": "invalid_api_key"}}
    world.scripts["a"] = answering(json.dumps(refused).encode(), status=401)
    for _ in range(7):
        answer = await world.ask()
        assert answer.status == 401
        assert answer.json()["error"] == {
            "message": "Incorrect API key provided: [redacted].",
            "code": "invalid_api_key",
        }
    assert {host for host, _ in world.sent()} == {
        "a"
    }  # it is the caller's to renew: nobody else is asked at others' cost
    assert await world.state("a") == "closed"
    assert world.lines("provider_cooldown") == []
    (first, *_) = world.lines("provider_error")
    assert (first["status"], first["paid_by"], first["outcome"]) == (401, "client", "client_error")
    world.scripts["a"] = answering(GOOD)
    for own, tenant in ((MINE, "acme"), (THEIRS, "beta"), (None, "plain")):
        assert (await world.ask(own, tenant)).status == 200
    assert {host for host, _ in world.sent()} == {"a"}
    metrics = await world.get_text("/metrics")
    assert 'model_gateway_provider_alarms_total{class="provider_auth",provider="a"} 0.0' in metrics
    assert "(client)" not in metrics


async def test_throttling_is_of_that_credential_alone() -> None:
    world = World()
    world.scripts["a"] = failing(429, "rate_limit_exceeded", headers={"retry-after": "30"})
    assert (await world.ask()).status == 200
    world.scripts["a"] = answering(GOOD)
    world.sent()
    for own, tenant in ((MINE, "acme"), (MINE, "beta"), (THEIRS, "acme"), (None, "plain")):
        assert (await world.ask(own, tenant)).status == 200
    assert [host for host, _ in world.sent()] == ["b", "b", "a", "a"]
    assert world.lines("provider_cooldown") == []
    world.clock.advance(30)
    assert (await world.ask()).status == 200
    assert [host for host, _ in world.sent()] == ["a"]


async def test_where_nobody_else_can_be_asked_the_wait_is_told() -> None:
    world = World({"fast": ["a/m"]})
    world.scripts["a"] = failing(429, "rate_limit_exceeded", headers={"retry-after": "30"})
    assert (await world.ask()).status == 429
    waiting = await world.ask()
    assert (waiting.status, waiting.headers["retry-after"]) == (503, "30")
    assert "the credential that came with the call" in waiting.json()["error"]["message"]
    await world.command("a", "reset")
    assert (await world.ask()).status == 429


async def test_an_account_without_credit_is_the_callers_to_fill() -> None:
    world = World({"fast": ["a/m"]})
    world.scripts["a"] = failing(429, "insufficient_quota")
    assert [(await world.ask()).status for _ in range(2)] == [429, 429]
    assert [host for host, _ in world.sent()] == ["a", "a"]
    assert world.lines("provider_cooldown") == []
    assert (await world.get("/v1/health"))["status"] == "ok"


async def test_a_provider_that_is_down_is_down_for_all() -> None:
    world = World({"fast": ["a/m"]}, GATEWAY_MAX_ATTEMPTS="1")
    world.scripts["a"] = failing(500)
    for _ in range(5):
        await world.ask()
    assert await world.state("a") == "open"
    assert (await world.ask(None, "plain")).status == 503


async def test_many_refusals_of_models_are_no_refusal_of_a_credential() -> None:
    world = World({name: [f"a/{name}", f"b/{name}"] for name in "pqrs"})
    world.scripts["a"] = failing(403, "model is not for you")
    for name in "pqrs":
        assert (await world.ask(model=name)).status == 403
    world.sent()
    world.scripts["a"] = answering(GOOD)
    assert (await world.ask(model="p")).status == 200
    assert [host for host, _ in world.sent()] == ["a"]


async def test_it_is_shown_nowhere_and_kept_nowhere() -> None:
    world = World()
    echo = {"error": {"message": f"no such key: {MINE}", "code": "x"}}
    scripts = [
        answering(json.dumps(echo).encode(), status=400),
        answering(json.dumps(echo).encode(), status=500),
        answering(f"<html>{MINE}".encode(), status=502),
        streaming(*chat_events("hi")[:-1], f"data: {json.dumps(echo)}\n\n".encode()),
        answering(GOOD),
    ]
    answers = []
    for script in scripts:
        world.scripts = {"a": script, "b": script}
        answers += [await world.ask(), await world.ask(stream=True)]
    told = "".join(answer.body.decode() for answer in answers)
    assert "[redacted]" in told
    assert MINE not in told + await world.shown()
    world.exchange.requests.clear()
    world.exchange.answers.clear()
    world.scripts = {}
    assert remembered(world.gateway, MINE) == []


def remembered(root: object, secret: str) -> list[object]:
    """What can be reached from an object and holds this text."""
    seen, left = {id(root)}, [root]
    found: list[object] = []
    while left:
        here = left.pop()
        if isinstance(here, str | bytes) and secret in (here if isinstance(here, str) else here.decode("latin-1")):
            found.append(here)
        for other in referents(here):
            if id(other) not in seen and not isinstance(other, ModuleType | type):
                seen.add(id(other))
                left.append(other)
    return found


def referents(here: object) -> list[object]:
    """What an object keeps; of a function, that is not its module."""
    if isinstance(here, FunctionType):
        return [here.__closure__, here.__defaults__, here.__kwdefaults__]
    return gc.get_referents(here)


async def test_a_stored_response_is_read_with_the_credential_of_who_reads_it() -> None:
    credentials = {"acme": {"keys": [digest(KEYS["acme"].encode())], "credentials": {"openai": "client"}}}
    async with Simulator(keys=[MINE]).serve() as upstream:
        extra = {"GATEWAY_TENANTS": json.dumps(credentials)}
        async with gateway_for(upstream.url, {"write_log": LogLines()}, **extra) as url:
            headers = {"x-gateway-key": KEYS["acme"]}
            async with openai.AsyncOpenAI(
                base_url=f"{url}/v1", api_key=MINE, default_headers=headers, max_retries=0
            ) as client:
                made = await client.responses.create(model="gpt-5-mini", input="hello")
                assert (await client.responses.retrieve(made.id)).id == made.id
                with pytest.raises(openai.AuthenticationError):
                    await client.with_options(api_key="sk-expired-01234567").responses.retrieve(made.id)
        sent = [entry.named_headers["authorization"] for entry in upstream.simulator.requests]
        assert sent == [f"Bearer {MINE}"] * 2 + ["Bearer sk-expired-01234567"]


async def test_a_step_down_takes_it_along() -> None:
    routes = {"fast": {"to": ["b/m"], "on_budget": {"route": "cheap"}}, "cheap": ["a/m"]}
    world = World(routes)
    assert (await world.ask(None)).status == 401  # the call may come to `a`
    assert (await world.ask()).status == 200
    assert world.sent() == [("b", OWN_OF_B)]


class Hosts:
    """`serve` with two workers before two simulators, at which one only knows the credentials of callers."""

    def __init__(self, folder: Path, mine: str, other: str) -> None:
        self.server = Server(folder, other, GATEWAY_WORKERS="2")
        self.server.file.write_text(
            f"""
            [providers.claude]
            kind = "anthropic"
            base_url = "{mine}"
            auth = "none"
            [providers.openai]
            kind = "openai"
            base_url = "{mine}/v1"
            api_key = "sk-ours-openai-01234"
            [providers.backup]
            kind = "openai"
            base_url = "{other}/v1"
            api_key = "sk-ours-backup-01234"
            [providers.claude-backup]
            kind = "anthropic"
            base_url = "{other}"
            api_key = "sk-ours-claude-01234"
            [routes]
            sonnet = ["claude/claude-sonnet-4-5", "claude-backup/claude-sonnet-4-5", "backup/gpt-5-mini"]
            mini = ["openai/gpt-5-mini", "backup/gpt-5-mini"]
            [tenants.coders]
            keys = ["{digest(KEY.encode())}"]
            credentials = {{ claude = "client" }}
            [tenants.chatters]
            keys = ["{digest(KEYS["beta"].encode())}"]
            credentials = {{ openai = "client" }}
            """
        )


async def test_official_clients_at_two_workers_and_nothing_leaks_in_failover(tmp_path: Path) -> None:
    known = [MINE, THEIRS, SUBSCRIPTION]
    async with Simulator(keys=known).serve() as mine, Simulator().serve() as other:
        hosts = Hosts(tmp_path, mine.url, other.url)
        with hosts.server.run():
            await hosts.server.wait_for(2, workers=2)
            await both_ways(hosts.server.url)
            assert other.simulator.requests == []
            headers = [entry.named_headers for entry in mine.simulator.requests]
            sent = {(each.get("authorization") or each["x-api-key"]).removeprefix("Bearer ") for each in headers}
            assert sent == set(known)
            assert {each.get("anthropic-beta") for each in headers} == {None, "oauth-2025-04-20"}
            assert all("x-gateway-key" not in each for each in headers)

            mine.simulator.behave(Behaviour(status=500))
            await both_ways(hosts.server.url)
            assert other.simulator.requests
            for entry in other.simulator.requests:
                whole = b"".join(name + value for name, value in entry.headers) + entry.body
                assert [text for text in (*known, KEY, *KEYS.values()) if text.encode() in whole] == []
            mine.simulator.clear()

            with pytest.raises(anthropic.AuthenticationError, match=r"Incorrect API key provided: .redacted."):
                await claude(hosts.server.url, {"auth_token": "sk-ant-oat01-expired"})
            with pytest.raises(openai.AuthenticationError) as raised:
                await chat(hosts.server.url, "sk-expired-012345678")
            assert "sk-expired" not in str(raised.value)
            with pytest.raises(openai.AuthenticationError, match="a credential of your own"):
                await chat(hosts.server.url, KEYS["beta"])
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert [text for text in (*known, "sk-ant-oat01-expired") if text.encode() in kept] == []


async def both_ways(url: str) -> None:
    """Enough calls at a time that each worker takes some."""
    calls = [claude(url, {"auth_token": SUBSCRIPTION}), claude(url, {"api_key": MINE}), chat(url, THEIRS)]
    await asyncio.gather(
        *calls, *(chat(url, THEIRS) for _ in range(8)), *(claude(url, {"api_key": MINE}) for _ in range(8))
    )


async def claude(url: str, own: Any) -> None:
    headers = {"x-gateway-key": KEY, "anthropic-beta": "oauth-2025-04-20"}
    async with anthropic.AsyncAnthropic(base_url=url, default_headers=headers, max_retries=0, **own) as client:
        answer = await client.messages.create(
            model="sonnet", max_tokens=64, messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.content
        async with client.messages.stream(
            model="sonnet", max_tokens=64, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            assert await stream.get_final_text()


async def chat(url: str, own: str) -> None:
    headers = {"x-gateway-key": KEYS["beta"]}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=own, default_headers=headers, max_retries=0) as client:
        answer = await client.chat.completions.create(model="mini", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content
