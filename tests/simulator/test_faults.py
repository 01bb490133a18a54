"""Each fault as a bare socket sees it, in all three wire formats where they differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway_middleware.simulator import Behaviour, Server, Simulator
from simulated import CREDENTIALS, PATHS, call, chat_body, exchange, request_bytes

pytestmark = pytest.mark.anyio
PROVIDERS = list(PATHS)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Simulator().serve() as found:
        yield found


def content(events: list[object]) -> int:
    """How many content chunks there are, in any format."""
    texts = (str(event) for event in events)
    return sum(("'delta': {'content': '" in t and "'role'" not in t) or "'text_delta'" in t for t in texts)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_reset_comes_before_the_head(server: Server, provider: str, *, is_stream: bool) -> None:
    wire = await call(server, "sim-reset", provider=provider, stream=is_stream)

    assert (wire.raw, wire.end) == (b"", "reset")


async def test_close_is_an_end_without_a_byte(server: Server) -> None:
    wire = await call(server, "sim-close")

    assert (wire.raw, wire.end) == (b"", "eof")


async def test_stall_is_silence_on_an_open_connection(server: Server) -> None:
    wire = await call(server, "sim-stall", patience=0.1)

    assert (wire.raw, wire.end) == (b"", "open")


async def test_stall_head_is_silence_after_the_head(server: Server) -> None:
    wire = await call(server, "sim-stall_head", patience=0.1)

    assert (wire.status, wire.framed, wire.end) == (200, b"", "open")
    assert wire.raw.endswith(b"\r\n\r\n")


async def test_cut_head_is_half_a_head(server: Server) -> None:
    wire = await call(server, "sim-cut_head")

    assert wire.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in wire.raw
    assert wire.end == "eof"


async def test_garbage_is_not_http(server: Server) -> None:
    wire = await call(server, "sim-garbage")

    assert wire.raw
    assert not wire.raw.startswith(b"HTTP/")
    assert wire.end == "eof"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("n", [0, 1, 4])
async def test_a_truncated_stream_has_no_end(server: Server, provider: str, n: int) -> None:
    wire = await call(server, f"sim-truncate-{n}", provider=provider, stream=True)

    assert wire.end == "eof"
    assert not wire.is_terminated
    assert content(wire.events) == n


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("n", [0, 1, 4])
async def test_a_stream_without_terminator_ends_cleanly(server: Server, provider: str, n: int) -> None:
    wire = await call(server, f"sim-eof-{n}", provider=provider, stream=True)

    assert wire.is_terminated
    assert content(wire.events) == n
    assert b"[DONE]" not in wire.raw
    assert b"message_stop" not in wire.raw


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_reset_in_a_stream_comes_after_its_chunks(server: Server, provider: str) -> None:
    wire = await call(server, "sim-reset-3", provider=provider, stream=True)

    assert wire.end == "reset"
    assert content(wire.events) == 3


async def test_a_stream_that_stalls(server: Server) -> None:
    wire = await call(server, "sim-stall-2", stream=True, patience=0.1)

    assert wire.end == "open"
    assert content(wire.events) == 2


@pytest.mark.parametrize(("knob", "before"), [("error-0", 1), ("error-first", 0)])
async def test_an_error_can_be_the_first_event_or_follow_the_lifecycle(server: Server, knob: str, before: int) -> None:
    wire = await call(server, f"sim-{knob}", provider="anthropic", stream=True)

    assert [event["type"] for event in wire.events] == ["message_start"] * before + ["error"]
    assert wire.is_terminated


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_error_event_ends_the_stream(server: Server, provider: str) -> None:
    wire = await call(server, "sim-error-2", provider=provider, stream=True)

    assert content(wire.events) == 2
    assert "error" in wire.events[-1]
    assert wire.is_terminated


async def test_a_cut_beyond_the_end_comes_before_the_terminator(server: Server) -> None:
    wire = await call(server, "sim-length-2+eof-50", stream=True)

    assert content(wire.events) == 2
    assert b"[DONE]" not in wire.raw


@pytest.mark.parametrize("knob", ["reset-1", "truncate-1", "stall-1"])
async def test_a_whole_answer_is_cut_in_half(server: Server, knob: str) -> None:
    wire = await call(server, f"sim-{knob}", patience=0.1)

    assert 0 < len(wire.framed) < int(wire.headers["content-length"])
    assert wire.end == {"reset-1": "reset", "truncate-1": "eof", "stall-1": "open"}[knob]


@pytest.mark.parametrize("knob", ["eof-1", "malformed"])
async def test_a_whole_answer_can_be_half_of_its_json(server: Server, knob: str) -> None:
    wire = await call(server, f"sim-{knob}")

    assert len(wire.framed) == int(wire.headers["content-length"])
    with pytest.raises(ValueError, match="line"):
        _ = wire.json


async def test_an_error_after_is_an_error_body_with_200_where_nothing_is_streamed(server: Server) -> None:
    wire = await call(server, "sim-error-3")

    assert wire.status == 200
    assert wire.json["error"]["type"] == "server_error"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_one_event_is_malformed_and_the_stream_goes_on(server: Server, provider: str) -> None:
    wire = await call(server, "sim-malformed+length-3", provider=provider, stream=True)

    assert sum(isinstance(event, str) and event != "[DONE]" for event in wire.events) == 1
    assert content(wire.events) == 3
    assert wire.is_terminated


@pytest.mark.parametrize("is_stream", [False, True])
async def test_html_is_no_answer(server: Server, *, is_stream: bool) -> None:
    wire = await call(server, "sim-html", stream=is_stream)

    assert (wire.status, wire.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert wire.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_empty_is_a_head_and_nothing(server: Server, *, is_stream: bool) -> None:
    wire = await call(server, "sim-empty", stream=is_stream)

    assert (wire.status, wire.body, wire.end) == (200, b"", "eof")
    assert ("event-stream" in wire.headers["content-type"]) is is_stream


async def test_drip_says_the_same_in_many_pieces(server: Server) -> None:
    whole = await call(server, "gpt", stream=True)
    server.simulator.behave(Behaviour(fault="drip"))
    dripped = await call(server, "gpt", stream=True)

    assert [len(chunk) for chunk in dripped.chunks] == [len(chunk) for chunk in whole.chunks]
    assert len(dripped.pieces) > 50


async def test_chunk_split_cuts_across_events(server: Server) -> None:
    wire = await call(server, "sim-split-7-1-30", stream=True)

    assert [len(chunk) for chunk in wire.chunks[:6]] == [7, 1, 30, 7, 1, 30]
    assert wire.events[-1] == "[DONE]"


@pytest.mark.parametrize(("knob", "missing"), [("delta-9", 9)])
async def test_a_content_length_can_promise_too_much(server: Server, knob: str, missing: int) -> None:
    wire = await call(server, f"sim-{knob}")

    assert int(wire.headers["content-length"]) - len(wire.framed) == missing
    assert wire.end == "eof"


async def test_a_content_length_can_promise_too_little(server: Server) -> None:
    server.simulator.behave(Behaviour(content_length_delta=-5))

    wire = await call(server, "gpt", stream=True)

    assert len(wire.framed) - int(wire.headers["content-length"]) == 5


@pytest.mark.parametrize(
    ("framing", "header"), [("chunked", "transfer-encoding"), ("length", "content-length"), ("close", "connection")]
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_framing(server: Server, framing: str, header: str, *, is_stream: bool) -> None:
    wire = await call(server, f"sim-framing-{framing}", stream=is_stream)

    assert header in wire.headers
    assert wire.events[-1] == "[DONE]" if is_stream else wire.json["choices"]
    assert wire.end == "eof"


async def test_surplus_is_a_second_answer(server: Server) -> None:
    wire = await call(server, "sim-surplus")

    assert wire.raw.count(b"HTTP/1.1 200 OK\r\n") == 2


async def test_early_hints_come_first(server: Server) -> None:
    wire = await call(server, "sim-informational")

    first, _, rest = wire.raw.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 103 ")
    assert rest.startswith(b"HTTP/1.1 200 ")


def kept(model: str) -> bytes:
    return request_bytes(PATHS["openai"], chat_body(model), CREDENTIALS["openai"])


async def test_close_after_closes_a_connection_that_was_to_be_kept(server: Server) -> None:
    wire = await exchange(server, kept("sim-close_after"), patience=1)

    assert wire.json["choices"]
    assert wire.end == "eof"
    assert "connection" not in wire.headers


async def test_a_stale_connection_is_closed_under_its_next_request(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(kept("sim-stale"))
    first = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(first.rpartition(b"content-length: ")[2]))
    writer.write(kept("gpt"))

    async with asyncio.timeout(10):
        assert await reader.read() == b""
    assert len(server.simulator.requests) == 1
    writer.close()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_pings_come_before_content(server: Server, provider: str) -> None:
    wire = await call(server, "sim-pings-3", provider=provider, stream=True)

    ping = b"event: ping" if provider == "anthropic" else b": ping\n"
    # Anthropic sends one of its own.
    assert wire.body.count(ping) == 3 + (provider == "anthropic")


async def test_times_are_kept(server: Server) -> None:
    began = asyncio.get_running_loop().time()
    wire = await call(server, "sim-slow-60+lag-30+gap-20+length-3", stream=True)

    waits = [time - began + 0.005 for time in wire.times]  # a timer may be a little early
    assert waits[0] >= 0.06
    assert waits[-1] >= 0.06 + 0.08


async def test_chunks_have_the_size_that_is_asked_for(server: Server) -> None:
    wire = await call(server, "sim-length-4+size-11", stream=True)

    texts = [c["delta"].get("content") for e in wire.events if isinstance(e, dict) for c in e["choices"]]
    assert [len(text) for text in texts if text] == [11] * 4


async def test_fail_rate_strikes_a_share_of_the_calls_and_is_repeatable() -> None:
    async def statuses(seed: int) -> list[int]:
        async with Simulator(seed=seed).serve() as server:
            return [(await call(server, "sim-fail-40+503")).status for _ in range(60)]

    first = await statuses(1)
    assert first == await statuses(1)
    assert first != await statuses(2)
    assert set(first) == {200, 503}
    assert 12 <= first.count(503) <= 36


async def test_fail_rate_alone_is_500(server: Server) -> None:
    server.simulator.behave(Behaviour(fail_rate=0.99))

    assert 500 in {(await call(server, "gpt")).status for _ in range(3)}
