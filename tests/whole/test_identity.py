"""Who is calling, over real sockets: an api-gateway in front by TCP and by Unix socket, an issuer of tokens, a host."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

import ways
from gateway_middleware import Settings, mount
from gateway_middleware.app import GatewayApplication
from gateway_middleware.core.domain import Tenant
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from gateway_middleware.tenancy.trusted_header import signature_of
from issuer import AUDIENCE, jwk, rsa_key, token
from running import KEY, LogLines, environment, gateway_for, serving, serving_on

pytestmark = pytest.mark.anyio
SECRET = "a-secret-of-sixteen-characters"
CHAT = "/v1/chat/completions"
BODY = {"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
BY_HEADER = {
    "GATEWAY_TENANT_HEADER": "X-Tenant-ID",
    "GATEWAY_TRUSTED_PROXIES": "127.0.0.1,unix:",
    "GATEWAY_TENANT_HEADER_SECRET": SECRET,
}


@pytest.fixture
async def simulator() -> AsyncIterator[Any]:
    async with Simulator().serve() as server:
        yield server


def signed(tenant: str, path: str = CHAT, method: str = "POST") -> dict[str, str]:
    value = signature_of(
        SECRET.encode(), moment=int(time.time()), method=method, path=path.encode(), tenant=tenant.encode()
    )
    return {"x-tenant-id": tenant, "x-gateway-tenant-signature": value}


async def usage_of(url: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/v1/usage", headers=headers)
    return answer.status_code, answer.json()


async def test_a_proxy_that_signs_names_tenants_and_nothing_of_it_goes_to_the_provider(simulator: Any) -> None:
    async with gateway_for(simulator.url, **BY_HEADER) as url, httpx.AsyncClient() as client:
        answers = [await client.post(url + CHAT, json=BODY, headers=signed(name)) for name in ("acme", "newcomer")]
        assert [a.status_code for a in answers] == [200, 200]
        status, document = await usage_of(url, signed("newcomer", "/v1/usage", "GET"))
    assert (status, document["tenant"]) == (200, "newcomer")
    sent = {name for received in simulator.simulator.log.entries for name, _ in received.headers}
    assert sent
    assert not {name for name in sent if b"tenant" in name}


@pytest.mark.parametrize("prefix", ["/llm", "/deep/er"])
async def test_below_a_mount_the_whole_path_is_signed(simulator: Any, prefix: str) -> None:
    gateway = ways.gateway(Settings.from_env(environment(simulator.url, **BY_HEADER)), write_log=LogLines())
    app = Starlette(lifespan=lambda _: gateway.lifespan())
    mount(app, prefix, gateway)
    async with serving(app) as url, httpx.AsyncClient() as client:
        good = await client.post(url + prefix + CHAT, json=BODY, headers=signed("acme", prefix + CHAT))
        bad = await client.post(url + prefix + CHAT, json=BODY, headers=signed("acme"))
    assert (good.status_code, bad.status_code) == (200, 401)


@pytest.mark.parametrize("options", [{}, {"http": "httptools"}, {"http": "h11"}])
async def test_a_proxy_on_a_unix_socket_is_a_peer_and_tcp_is_none(
    simulator: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    listed = {**BY_HEADER, "GATEWAY_TRUSTED_PROXIES": "unix:"}
    gateway = ways.gateway(Settings.from_env(environment(simulator.url, **listed)), write_log=LogLines())
    path = str(tmp_path / "g.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        async with serving_on(listener, GatewayApplication(gateway), **options):
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
                answer = await client.post(f"http://g{CHAT}", json=BODY, headers=signed("acme"))
                assert answer.status_code == 200
    async with gateway_for(simulator.url, **listed) as url, httpx.AsyncClient() as client:
        assert (await client.post(url + CHAT, json=BODY, headers=signed("acme"))).status_code == 401


@pytest.mark.own_server("uvicorn believes the x-forwarded-for of a peer at 127.0.0.1, unless told not to")
async def test_se1_an_untrusted_peer_names_nobody(simulator: Any) -> None:
    """A valid key, and the header of another tenant with everything but the secret: the tenant is that of the key."""
    listed = {**BY_HEADER, "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8"}
    async with gateway_for(simulator.url, **listed) as url, httpx.AsyncClient() as client:
        own = {"authorization": f"Bearer {KEY}", "x-forwarded-for": "10.0.0.1"}
        for spelling in ("X-Tenant-ID", "x_tenant_id", "X-TENANT-ID", "x-tenant_id"):
            answer = await client.get(url + "/v1/usage", headers={**own, spelling: "victim", **signed("victim")})
            assert answer.json()["tenant"] == "acme"
        metrics = (await client.get(url + "/metrics")).text
    assert 'model_gateway_tenant_headers_refused_total{reason="untrusted_peer"} 4.0' in metrics


async def test_se2_headers_that_come_twice_are_told_in_the_clients_dialect(simulator: Any) -> None:
    async with gateway_for(simulator.url, **BY_HEADER) as url, httpx.AsyncClient() as client:
        pairs = [*signed("acme", "/v1/messages").items(), ("X-Tenant-Id", "globex")]
        answer = await client.post(f"{url}/v1/messages", json=BODY, headers=pairs)
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert SECRET not in answer.text


async def test_a_replayed_signature_is_good_for_its_request_only_and_not_for_long(simulator: Any) -> None:
    captured = signed("acme", "/v1/usage", "GET")
    async with gateway_for(simulator.url, **BY_HEADER) as url, httpx.AsyncClient() as client:
        assert (await client.get(url + "/v1/usage", headers=captured)).status_code == 200
        assert (await client.get(url + "/v1/models", headers=captured)).status_code == 401
        assert (await client.post(url + CHAT, json=BODY, headers=captured)).status_code == 401
        other = {**captured, "x-tenant-id": "globex"}
        assert (await client.get(url + "/v1/usage", headers=other)).status_code == 401
        for path in ("//v1/usage", "/v1/./usage", "/v1/%75sage", "/v1/usage/"):
            target = {"target": path.encode()}  # as it stands, not as a client would make it plain
            answer = await client.get(url + "/v1/usage", headers=captured, extensions=target)
            assert answer.status_code in {401, 404}


class Issuer:
    """An OpenID provider that publishes its keys, as `answer` says."""

    def __init__(self) -> None:
        self.keys = [jwk(rsa_key("k1"), "k1")]
        self.asked: list[str] = []
        self.answer: Callable[[], Response] = lambda: JSONResponse({"keys": self.keys})
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/keys", self._published),
                Route("/loop", lambda _: RedirectResponse("/loop")),
            ]
        )

    async def _configuration(self, request: Request) -> Response:
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _published(self, request: Request) -> Response:
        self.asked.append(str(request.url))
        return self.answer()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    async with serving(made.app, http="h11", lifespan="off") as made.url:
        yield made


def by_token(issuer: Issuer) -> dict[str, str]:
    return {
        "GATEWAY_JWT_ISSUER": issuer.url,
        "GATEWAY_JWT_AUDIENCE": AUDIENCE,
        "GATEWAY_JWT_JWKS_URL": f"{issuer.url}/keys",
    }


def token_of(issuer: Issuer, **changes: Any) -> str:
    return token(iss=issuer.url, exp=int(time.time()) + 600, **changes)


async def test_an_sdk_with_a_token_in_place_of_its_key(simulator: Any, issuer: Issuer) -> None:
    async with gateway_for(simulator.url, **by_token(issuer)) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token_of(issuer), max_retries=0) as client:
            calls = (client.chat.completions.create(**BODY) for _ in range(20))  # type: ignore[call-overload]
            answers = await asyncio.gather(*calls)
        assert all(answer.choices for answer in answers)
        _, document = await usage_of(url, {"authorization": f"Bearer {token_of(issuer, tenant='globex')}"})
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token_of(issuer, aud="x"), max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
    assert document["tenant"] == "globex"
    assert len(issuer.asked) == 1


async def test_an_issuer_without_keys_is_a_503_that_says_when_to_come_back(simulator: Any, issuer: Issuer) -> None:
    bad: dict[str, Callable[[], Response]] = {
        "huge": lambda: Response(b" " * 2_000_000),
        "redirect": lambda: RedirectResponse("/loop"),
        "to metadata": lambda: RedirectResponse("http://169.254.169.254/latest/"),
        "error": lambda: Response(status_code=500),
        "garbage": lambda: Response(b"<html>"),
    }
    for answer in bad.values():
        issuer.answer = answer
        async with gateway_for(simulator.url, **by_token(issuer)) as url:
            headers = {"authorization": f"Bearer {token_of(issuer)}", "anthropic-version": "2023-06-01"}
            async with httpx.AsyncClient() as client:
                refused = await client.post(f"{url}/v1/messages", json=BODY, headers=headers)
            assert (refused.status_code, refused.json()["type"]) == (503, "error")
            assert refused.headers["retry-after"] == "1"
            status, _ = await usage_of(url, {"authorization": f"Bearer {KEY}"})
            assert status == 200


async def test_nothing_in_a_token_makes_the_gateway_fetch(simulator: Any, issuer: Issuer) -> None:
    decoy = Issuer()
    async with serving(decoy.app, http="h11", lifespan="off") as decoy.url:
        async with gateway_for(simulator.url, **by_token(issuer)) as url:
            for name in ("jku", "x5u", "kid"):
                head = {name: f"{decoy.url}/keys"}
                kid = None if name == "kid" else "k1"
                forged = token_of(issuer, key=rsa_key("other"), kid=kid, head=head)
                assert (await usage_of(url, {"authorization": f"Bearer {forged}"}))[0] == 401
    assert decoy.asked == []


async def test_a_host_says_who_calls_without_opening_the_gateway(simulator: Any) -> None:
    listed = environment(simulator.url)
    del listed["GATEWAY_TENANTS"]

    async def resolver(credential: Any, scope: Any) -> Tenant | None:
        await asyncio.sleep(0)
        return Tenant(name="by-the-host") if credential is not None and credential.secret == b"mine" else None

    gateway = ways.gateway(Settings.from_env(listed, has_resolver=True), resolver=resolver, write_log=LogLines())
    async with serving(GatewayApplication(gateway)) as url:
        assert (await usage_of(url, {"x-gateway-key": "mine"}))[1]["tenant"] == "by-the-host"
        assert [(await usage_of(url, headers))[0] for headers in ({}, {"x-api-key": "other"})] == [401, 401]


async def test_without_that_resolver_nobody_is_let_in(simulator: Any) -> None:
    listed = environment(simulator.url)
    del listed["GATEWAY_TENANTS"]
    with pytest.raises(Exception, match="no tenant"):
        ways.gateway(Settings.from_env(listed, has_resolver=True), write_log=LogLines())


async def test_a_named_key_keeps_its_limits_over_a_rotation(simulator: Any) -> None:
    keys = [{"digest": digest(b"new"), "name": "ci"}, {"digest": digest(b"old"), "name": "ci"}]
    tenants = json.dumps({"acme": {"keys": keys, "per_key": {"requests": "2/hour"}}})
    async with gateway_for(simulator.url, GATEWAY_TENANTS=tenants) as url, httpx.AsyncClient() as client:
        sent = [await client.post(url + CHAT, json=BODY, headers={"x-api-key": k}) for k in ("old", "new", "new")]
    assert [answer.status_code for answer in sent] == [200, 200, 429]
