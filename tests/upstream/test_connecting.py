"""How connections are opened: several addresses, authorities of one's own, and what the gateway itself lacks."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import trustme

from gateway_middleware.breaker.failure.classes import FailureClass, classify
from gateway_middleware.core.errors import GatewayShortageError, UpstreamConnectError
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.client_types import httpx
from gateway_middleware.upstream.connecting import ATTEMPT_DELAY, Connector, addresses_of, shortage_behind
from gateway_middleware.upstream.httpx_mapping import from_httpx_error
from rawserver import BOTH_LOOPS, call, plain, raw_server, request_to, respond, running_engine

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]

AUTHORITY = trustme.CA()


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


class Silent(asyncio.BufferedProtocol):
    """A client that says nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@contextmanager
def dead_port() -> Iterator[int]:
    """A port that answers no connection: its queue is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def addresses(*ports: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in ports]


async def test_a_dead_first_address_is_passed_over() -> None:
    loop = asyncio.get_running_loop()
    async with raw_server(respond(plain())) as server:
        with dead_port() as dead:

            async def resolve(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
                assert (host, port) == ("two.test", 443)
                return addresses(dead, server.origin.port)

            began = loop.time()
            connection = await Connector(resolve=resolve).connect(
                Origin(host="two.test", port=443, is_tls=False), Silent
            )
            assert ATTEMPT_DELAY * 0.9 < loop.time() - began < 2.0
            assert connection.transport.get_extra_info("peername")[1] == server.origin.port
            connection.transport.close()
            await asyncio.sleep(0)


async def test_an_address_that_refuses_costs_no_time() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with raw_server(respond(plain())) as server:

            async def resolve(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
                return addresses(closed.getsockname()[1], server.origin.port)

            began = loop.time()
            connection = await Connector(resolve=resolve).connect(Origin(host="h", port=1, is_tls=False), Silent)
            assert loop.time() - began < ATTEMPT_DELAY
            connection.transport.close()
            await asyncio.sleep(0)


async def test_an_address_is_asked_of_nobody() -> None:
    assert [a[4] for a in await addresses_of("127.0.0.1", 5)] == [("127.0.0.1", 5)]
    assert [(a[0], a[4]) for a in await addresses_of("::1", 5)] == [(socket.AF_INET6, ("::1", 5))]


async def test_an_authority_of_ones_own_is_added(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(bundle)
    async with raw_server(respond(plain()), context=server_context(), host="localhost") as server:
        async with running_engine() as engine:
            own = msgspec.structs.replace(server.origin, ca_file=str(bundle))
            assert await call(engine, request_to(own)) == b"hello"
            with pytest.raises(UpstreamConnectError, match="certificate is not accepted"):
                await call(engine, request_to(server.origin))


async def test_an_authority_of_ones_own_does_not_vouch_for_others(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(bundle)
    async with raw_server(respond(plain()), context=server_context(), host="localhost") as server:
        async with running_engine() as engine:
            with pytest.raises(UpstreamConnectError, match="certificate is not accepted"):
                await call(engine, request_to(msgspec.structs.replace(server.origin, ca_file=str(bundle))))


# What the gateway itself lacks.


@contextmanager
def no_descriptors() -> Iterator[None]:
    """As if every descriptor were in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        highest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    held = []
    try:
        while True:
            try:
                held.append(socket.socket())
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in held:
            one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_no_descriptor_is_the_gateways_trouble(host: str) -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        origin = Origin(host=host, port=server.origin.port, is_tls=False)
        with no_descriptors(), pytest.raises(GatewayShortageError) as caught:
            await call(engine, request_to(origin))
        assert caught.value.http_status == 503
        assert caught.value.retry_after
        assert classify(caught.value) is FailureClass.GATEWAY_FAULT
        assert await call(engine, request_to(server.origin)) == b"hello"


async def test_a_name_that_is_not_there_is_not_the_gateways_trouble() -> None:
    async with running_engine() as engine:
        with pytest.raises(UpstreamConnectError) as caught:
            await call(engine, request_to(Origin(host="no-such-host.invalid", port=1, is_tls=False)))
        assert not isinstance(caught.value, GatewayShortageError)
        assert classify(caught.value) is FailureClass.DNS


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "x"),
        OSError(errno.ENFILE, "x"),
        OSError(errno.ENOBUFS, "x"),
        OSError(errno.ENOMEM, "x"),
        OSError(errno.EADDRNOTAVAIL, "x"),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
async def test_what_the_gateway_may_lack(error: Exception) -> None:
    async def resolve(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        raise error

    with pytest.raises(GatewayShortageError):
        await Connector(resolve=resolve).connect(Origin(host="h", port=1, is_tls=False), Silent)
    assert shortage_behind(error) is error


@pytest.mark.parametrize("error", [OSError(errno.ECONNREFUSED, "x"), RuntimeError("other"), UnicodeError()], ids=repr)
async def test_what_it_does_not_lack(error: Exception) -> None:
    assert shortage_behind(error) is None


async def test_a_transport_of_the_hosts_may_lack_the_same() -> None:
    wrapped = httpx.ConnectError("All connection attempts failed")
    wrapped.__cause__ = OSError("several")
    wrapped.__cause__.__context__ = OSError(errno.EMFILE, "Too many open files")

    assert isinstance(from_httpx_error(wrapped, phase="connect"), GatewayShortageError)
    assert not isinstance(from_httpx_error(httpx.ConnectError("refused"), phase="connect"), GatewayShortageError)
