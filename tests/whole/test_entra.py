"""Azure without a key: tokens of Entra ID, of a managed identity, of an object of the host's."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from asgi_driver import Transcript, drive
from gateway_middleware import Gateway, Settings
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.provider_api import UpstreamRequest
from rig import CHAT, GOOD, JSON
from running import LogLines
from scripted import ScriptedAnswer, ScriptedExchange

pytestmark = pytest.mark.anyio
ADMIN = "an-admin-token-of-some-length"
BASE = {
    "AZURE_OPENAI_ENDPOINT": "https://azure.test",
    "GATEWAY_OPEN": "true",
    "GATEWAY_JOURNAL": "off",
    "GATEWAY_ADMIN_TOKEN": ADMIN,
}
SECRET = {"AZURE_TENANT_ID": "t-1", "AZURE_CLIENT_ID": "c-1", "AZURE_CLIENT_SECRET": "client-secret-canary"}


class World:
    """Entra ID, an Azure that takes the tokens of `accepted` only, and a gateway between."""

    def __init__(self, environment: dict[str, str], **ports: Any) -> None:
        self.environment = {**BASE, **environment}
        self.asked: list[httpx.Request] = []
        self.accepted: set[str] | None = None
        self.identity: httpx.Response | None = None
        self.exchange = ScriptedExchange(self._azure)
        self.log = LogLines()
        self.gateway = Gateway(
            Settings.from_env(self.environment), exchange=self.exchange, write_log=self.log,
            transport=httpx.MockTransport(self._entra), reread=lambda: Settings.from_env(self.environment), **ports,
        )  # fmt: skip

    def _entra(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.identity is not None:
            return self.identity
        token = {"access_token": f"token-canary-{len(self.asked)}", "expires_in": 3600}
        return httpx.Response(200, json=token)

    def _azure(self, request: UpstreamRequest) -> ScriptedAnswer:
        token = bearer(request)
        if self.accepted is None or token in self.accepted:
            return ScriptedAnswer(200, JSON, [GOOD])
        body = json.dumps({"error": {"code": "401", "message": f"token {token} has expired"}}).encode()
        return ScriptedAnswer(401, JSON, [body])

    async def call(self, provider: str = "azure") -> Transcript:
        body = json.dumps({"model": f"{provider}/gpt-5", "messages": [{"role": "user", "content": "hi"}]}).encode()
        headers = {"content-type": "application/json"}
        return await drive(self.gateway, method="POST", path=CHAT, headers=headers, body=body, catches=True)

    @property
    def tokens(self) -> list[str]:
        """What the calls carried."""
        return [bearer(request) for request in self.exchange.requests]


def bearer(request: UpstreamRequest) -> str:
    headers = [*request.target.headers, *request.headers]
    assert not [value for name, value in headers if name == b"api-key"]
    (value,) = [value for name, value in headers if name == b"authorization"]
    return value.decode().removeprefix("Bearer ")


async def test_a_hundred_calls_carry_one_token_of_a_client_secret() -> None:
    world = World(SECRET)
    assert {answer.status for answer in await asyncio.gather(*(world.call() for _ in range(100)))} == {200}
    assert set(world.tokens) == {"token-canary-1"}
    (request,) = world.asked
    assert str(request.url) == "https://login.microsoftonline.com/t-1/oauth2/v2.0/token"
    assert parse_qs(request.content.decode())["client_secret"] == ["client-secret-canary"]


async def test_a_workload_identity_reads_its_file_anew(tmp_path: Path) -> None:
    file = tmp_path / "federated"
    file.write_text("first-assertion\n")
    variables = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": str(file)}
    world = World(variables)
    await world.call()
    file.write_text("second-assertion")
    world.accepted = {"token-canary-2"}
    assert (await world.call()).status == 200
    forms = [parse_qs(request.content.decode()) for request in world.asked]
    assert [form["client_assertion"] for form in forms] == [["first-assertion"], ["second-assertion"]]
    file.unlink()
    missing = World(variables)
    assert (await missing.call()).status == 502
    assert b"token file: FileNotFoundError" in missing_log(missing)


def missing_log(world: World) -> bytes:
    world.gateway.log.lines.flush()
    return world.log.raw


async def test_a_managed_identity() -> None:
    world = World({})
    assert (await world.call()).status == 200
    assert world.asked[0].url.host == "169.254.169.254"
    app_service = World({"IDENTITY_ENDPOINT": "http://127.0.0.1:41/msi", "IDENTITY_HEADER": "h"})
    await app_service.call()
    assert app_service.asked[0].headers["x-identity-header"] == "h"


async def test_a_refused_token_is_renewed_and_the_call_goes_on() -> None:
    world = World(SECRET)
    await world.call()
    world.accepted = {"token-canary-2"}
    answers = await asyncio.gather(*(world.call() for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert not [answer for answer in answers if "," in answer.headers["x-gateway-attempts"]]
    assert len(world.asked) == 2
    assert all(answer.is_closed for answer in world.exchange.answers)


async def test_an_account_that_refuses_every_token_costs_no_flood_of_them() -> None:
    world = World(SECRET)
    world.accepted = set()
    for _ in range(20):
        assert (await world.call()).status in {502, 503}
    assert len(world.asked) == 2


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (httpx.Response(503), "upstream_unreachable"),
        (httpx.Response(302, headers={"location": "http://169.254.169.254/"}), "upstream_unreachable"),
        (httpx.Response(200, content=b"x" * 100_000), "upstream_unreachable"),
        (httpx.Response(401, json={"error": "invalid_client", "error_description": "x"}), "provider_auth_error"),
    ],
)
async def test_without_a_token_the_provider_is_not_asked(identity: httpx.Response, expected: str) -> None:
    world = World(SECRET)
    world.identity = identity
    answer = await world.call()
    assert (answer.status, answer.json()["error"]["code"]) == (502, expected)
    assert world.exchange.requests == []


async def test_another_provider_takes_the_call_meanwhile() -> None:
    other = {"kind": "openai", "base_url": "https://other.test/v1", "api_key": "sk-other-canary"}
    routes = {
        "GATEWAY_ROUTES": '{"fast": ["azure/gpt-5", "other/gpt-5"]}',
        "GATEWAY_PROVIDERS": json.dumps({"other": other}),
    }
    world = World({**SECRET, **routes})
    world.identity = httpx.Response(503)
    body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "hi"}]}).encode()
    answer = await drive(
        world.gateway, method="POST", path=CHAT, headers={"content-type": "application/json"}, body=body
    )
    assert (answer.status, answer.headers["x-gateway-provider"]) == (200, "other")
    assert world.tokens == ["sk-other-canary"]


async def test_se4_se19_neither_secret_nor_token_is_in_any_output() -> None:
    world = World(SECRET)
    world.accepted = set()
    outputs = [(await world.call()).body for _ in range(3)]
    outputs += [(await drive(world.gateway, path=path)).body for path in ("/v1/health", "/metrics", "/v1/providers")]
    world.identity = httpx.Response(400, json={"error": "bad client-secret-canary token-canary-1"})
    outputs += [missing_log(world), repr(world.gateway.settings).encode(), world.gateway.settings.config_hash.encode()]
    assert not [output for output in outputs if b"canary" in output]


async def test_providers_of_one_identity_share_their_token_and_others_do_not() -> None:
    entra = {"tenant_id": "t", "client_id": "c", "client_secret": "env:S"}
    listed = {
        name: {"kind": "azure_openai", "base_url": f"https://{name}.test", "entra": {**entra, **more}}
        for name, more in {
            "eu": {},
            "us": {},
            "other": {"client_id": "d"},
            "scoped": {"scope": "https://x.test/.default"},
        }.items()
    }
    world = World({"GATEWAY_PROVIDERS": json.dumps(listed), "S": "client-secret-canary"})
    for name in [*listed, "azure"]:
        await world.call(name)
    assert world.tokens == [f"token-canary-{i}" for i in (1, 1, 2, 3, 4)]


async def test_a_reload_keeps_tokens_that_serve_and_gives_up_those_that_are_not_asked_for() -> None:
    world = World(SECRET)
    await world.call()
    reload: Any = {"method": "POST", "path": "/v1/admin/reload", "headers": {"authorization": f"Bearer {ADMIN}"}}
    world.environment["GATEWAY_ROUTES"] = '{"fast": ["azure/gpt-5"]}'
    assert (await drive(world.gateway, **reload)).status == 200
    await world.call()
    assert len(world.asked) == 1
    world.environment["AZURE_CLIENT_SECRET"] = "another-secret-canary"
    await drive(world.gateway, **reload)
    await world.call()
    assert parse_qs(world.asked[-1].content.decode())["client_secret"] == ["another-secret-canary"]
    world.accepted = set()
    assert b"canary" not in (await world.call()).body
    world.environment["AZURE_OPENAI_API_KEY"] = "key-canary"
    await drive(world.gateway, **reload)
    assert "azure" not in world.gateway.credentials.by_account


class AccessToken:
    def __init__(self, token: str) -> None:
        self.token = token
        self.expires_on = int(time.time()) + 3600


class Blocking:
    """As `azure.identity.DefaultAzureCredential`."""

    def __init__(self) -> None:
        self.scopes: list[tuple[str, ...]] = []
        self.threads: set[int] = set()

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes.append(scopes)
        self.threads.add(threading.get_ident())
        time.sleep(0.01)
        return AccessToken("token-of-the-host")


class Awaited:
    """As `azure.identity.aio.DefaultAzureCredential`."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        await asyncio.sleep(0)
        return AccessToken("token-of-the-loop")


