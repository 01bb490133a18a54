"""Tenants with keys of their own at providers: each key goes with the calls of its tenant, and with no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

import ways
from asgi_driver import drive
from gateway_middleware import Gateway, Settings
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.tenancy.keys import digest
from rawserver import plain, raw_server, respond
from rig import CHAT, GOOD, MESSAGES, Rig, Script, answering, chat_events, streaming
from running import LogLines, environment
from scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio

KEYS = {"acme": "gw-acme-0123456789", "beta": "gw-beta-0123456789", "plain": "gw-plain-012345678"}
OWN = {"a": "sk-secret-of-a", "b": "sk-secret-of-b", "x": "sk-secret-of-x"}
ACME = {"a": "sk-acme-at-a-0123", "b": "sk-acme-at-b-0123", "x": "sk-acme-at-x-0123"}
BETA = {"a": "sk-beta-at-a-0123"}


def tenants(**credentials: dict[str, str]) -> str:
    """All three tenants, with these credentials."""
    return json.dumps({
        name: {"keys": [digest(key.encode())], "credentials": credentials.get(name, {})} for name, key in KEYS.items()
    })  # fmt: skip


GOOD_ANSWER = answering()


class Keys:
    """Notes which credentials each provider was sent, and refuses those that are dead."""

    def __init__(self, dead: Sequence[str] = ()) -> None:
        self.seen: list[tuple[str, str]] = []
        self.dead = set(dead)

    def script(self, good: Script = GOOD_ANSWER) -> Script:
        def answer(request: UpstreamRequest) -> Any:
            headers = dict((*request.target.headers, *request.headers))
            keys = [
                headers[n].decode().removeprefix("Bearer ") for n in (b"authorization", b"x-api-key") if n in headers
            ]
            assert len(keys) == 1
            self.seen.append((request.target.origin.host.partition(".")[0], keys[0]))
            if keys[0] in self.dead:
                body = {"error": {"message": f"Incorrect API key provided: {keys[0]}", "code": "invalid_api_key"}}
                return ScriptedAnswer(401, [(b"content-type", b"application/json")], [json.dumps(body).encode()])
            return good(request)

        return answer


def rig_for(keys: Keys, *, routes: dict[str, Any] | None = None, **credentials: dict[str, str]) -> Rig:
    given = credentials or {"acme": ACME, "beta": BETA}
    rig = Rig(routes or {"fast": ["a/m", "b/m"]}, GATEWAY_OPEN="false", GATEWAY_TENANTS=tenants(**given))
    rig.scripts = {name: keys.script() for name in "abcx"}
    return rig


async def call(rig: Rig, tenant: str, **more: Any) -> Any:
    return await rig.call(headers={"x-gateway-key": KEYS[tenant]}, **more)


@pytest.mark.parametrize("stream", [False, True])
async def test_each_key_goes_with_the_calls_of_its_tenant(stream: bool) -> None:
    keys = Keys()
    rig = rig_for(keys)
    rig.scripts["a"] = keys.script(streaming(*chat_events("hi"))) if stream else rig.scripts["a"]
    for tenant in ("plain", "acme", "beta", "acme", "plain"):
        assert (await call(rig, tenant, stream=stream)).status == 200

    assert keys.seen == [("a", key) for key in (OWN["a"], ACME["a"], BETA["a"], ACME["a"], OWN["a"])]


CHAT_ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{}}'
MESSAGE = (
    b'{"id":"m","type":"message","model":"c","role":"assistant","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":1,"output_tokens":1}}'
)


async def test_without_a_route_and_in_translation() -> None:
    keys = Keys()
    rig = rig_for(keys)
    rig.scripts |= {"b": keys.script(answering(CHAT_ANSWER)), "x": keys.script(answering(MESSAGE))}
    for more in ({"model": "a/gpt-5"}, {"model": "b/gpt-5", "path": MESSAGES}, {"model": "x/claude-sonnet-4-5"}):
        assert (await call(rig, "acme", **more)).status == 200

    assert keys.seen == [("a", ACME["a"]), ("b", ACME["b"]), ("x", ACME["x"])]


async def test_a_dead_key_cools_its_tenant_alone() -> None:
    keys = Keys(dead=[ACME["a"]])
    rig = rig_for(keys)

    assert (await call(rig, "acme")).status == 200
    assert keys.seen == [("a", ACME["a"]), ("b", ACME["b"])]
    keys.seen.clear()
    assert (await call(rig, "acme")).status == 200
    assert keys.seen == [("b", ACME["b"])]  # its account is left alone for a while
    keys.seen.clear()
    assert [(await call(rig, tenant)).status for tenant in ("beta", "plain")] == [200, 200]
    assert keys.seen == [("a", BETA["a"]), ("a", OWN["a"])]
    assert await rig.state("a") == "closed"


async def test_a_dead_key_of_the_provider_does_not_cool_tenants_with_their_own() -> None:
    keys = Keys(dead=[OWN["a"], OWN["b"]])
    rig = rig_for(keys)

    assert (await call(rig, "plain")).status == 502
    keys.seen.clear()
    assert (await call(rig, "acme")).status == 200
    assert keys.seen == [("a", ACME["a"])]


async def test_no_key_comes_out_anywhere() -> None:
    keys = Keys(dead=[ACME["a"], ACME["b"]])
    rig = rig_for(keys)
    answers = [await call(rig, "acme"), await call(rig, "acme", stream=True)]
    pages = [await rig.get_text(path) for path in ("/v1/health", "/v1/providers", "/metrics")]
    rig.gateway.log.lines.flush()
    shown = [*(a.body.decode() + repr(a.headers) for a in answers), *pages, rig.log.raw.decode(), repr(rig.gateway)]

    assert [secret for secret in (*ACME.values(), *BETA.values()) for text in shown if secret in text] == []
    assert all("acme" not in page for page in pages[:2])  # open pages name no tenant
    assert answers[0].status == 502


async def test_a_hedged_call_carries_the_tenants_keys_only() -> None:
    slow, quick = respond(b"", plain(GOOD)), respond(plain(GOOD))
    async with raw_server(slow) as a, raw_server(quick) as b:
        providers = {
            name: {"kind": "openai", "api_key": OWN[name], "base_url": server.url}
            for name, server in {"a": a, "b": b}.items()
        }
        gateway = ways.gateway(
            Settings.from_env(
                {
                    "GATEWAY_PROVIDERS": json.dumps(providers),
                    "GATEWAY_ROUTES": json.dumps({"fast": {"to": ["a/m", "b/m"], "hedge": 0.001}}),
                    "GATEWAY_TENANTS": tenants(acme={"a": ACME["a"], "b": ACME["b"]}),
                    "GATEWAY_JOURNAL": "off",
                }
            ),
            write_log=LogLines(),
        )
        async with gateway.lifespan():
            for tenant in ("acme", "plain") * 30:
                await ask(gateway, tenant)
        # A request of a hedged call that was given up may come in late: each tells by its body whose it is.
        for request in a.requests + b.requests:
            assert (b"of acme" in request) != (b"of plain" in request)
            assert (b"sk-acme" in request, b"sk-secret" in request) == (b"of acme" in request, b"of plain" in request)
        assert b.requests  # some were hedged


async def ask(gateway: Gateway, tenant: str) -> None:
    body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": f"of {tenant}"}]}).encode()
    headers = [(b"content-type", b"application/json"), (b"x-gateway-key", KEYS[tenant].encode())]
    assert (await drive(gateway, method="POST", path=CHAT, headers=headers, body=body)).status == 200


async def test_a_reload_replaces_gives_and_takes_keys() -> None:
    keys = Keys(dead=[ACME["a"]])
    rig = rig_for(keys)
    await call(rig, "acme")
    keys.seen.clear()

    rig.environment["GATEWAY_TENANTS"] = tenants(acme={"a": "sk-acme-new-01234"}, plain={"a": "sk-plain-new-0123"})
    assert (await rig.post("/v1/admin/reload")).status == 200
    for tenant in ("acme", "beta", "plain"):
        assert (await call(rig, tenant)).status == 200

    # The account of acme has another key now: it is asked again at once.
    assert keys.seen == [("a", "sk-acme-new-01234"), ("a", OWN["a"]), ("a", "sk-plain-new-0123")]


async def test_throttling_is_of_an_account_too() -> None:
    keys = Keys()
    rig = rig_for(keys)
    rig.scripts["a"] = keys.script(answering(b'{"error":{}}', status=429, headers={"retry-after": "30"}))
    await call(rig, "acme")
    rig.scripts["a"] = keys.script(answering(GOOD))
    keys.seen.clear()
    for tenant in ("acme", "beta", "plain"):
        await call(rig, tenant)

    assert keys.seen == [("b", ACME["b"]), ("a", BETA["a"]), ("a", OWN["a"])]


async def test_a_reset_by_an_operator_is_of_all_accounts() -> None:
    keys = Keys(dead=[ACME["a"]])
    rig = rig_for(keys)
    await call(rig, "acme")
    keys.seen.clear()
    keys.dead.clear()
    await rig.command("a", "reset")

    assert (await call(rig, "acme")).status == 200
    assert keys.seen == [("a", ACME["a"])]


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ({"nobody": "sk-secret-1234"}, "expected the name of a provider: openai, anthropic, azure"),
        ({"openai": 7}, "acme.credentials.openai"),
        ({"openai": "env:MISSING_VARIABLE"}, "MISSING_VARIABLE"),
        ("sk-secret-1234", "expected an object"),
    ],
)
def test_what_cannot_be_a_credential_is_refused_by_name(credentials: Any, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(environment("http://127.0.0.1:1", GATEWAY_TENANTS=tenants(acme=credentials)))
    assert words in str(raised.value)
    assert "sk-secret-1234" not in str(raised.value)
