"""Which connection a call gets, what becomes of it, and the server that closes an idle one."""

from __future__ import annotations

import asyncio
import gc
import socket

import httpx
import pytest

from gateway_middleware.core.errors import (
    StaleConnectionError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
)
from gateway_middleware.core.provider_api import Origin
from gateway_middleware.upstream.answer import EngineAnswer
from rawserver import (
    BOTH_LOOPS,
    TIMEOUTS,
    Peer,
    call,
    chunked,
    eventually,
    plain,
    raw_server,
    request_to,
    respond,
    running_engine,
)

pytestmark = [pytest.mark.anyio, BOTH_LOOPS]


async def test_the_server_closes_as_the_next_request_goes_out() -> None:
    stale = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(plain())
        await stale.wait()
        peer.fin()

    repeats = 0
    async with raw_server(script) as server, running_engine(stale_after=0.0) as engine:
        for number in range(200):
            assert await call(engine, request_to(server.origin)) == b"hello"
            stale.set()
            for _ in range(number % 4):  # the close arrives before, while and after the request goes out
                await asyncio.sleep(0)
            try:
                assert await call(engine, request_to(server.origin)) == b"hello"
            except StaleConnectionError:
                repeats += 1
                assert await call(engine, request_to(server.origin)) == b"hello"
            stale = asyncio.Event()
            for peer in server.peers:
                peer.fin()
            await eventually(lambda: engine.open_connections == 0)
            await asyncio.sleep(0)
        assert engine.opened <= 400
        assert repeats > 0


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
@pytest.mark.parametrize(
    ("stale_after", "works_for", "is_stale"), [(0.0, 0.0, True), (1.0, 0.0, False), (0.0, 0.15, False)]
)
async def test_staleness_explains_the_loss_of_an_idle_connection_at_once(
    *, reset: bool, stale_after: float, works_for: float, is_stale: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(plain())
        await peer.request()
        await asyncio.sleep(works_for)
        peer.reset() if reset else peer.fin()

    async with raw_server(script) as server, running_engine(stale_after=stale_after) as engine:
        assert await call(engine, request_to(server.origin)) == b"hello"
        with pytest.raises(UpstreamProtocolError) as raised:
            await call(engine, request_to(server.origin, b"two"))
        assert isinstance(raised.value, StaleConnectionError) is is_stale
        assert [len(peer.requests) for peer in server.peers] == [2], "the engine sends no request a second time"
        await eventually(lambda: engine.open_connections == 0)


async def leaves_at_the_second_request(peer: Peer) -> None:
    await peer.request()
    await asyncio.sleep(0.01)
    await peer.send(plain())
    await peer.request()
    peer.fin()


async def test_a_stale_connection_takes_those_with_it_that_were_idle_for_longer() -> None:
    async with raw_server(leaves_at_the_second_request) as server, running_engine(stale_after=0.0) as engine:
        await asyncio.gather(*(call(engine, request_to(server.origin)) for _ in range(5)))
        assert engine.idle_connections == 5
        with pytest.raises(StaleConnectionError):
            await call(engine, request_to(server.origin))
        await eventually(lambda: engine.open_connections == 0)
        assert await call(engine, request_to(server.origin)) == b"hello"


async def test_callers_of_the_httpx_interface_see_one_repeat() -> None:
    async with raw_server(leaves_at_the_second_request) as server, running_engine(stale_after=0.0) as engine:
        async with httpx.AsyncClient(transport=engine) as client:
            assert (await client.post(server.url)).text == "hello"
            assert (await client.post(server.url)).text == "hello"
        assert [len(peer.requests) for peer in server.peers] == [2, 1]


async def test_no_repeat_after_a_byte() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(plain())
        await peer.request()
        await peer.send(b"H")
        peer.fin()

    async with raw_server(script) as server, running_engine() as engine:
        await call(engine, request_to(server.origin))
        with pytest.raises(UpstreamProtocolError):
            await call(engine, request_to(server.origin))
        assert len(server.requests) == 2


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
async def test_no_repeat_on_a_fresh_connection(*, reset: bool) -> None:
    async with raw_server(respond(then="reset" if reset else "fin")) as server, running_engine() as engine:
        with pytest.raises(UpstreamProtocolError, match="without an answer"):
            await call(engine, request_to(server.origin))
        assert len(server.requests) == len(server.peers) == 1


async def test_closed_before_the_request_is_read() -> None:
    async def script(peer: Peer) -> None:
        peer.fin()

    async with raw_server(script) as server, running_engine() as engine:
        for _ in range(50):
            with pytest.raises(UpstreamError):
                await call(engine, request_to(server.origin))
        await eventually(lambda: engine.open_connections == 0)
        assert len(server.peers) == 50


async def test_refused_and_unknown_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with running_engine() as engine:
        for host in ("127.0.0.1", "a..b", "x" * 70):
            with pytest.raises(UpstreamConnectError):
                await call(engine, request_to(Origin(host=host, port=port, is_tls=False)))
        assert engine.open_connections == engine.opened == 0


async def test_the_last_used_is_the_next_used() -> None:
    async with raw_server(respond(plain())) as server, running_engine() as engine:
        answers = [await engine.open(request_to(server.origin), TIMEOUTS, first_byte=2.0) for _ in range(3)]
        for number in (0, 2, 1):
            await answers[number].read(100)
            answers[number].close()
        for _ in range(5):
            await call(engine, request_to(server.origin))
        assert [len(peer.requests) for peer in server.peers] == [1, 6, 1]
        assert (engine.opened, engine.reused, engine.idle_connections) == (3, 5, 3)


async def test_origins_do_not_share() -> None:
    async with raw_server(respond(plain(b"a"))) as one, raw_server(respond(plain(b"b"))) as two:
        async with running_engine() as engine:
            for _ in range(3):
                assert await call(engine, request_to(one.origin)) == b"a"
                assert await call(engine, request_to(two.origin)) == b"b"
            assert len(one.peers) == len(two.peers) == 1


async def test_idle_connections_expire() -> None:
    async with raw_server(respond(plain())) as server, running_engine(keep_alive=0.4) as engine:
        for wait in (0.02, 0.03):
            await asyncio.gather(*(call(engine, request_to(server.origin)) for _ in range(4)))
            assert engine.idle_connections == 4
            await asyncio.sleep(wait)
            await call(engine, request_to(server.origin))
            assert engine.reused > 0
            await eventually(lambda: engine.open_connections == 0)
        for peer in server.peers:
            await asyncio.wait_for(peer.closed.wait(), 10)


async def test_close_with_calls_in_flight() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(plain() if peer.number == 0 else b"")
        await peer.request()
        await peer.closed.wait()

    async with raw_server(script) as server, running_engine() as engine:
        await call(engine, request_to(server.origin))
        calls = [asyncio.ensure_future(call(engine, request_to(server.origin))) for _ in range(5)]
        await eventually(lambda: len(server.requests) == 6)
        calls.append(asyncio.ensure_future(call(engine, request_to(server.origin))))
        await asyncio.sleep(0)
        await engine.aclose()
        assert engine.open_connections == 0
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, UpstreamError) for outcome in outcomes)
        await eventually(lambda: all(peer.closed.is_set() for peer in server.peers))
        assert len(server.requests) == 6
        assert engine.open_connections == engine.idle_connections == 0
        with pytest.raises(UpstreamConnectError):
            await call(engine, request_to(server.origin))
        await engine.aclose()


def _answers_and_errors() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, EngineAnswer | UpstreamProtocolError)]


@pytest.mark.parametrize("response", [plain(), chunked(b"a"), b"nonsense"], ids=["length", "chunked", "broken"])
async def test_calls_leave_no_cycles(response: bytes) -> None:
    async with raw_server(respond(response)) as server, running_engine() as engine:
        request = request_to(server.origin)

        async def calls() -> None:
            for _ in range(200):
                try:
                    await call(engine, request)
                except UpstreamProtocolError:
                    pass

        await calls()
        await asyncio.sleep(0.01)
        gc.collect()
        known = set(map(id, _answers_and_errors()))
        gc.disable()
        try:
            await calls()
            await asyncio.sleep(0.01)
            alive = [one for one in _answers_and_errors() if id(one) not in known]
            assert len(alive) <= 2
        finally:
            gc.enable()
