"""From the settings to the socket: a provider with its own authority behind a proxy; a gateway without descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

import ways
from asgi_driver import Transcript, drive
from gateway_middleware import Gateway, Settings
from rawserver import plain, raw_server, respond
from rig import CHAT, GOOD
from running import KEY, environment

pytestmark = pytest.mark.anyio


async def ask(gateway: Gateway, model: str) -> Transcript:
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
    return await drive(gateway, method="POST", path=CHAT, headers=headers, body=body)


@contextlib.asynccontextmanager
async def tunnels() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy that leads every CONNECT to this machine; yields its port and the heads that it got."""
    heads: list[bytes] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        port = int(head.split()[1].rsplit(b":", 1)[1])
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


@pytest.mark.own_engine("authorities and proxies are those of the transport")
async def test_a_provider_with_its_own_authority_behind_a_proxy(tmp_path: Path) -> None:
    authority, bundle = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("provider.test").configure_cert(context)
    answer = plain(GOOD, extra=b"content-type: application/json\r\n")
    async with raw_server(respond(answer), context=context, host="provider.test") as server, tunnels() as (port, heads):
        own = {
            "kind": "openai",
            "base_url": f"https://provider.test:{server.origin.port}/v1",
            "api_key": "sk-0123456789",
            "ca_file": str(bundle),
            "proxy": {"url": f"http://127.0.0.1:{port}", "credentials": "env:PROXY"},
        }
        variables = environment(
            "http://127.0.0.1:1", GATEWAY_PROVIDERS=json.dumps({"own": own}), PROXY="user:password-1"
        )
        gateway = ways.gateway(Settings.from_env(variables))
        async with gateway.lifespan():
            assert (await ask(gateway, "own/m")).status == 200
        assert heads[0].startswith(b"CONNECT provider.test:%d HTTP/1.1\r\n" % server.origin.port)
        assert b"proxy-authorization: Basic dXNlcjpwYXNzd29yZC0x" in heads[0]
        assert b"authorization: Bearer sk-0123456789" in server.requests[0].replace(b"Authorization", b"authorization")


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """As if every descriptor were in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        highest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.suppress(OSError):
            while True:
                held.enter_context(socket.socket())
        yield


async def test_a_gateway_without_descriptors_answers_503_and_blames_nobody() -> None:
    answer = plain(GOOD, extra=b"content-type: application/json\r\n")
    async with raw_server(respond(answer)) as server:
        gateway = ways.gateway(Settings.from_env(environment(server.url)))
        async with gateway.lifespan():
            with no_descriptors():
                for _ in range(8):
                    refused = await ask(gateway, "openai/m")
                    assert refused.status == 503
                    assert refused.json()["error"]["code"] == "gateway_overloaded"
                    assert refused.headers["retry-after"] == "1"
            assert (await ask(gateway, "openai/m")).status == 200
            health = (await drive(gateway, path="/v1/health")).json()
            assert health["circuit_breakers"]["openai"]["state"] == "closed"
