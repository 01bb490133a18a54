"""`check --probe`: the way to a provider step by step, and what stands in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway_middleware.__main__ import main
from gateway_middleware.commands.probe import probe, probe_all
from gateway_middleware.composition.side_calls import SideCalls
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.providers.model_list import models_target
from gateway_middleware.settings import Settings
from gateway_middleware.simulator import Simulator
from provider_calls import provider_of
from redis_process import free_port
from running import serving

pytestmark = pytest.mark.anyio


def settings(**providers: dict[str, Any]) -> Settings:
    listed = {name: {"api_key": "sk-of-the-test", **members} for name, members in providers.items()}
    return Settings.from_env({"GATEWAY_PROVIDERS": json.dumps(listed), "GATEWAY_OPEN": "true"})


async def steps(read: Settings) -> list[tuple[str, str, bool]]:
    (provider,) = read.providers
    calls = SideCalls(read, None)
    async with calls.lifespan():
        return [(step.name, step.detail, step.is_good) async for step in probe(provider, calls.fetch)]


@pytest.mark.parametrize(
    ("kind", "base_url", "version", "path", "header"),
    [
        ("openai", "https://api.openai.com/v1", None, "/v1/models", b"authorization"),
        ("anthropic", "https://api.anthropic.com", None, "/v1/models", b"anthropic-version"),
        ("azure_openai", "https://r.openai.azure.com", None, "/openai/v1/models", b"api-key"),
        (
            "azure_openai", "https://r.openai.azure.com", "2024-10-21", "/openai/models?api-version=2024-10-21",
            b"api-key",
        ),
    ],
)  # fmt: skip
def test_the_free_call_of_each_kind(kind: str, base_url: str, version: str | None, path: str, header: bytes) -> None:
    target = models_target(provider_of(kind, base_url, api_version=version))
    assert target is not None
    assert (target.method, target.path) == ("GET", path)
    assert header in dict(target.headers)
    assert b"content-type" not in dict(target.headers)


@pytest.mark.parametrize("kind", ["openai", "anthropic", "azure_openai"])
async def test_a_provider_that_is_well(kind: str) -> None:
    async with Simulator().serve() as simulator:
        url = f"{simulator.url}/v1" if kind == "openai" else simulator.url
        found = await steps(settings(p={"kind": kind, "base_url": url}))
    assert [(name, is_good) for name, _, is_good in found] == [("dns", True), ("tcp", True), ("api", True)]
    assert found[-1][1].startswith("status 200, GET /")


async def test_a_key_that_is_refused_and_an_address_that_is_wrong() -> None:
    async with Simulator(keys=["sk-another"]).serve() as simulator:
        (*_, last) = await steps(settings(p={"kind": "openai", "base_url": f"{simulator.url}/v1"}))
        assert last == ("api", "status 401, GET /v1/models: the provider refuses the gateway's credential", False)
        (*_, last) = await steps(settings(p={"kind": "openai", "base_url": f"{simulator.url}/v2"}))
        assert last == ("api", "status 404, GET /v2/models: the address may be wrong, see base_url", False)


async def test_nobody_listens_and_no_such_name() -> None:
    refused = await steps(settings(p={"kind": "openai", "base_url": f"http://127.0.0.1:{free_port()}/v1"}))
    assert [row[0] for row in refused] == ["dns", "tcp"]
    assert refused[-1][1:] == ("Connection refused", False)
    (row,) = await steps(settings(p={"kind": "openai", "base_url": "https://no-such-host.invalid/v1"}))
    assert (row[0], row[2]) == ("dns", False)


class Entra:
    """An identity service that gives tokens to one client secret."""

    def __init__(self) -> None:
        self.asked = 0

    async def give(self, request: Request) -> JSONResponse:
        self.asked += 1
        form = parse_qs((await request.body()).decode())
        if form["client_secret"] != ["secret-canary"]:
            return JSONResponse({"error": "invalid_client", "error_description": form["client_secret"][0]}, 401)
        return JSONResponse({"access_token": "token-canary", "expires_in": 3600})


@pytest.mark.parametrize(
    ("secret", "accepted", "token", "api"),
    [
        (
            "secret-canary", "token-canary", (True, "Entra ID by client secret"),
            (True, "status 200, GET /openai/v1/models"),
        ),
        (
            "secret-canary", "another", (True, "Entra ID by client secret"),
            (False, "status 401, GET /openai/v1/models: the provider refuses the gateway's credential"),
        ),
        ("wrong-canary", "-", (False, "the identity service gives no token: HTTP 401, invalid_client"), None),
    ],
)  # fmt: skip
async def test_a_provider_without_a_key_gets_a_token_of_entra_id(
    secret: str, accepted: str, token: tuple[bool, str], api: tuple[bool, str] | None
) -> None:
    entra = Entra()
    identity = Starlette(routes=[Route("/t-1/oauth2/v2.0/token", entra.give, methods=["POST"])])
    async with serving(identity, lifespan="off") as authority, Simulator(keys=[accepted]).serve() as simulator:
        own = {"tenant_id": "t-1", "client_id": "c-1", "client_secret": "env:S", "authority": authority}
        listed = {"azure": {"kind": "azure_openai", "base_url": simulator.url, "entra": own}}
        read = Settings.from_env({"GATEWAY_PROVIDERS": json.dumps(listed), "GATEWAY_OPEN": "true", "S": secret})
        found = await steps(read)
    expected = [("dns", True), ("tcp", True), ("token", token[0])] + ([("api", api[0])] if api else [])
    assert [(name, is_good) for name, _, is_good in found] == expected
    assert [detail for _, detail, _ in found[2:]] == [row[1] for row in (token, api) if row]
    assert "canary" not in json.dumps(found)
    assert entra.asked == 1


@contextlib.asynccontextmanager
async def over_tls(folder: Path) -> AsyncIterator[tuple[str, str]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with Simulator().serve(ssl_context=context) as simulator:
        yield f"{simulator.url}/v1", str(file)


async def test_tls_says_version_and_end_of_the_certificate(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as (url, file):
        trusted = await steps(settings(p={"kind": "openai", "base_url": url, "ca_file": file}))
        assert [row[0] for row in trusted] == ["dns", "tcp", "tls", "api"]
        assert trusted[2][1].startswith("TLSv1.3, certificate until ")
        unknown = await steps(settings(p={"kind": "openai", "base_url": url}))
        assert unknown[-1][0] == "tls"
        assert "certificate is not accepted" in unknown[-1][1]


async def test_the_way_through_a_proxy_is_a_step() -> None:
    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 no\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = await steps(
            settings(p={"kind": "openai", "base_url": "https://api.test/v1", "proxy": f"http://127.0.0.1:{port}"})
        )
    assert [row[0] for row in found] == ["dns", "tcp", "proxy"]
    assert "407" in found[-1][1]


async def test_all_are_probed_or_one(capsys: pytest.CaptureFixture[str]) -> None:
    async with Simulator().serve() as simulator:
        members = {"kind": "openai", "base_url": f"{simulator.url}/v1"}
        read = settings(a=members, b=members)
        assert await probe_all(read, "")
        assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"a", "b"}
        assert await probe_all(read, "b")
        lines = capsys.readouterr().out.splitlines()
        assert {line.split()[0] for line in lines} == {"b"}
        assert " ms  " in lines[0]
        with pytest.raises(SettingsError, match="expected one of a, b"):
            await probe_all(read, "c")


def test_the_command_ends_with_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    monkeypatch.setenv("GATEWAY_OPEN", "true")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    assert main(["check", "--probe"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "sk-of-the-test" not in out