class Failing:
    def get_token(self, *scopes: str) -> Any:
        raise RuntimeError("CredentialUnavailable: secret-canary")


async def test_any_object_with_get_token_will_do() -> None:
    blocking = Blocking()
    world = World({}, credentials={"azure": blocking})
    await asyncio.gather(*(world.call() for _ in range(20)))
    assert set(world.tokens) == {"token-of-the-host"}
    assert blocking.scopes == [("https://cognitiveservices.azure.com/.default",)]
    assert threading.get_ident() not in blocking.threads
    awaited = World({}, credentials={"azure": Awaited()})
    await awaited.call()
    assert awaited.tokens == ["token-of-the-loop"]
    failing = World({}, credentials={"azure": Failing()})
    assert (await failing.call()).status == 502
    assert b"canary" not in missing_log(failing)
    assert [world.asked, awaited.asked, failing.asked] == [[], [], []]


@pytest.mark.parametrize(
    ("environment", "name", "complaint"),
    [
        ({}, "nobody", "no provider is named 'nobody'"),
        ({"AZURE_OPENAI_API_KEY": "k-1234567"}, "azure", "has a key already"),
    ],
)
def test_credentials_that_nobody_asks_for(environment: dict[str, str], name: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        World(environment, credentials={name: Awaited()})
