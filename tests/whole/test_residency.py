"""Calls of a tenant that requires labels, over sockets: what happens to others never reaches a provider elsewhere."""

from __future__ import annotations

import hashlib
import json

import pytest

import ways
from asgi_driver import Transcript, drive
from gateway_middleware import Gateway, Settings
from rawserver import RawServer, plain, raw_server, respond
from rig import CHAT, GOOD

pytestmark = pytest.mark.anyio

KEYS = {"european": "key-of-european-1", "anywhere": "key-of-anywhere-1"}


def settings(eu: RawServer, us: RawServer, *, hedge: float | None = None) -> Settings:
    def provider(server: RawServer, region: str) -> dict[str, object]:
        return {"kind": "openai", "api_key": "sk-0123456789", "base_url": server.url, "labels": {"region": region}}

    def tenant(name: str, **others: object) -> dict[str, object]:
        return {"keys": [f"sha256:{hashlib.sha256(KEYS[name].encode()).hexdigest()}"], **others}

    route: dict[str, object] = {"to": ["eu/m", "us/m"]} | ({} if hedge is None else {"hedge": hedge})
    return Settings.from_env(
        {
            "GATEWAY_PROVIDERS": json.dumps({"eu": provider(eu, "eu"), "us": provider(us, "us")}),
            "GATEWAY_ROUTES": json.dumps({"fast": route, "american": ["us/m"]}),
            "GATEWAY_TENANTS": json.dumps(
                {
                    "european": tenant("european", require={"region": "eu"}),
                    "anywhere": tenant("anywhere"),
                }
            ),
            "GATEWAY_JOURNAL": "off",
        }
    )


async def ask(gateway: Gateway, tenant: str, model: str = "fast") -> Transcript:
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEYS[tenant]}".encode())]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
    return await drive(gateway, method="POST", path=CHAT, headers=headers, body=body)


async def test_failover_stays_where_the_tenant_must_stay() -> None:
    async with raw_server(respond(plain(b"{}", status=b"503 Busy"))) as eu, raw_server(respond(plain(GOOD))) as us:
        gateway = ways.gateway(settings(eu, us))
        async with gateway.lifespan():
            assert (await ask(gateway, "european")).status == 503
            assert us.requests == []
            assert (await ask(gateway, "anywhere")).status == 200
            assert len(us.requests) == 1


async def test_what_is_only_elsewhere_is_refused_by_name() -> None:
    async with raw_server(respond(plain(GOOD))) as eu, raw_server(respond(plain(GOOD))) as us:
        gateway = ways.gateway(settings(eu, us))
        async with gateway.lifespan():
            answer = await ask(gateway, "european", "american")
            error = json.loads(answer.body)["error"]
            assert (answer.status, error["code"]) == (403, "residency")
            assert "region=eu" in error["message"]
            assert us.requests == []


async def test_a_hedged_call_has_no_second_way() -> None:
    slow = respond(b"", plain(GOOD))
    async with raw_server(slow) as eu, raw_server(respond(plain(GOOD))) as us:
        gateway = ways.gateway(settings(eu, us, hedge=0.001))
        async with gateway.lifespan():
            for _ in range(5):
                assert (await ask(gateway, "european")).status == 200
            assert us.requests == []
