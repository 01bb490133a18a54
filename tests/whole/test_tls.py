"""The gateway in front of a provider that speaks TLS with a certificate of its own authority."""

from __future__ import annotations

import ssl

import httpx
import pytest
import trustme

from gateway_middleware import Gateway, Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.simulator import Simulator
from gateway_middleware.upstream.engine import Engine
from running import KEY, LogLines, environment, serving

pytestmark = pytest.mark.anyio


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server, and for a client that trusts its authority."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def ask(upstream: str, engine: Engine) -> httpx.Response:
    gateway = Gateway(Settings.from_env(environment(upstream)), exchange=engine, write_log=LogLines())
    async with serving(GatewayApplication(gateway)) as url, httpx.AsyncClient(trust_env=False) as client:
        return await client.post(
            f"{url}/v1/chat/completions",
            json={"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "x"}]},
            headers={"authorization": f"Bearer {KEY}"},
        )


async def test_a_trusted_provider_is_reached() -> None:
    server, client = contexts()
    async with Simulator().serve(ssl_context=server) as simulator:
        answer = await ask(simulator.url, Engine(ssl_context=client))

    assert answer.status_code == 200


async def test_a_provider_of_unknown_authority_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = contexts()
    async with Simulator().serve(ssl_context=server) as simulator:
        answer = await ask(simulator.url, Engine())

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert "certificate" in answer.json()["error"]["message"]


async def test_a_certificate_for_another_name_is_refused() -> None:
    server, client = contexts()
    async with Simulator().serve(ssl_context=server) as simulator:
        answer = await ask(simulator.url.replace("127.0.0.1", "localhost"), Engine(ssl_context=client))

    assert answer.status_code == 502
