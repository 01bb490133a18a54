"""Recorded answers, played back and cut anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import anthropic
import openai
import pytest

from gateway_middleware.simulator import Replay, Server, Simulator
from simulated import ASK, exchange, request_bytes
from traffic import Exchange, wire_exchanges

pytestmark = pytest.mark.anyio
SSE = b'data: {"a": 1}\n\ndata: [DONE]\n\n'
EVENTS = (("content-type", "text/event-stream"),)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


def replay_of(recorded: Exchange, cut: Literal["whole", "bytes"] | tuple[int, ...] = "whole") -> Replay:
    kind = "text/event-stream" if recorded.sse is not None else "application/json"
    headers = tuple(recorded.response_headers.items()) or (("content-type", kind),)
    return Replay(status=recorded.status, headers=headers, body=recorded.wire, cut=cut)


GET = request_bytes("/any/path", b"", {"connection": "close"}, "GET")


@pytest.mark.parametrize("recorded", wire_exchanges(), ids=lambda e: e.id)
async def test_what_was_recorded_comes_back(server: Server, recorded: Exchange) -> None:
    server.simulator.replay(replay_of(recorded))

    wire = await exchange(server, GET, patience=1)

    assert (wire.status, wire.body) == (recorded.status, recorded.wire)


async def test_every_cut_gives_the_same_body(server: Server) -> None:
    cuts: list[Literal["bytes"] | tuple[int, ...]] = ["bytes", *((at,) for at in range(len(SSE) + 3)), (3, 9, 9, 20)]
    for cut in cuts:
        server.simulator.replay(Replay(headers=EVENTS, body=SSE, cut=cut))

        wire = await exchange(server, GET, patience=1)

        assert wire.body == SSE, cut
        assert wire.is_terminated


async def test_offsets_are_where_the_pieces_begin(server: Server) -> None:
    server.simulator.replay(Replay(headers=EVENTS, body=SSE, cut=(5, 16)), gap=0.01)

    wire = await exchange(server, GET, patience=1)

    assert wire.chunks == [SSE[:5], SSE[5:16], SSE[16:], b""]
    assert len(wire.pieces) >= 3


@pytest.mark.parametrize(("end", "seen"), [("cut", "eof"), ("reset", "reset"), ("stall", "open")])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_body_can_end_badly(
    server: Server,
    end: Literal["cut", "reset", "stall"],
    seen: str,
    framing: Literal["chunked", "length", "close"],
) -> None:
    server.simulator.replay(Replay(headers=EVENTS, body=SSE[:9], framing=framing, end=end))

    wire = await exchange(server, GET, patience=0.1)

    assert (wire.body, wire.end) == (SSE[:9], seen)
    assert not wire.is_terminated
    if framing == "length":
        assert int(wire.headers["content-length"]) > 9


async def test_a_replay_is_for_its_path_and_once(server: Server) -> None:
    server.simulator.replay(Replay(body=b"{}"), path="/v1/mess*")

    other = await exchange(server, GET, patience=1)
    first = await exchange(server, request_bytes("/v1/messages", b"", {"connection": "close"}), patience=1)
    second = await exchange(server, request_bytes("/v1/messages", b"", {"connection": "close"}), patience=1)

    assert (other.status, first.status, second.status) == (404, 200, 401)


def streams(provider: str, surface: str) -> list[Exchange]:
    return [e for e in wire_exchanges(provider, surface, stream=True) if e.status == 200]


@pytest.mark.parametrize("recorded", [*streams("openai", "chat"), *streams("azure", "chat")], ids=lambda e: e.id)
async def test_the_openai_sdk_reads_recorded_streams(server: Server, recorded: Exchange) -> None:
    server.simulator.replay(replay_of(recorded, cut="bytes"))
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)

        assert [chunk async for chunk in stream]


@pytest.mark.parametrize("recorded", streams("anthropic", "messages"), ids=lambda e: e.id)
async def test_the_anthropic_sdk_reads_recorded_streams(server: Server, recorded: Exchange) -> None:
    server.simulator.replay(replay_of(recorded, cut="bytes"))
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="k", max_retries=0) as client:
        stream = await client.messages.create(model="m", max_tokens=8, messages=ASK, stream=True)

        assert [event.type async for event in stream][-1] == "message_stop"
