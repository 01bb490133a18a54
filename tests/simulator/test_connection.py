"""HTTP on one connection: keep-alive, pipelining, backpressure, TLS, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_middleware.simulator import Behaviour, Server, Simulator
from simulated import CREDENTIALS, PATHS, call, chat_body, exchange, request_bytes

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


def request(model: str, **headers: str) -> bytes:
    return request_bytes(PATHS["openai"], chat_body(model), {**CREDENTIALS["openai"], **headers})


async def test_a_connection_is_kept(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=CREDENTIALS["openai"]) as http:
        for _ in range(3):
            assert (await http.post(PATHS["openai"], json=chat_body("gpt"))).status_code == 200

    assert {entry.connection for entry in server.simulator.requests} == {1}


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    pipelined = request("sim-slow-30") + request("sim-length-1") + request("sim-status-404", connection="close")

    wire = await exchange(server, pipelined, patience=1)

    _, first, second, third = wire.raw.split(b"HTTP/1.1 ")
    assert b"sim-slow-30" in first
    assert b"sim-length-1" in second
    assert third.startswith(b"404 ")
    assert wire.end == "eof"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(cuts=st.lists(st.integers(1, 400), max_size=6))
def test_a_request_may_come_in_any_pieces(cuts: list[int]) -> None:
    asyncio.run(_send_in_pieces(sorted(cuts)))


async def _send_in_pieces(cuts: list[int]) -> None:
    content = request("gpt", connection="close")
    async with Simulator().serve() as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            writer.write(content[start:end])
            await asyncio.sleep(0)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert server.simulator.requests[-1].body == content.partition(b"\r\n\r\n")[2]


async def test_100_continue(server: Server) -> None:
    wire = await exchange(server, request("gpt", expect="100-continue", connection="close"), patience=1)

    assert wire.raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_chunked_requests_are_read(server: Server) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\n"
    body = b'transfer-encoding: chunked\r\n\r\n9\r\n{"model":\r\n12\r\n"m","input":"one"}\r\n0\r\n\r\n'

    assert (await exchange(server, head + body, patience=1)).status == 200


async def test_what_is_not_http_is_400_and_closed(server: Server) -> None:
    wire = await exchange(server, b"\x16\x03\x01 hello\r\n\r\n", patience=1)

    assert (wire.status, wire.end) == (400, "eof")


async def test_idle_connections_are_closed_when_asked() -> None:
    async with Simulator(keep_alive=0.05).serve() as server:
        wire = await exchange(server, request("gpt"), patience=1)

    assert (wire.status, wire.end) == (200, "eof")


async def test_an_endless_stream_waits_for_its_reader(server: Server) -> None:
    server.simulator.behave(Behaviour(length=10**9, chunk_size=10_000))
    body = chat_body("gpt", stream=True, max_tokens=10**9)
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 16)
    writer.write(request_bytes(PATHS["openai"], body, CREDENTIALS["openai"]))
    for _ in range(20):
        assert len(await reader.readexactly(1 << 20)) == 1 << 20

    # The loop still turns: another call is served while this one is not read.
    assert (await call(server, "sim-length-1")).status == 200
    writer.transport.abort()


async def test_the_end_of_serve_cuts_open_connections_and_frees_the_port() -> None:
    async with Simulator().serve() as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request("sim-stall"))
        async with asyncio.timeout(10):
            while not server.simulator.counters.in_flight:
                await asyncio.sleep(0.001)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    assert server.simulator.counters.open_connections == server.simulator.counters.in_flight == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.host, server.port)
    async with Simulator().serve(port=server.port) as again:
        assert again.port == server.port


async def test_no_task_or_timer_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with Simulator().serve() as server:
        for model in ("gpt", "sim-truncate-1", "sim-reset", "sim-slow-10", "sim-drip+length-1"):
            await call(server, model, stream=True)

    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("model", ["gpt", "sim-truncate-2", "sim-reset-2"])
async def test_tls(model: str) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    async with Simulator().serve(ssl_context=context) as server:
        assert server.url.startswith("https://")
        async with httpx.AsyncClient(verify=trusted, trust_env=False, headers=CREDENTIALS["openai"]) as http:
            try:
                answer = await http.post(server.url + PATHS["openai"], json=chat_body(model, stream=True))
                outcome = str(answer.status_code)
            except httpx.TransportError as error:
                outcome = type(error).__name__

    assert outcome == {"gpt": "200", "sim-truncate-2": "RemoteProtocolError", "sim-reset-2": "ReadError"}[model]


async def test_one_simulator_can_listen_twice() -> None:
    simulator = Simulator()
    async with simulator.serve() as first, simulator.serve() as second:
        await call(first, "one")
        await call(second, "two")

    assert [entry.model for entry in simulator.requests] == ["one", "two"]


async def test_ipv6_addresses_are_written_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    try:
        async with Simulator().serve(host="::1") as server:
            assert server.url == f"http://[::1]:{server.port}"
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
