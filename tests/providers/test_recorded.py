"""Recorded answers of the real services, read whole, in single bytes, and cut at every event."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway_middleware.core.domain import Surface, Usage
from gateway_middleware.core.errors import ProviderAuthError, UpstreamStatusError
from gateway_middleware.core.provider_api import ResponseReader
from gateway_middleware.providers.failures import error_from
from provider_calls import PROVIDERS, deployment, model_request, pieces, reader_of, relay
from traffic import WHY_SKIPPED, WIRE, Exchange, exchanges, has_shared_traffic, wire_exchanges

SURFACES = {
    "chat": Surface.CHAT,
    "responses": Surface.RESPONSES,
    "embeddings": Surface.EMBEDDINGS,
    "messages": Surface.MESSAGES,
    "count_tokens": Surface.COUNT_TOKENS,
}
EVENT = re.compile(rb".*?\n\n", re.DOTALL)
ENDS = {
    "chat": re.compile(rb"^data: ?\[DONE\]", re.MULTILINE),
    "messages": re.compile(rb"^event: ?message_stop", re.MULTILINE),
    "responses": re.compile(rb"^event: ?response\.(completed|incomplete|failed)", re.MULTILINE),
}

Collection = list[Exchange]


@pytest.fixture(scope="module", params=["wire", "shared"])
def recorded(request: pytest.FixtureRequest) -> Collection:
    if request.param == "wire":
        return list(wire_exchanges())
    if not has_shared_traffic():
        pytest.skip(WHY_SKIPPED)
    return list(exchanges())


def test_the_selection_is_licensed_small_and_covers_every_wire_format() -> None:
    found = wire_exchanges()

    assert {e.licence for e in found} <= {"MIT", "Apache-2.0"}
    assert all(e.source_repo for e in found)
    assert sum(file.stat().st_size for file in WIRE.glob("*.jsonl")) < 300_000
    assert {(e.provider, e.surface, e.stream) for e in found} >= {
        *((p, s, stream) for p in ("openai", "azure") for s in ("chat", "responses") for stream in (True, False)),
        *((p, "embeddings", False) for p in ("openai", "azure")),
        *(("anthropic", "messages", stream) for stream in (True, False)),
        ("anthropic", "count_tokens", False),
        *((p, "error", False) for p in ("openai", "azure")),
    }


def answers(recorded: Collection, *, stream: bool) -> Collection:
    found = [e for e in recorded if e.surface in SURFACES and (e.sse is not None) is stream]
    assert len(found) >= 10
    return found


def reader_for(exchange: Exchange, *, wants_usage: bool = True) -> ResponseReader:
    return reader_of(
        SURFACES[exchange.surface],
        is_event_stream=exchange.sse is not None,
        wants_usage=wants_usage,
        provider=PROVIDERS[exchange.provider],
    )


def objects(sse: bytes) -> list[dict[str, Any]]:
    """The data of every event, by the plainest reading of these LF-framed recordings."""
    lines = [line[5:].strip() for line in sse.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line and line != b"[DONE]"]


def stated(exchange: Exchange) -> list[dict[str, Any]]:
    """Every usage object of the answer, in the order of the wire."""
    if exchange.sse is None:
        holders = [exchange.body]
    else:
        said = objects(exchange.wire)
        holders = [holder for o in said for holder in (o.get("response"), o.get("message"), o)]
    return [h["usage"] for h in holders if isinstance(h, dict) and isinstance(h.get("usage"), dict)]


def expected_usage(exchange: Exchange) -> Usage | None:
    """The provider's own numbers, normalised by hand."""
    found = stated(exchange)
    if not found:
        return None
    if exchange.provider != "anthropic":
        last = found[-1]
        spent = last.get("prompt_tokens_details") or last.get("input_tokens_details") or {}
        made = last.get("completion_tokens_details") or last.get("output_tokens_details") or {}
        return Usage(
            input_tokens=last.get("prompt_tokens", last.get("input_tokens")),
            output_tokens=last.get("completion_tokens", last.get("output_tokens")),
            cached_input_tokens=spent.get("cached_tokens"),
            cache_write_tokens=spent.get("cache_write_tokens"),
            reasoning_tokens=made.get("reasoning_tokens"),
        )
    merged = {name: value for usage in found for name, value in usage.items() if value is not None}
    runs = merged.get("iterations") or [merged]
    return Usage(
        input_tokens=sum(
            run["input_tokens"] + run.get("cache_read_input_tokens", 0) + run.get("cache_creation_input_tokens", 0)
            for run in runs
        ),
        output_tokens=sum(run["output_tokens"] for run in runs),
        cached_input_tokens=merged.get("cache_read_input_tokens"),
        cache_write_tokens=merged.get("cache_creation_input_tokens"),
        cache_write_1h_tokens=(merged.get("cache_creation") or {}).get("ephemeral_1h_input_tokens"),
        reasoning_tokens=merged.get("output_tokens_details", {}).get("thinking_tokens"),
    )


def test_answers_are_relayed_whole_with_the_providers_own_numbers(recorded: Collection) -> None:
    for exchange in answers(recorded, stream=False):
        reader = reader_for(exchange)

        assert relay(reader, [exchange.wire]) == exchange.wire, exchange.id
        assert (reader.is_complete, reader.error) == (True, None), exchange.id
        assert reader.usage == expected_usage(exchange), exchange.id
        assert reader.response_id == (exchange.body.get("id") or None), exchange.id
        assert reader.response_model == (exchange.body.get("model") or None), exchange.id


def test_answers_that_are_cut_are_not_complete(recorded: Collection) -> None:
    for exchange in answers(recorded, stream=False):
        for end in (0, 1, len(exchange.wire) // 2, len(exchange.wire) - 1):
            reader = reader_for(exchange)
            relay(reader, [exchange.wire[:end]])

            assert not reader.is_complete, (exchange.id, end)


@pytest.mark.parametrize("size", [1, 1448, 1 << 20])
def test_streams_are_relayed_untouched_with_the_providers_own_numbers(recorded: Collection, size: int) -> None:
    for exchange in answers(recorded, stream=True):
        wire = exchange.wire
        if size == 1 and len(wire) > 40_000:
            continue
        reader = reader_for(exchange)

        assert relay(reader, pieces(wire, size)) == wire, exchange.id
        assert (reader.is_complete, reader.error, reader.has_content) == (True, None, True), exchange.id
        assert reader.usage == expected_usage(exchange), exchange.id


def test_streams_name_their_id_and_model(recorded: Collection) -> None:
    for exchange in answers(recorded, stream=True):
        reader = reader_for(exchange)
        relay(reader, EVENT.findall(exchange.wire))
        holders = [o.get("response") or o.get("message") or o for o in objects(exchange.wire)]

        assert reader.response_id == next(h["id"] for h in holders if h.get("id")), exchange.id
        assert reader.response_model == next(h["model"] for h in holders if h.get("model")), exchange.id


def test_streams_cut_after_an_event_relay_the_prefix_and_are_not_complete(recorded: Collection) -> None:
    for exchange in answers(recorded, stream=True):
        events = EVENT.findall(exchange.wire)
        reader, done = reader_for(exchange), b""
        for event in events:
            assert reader.feed(event) == event, exchange.id
            done += event
            assert reader.is_complete is (ENDS[exchange.surface].search(done) is not None), exchange.id
        for end in range(1, len(events), max(1, len(events) // 8)):
            cut = reader_for(exchange)
            half = events[end][: len(events[end]) // 2]

            assert relay(cut, [*events[:end], half]) == b"".join(events[:end]), exchange.id


def test_content_begins_after_the_lifecycle_events(recorded: Collection) -> None:
    lifecycle = {"message_start", "ping", "response.created", "response.in_progress", "response.queued"}
    for exchange in answers(recorded, stream=True):
        reader = reader_for(exchange)
        for event in EVENT.findall(exchange.wire):
            reader.feed(event)
            said = objects(event)
            if not said:
                continue
            is_role_only = all(
                not c.get("finish_reason") and not [v for k, v in c["delta"].items() if v and k != "role"]
                for c in said[0].get("choices", ())
            )
            is_lifecycle = is_role_only if exchange.surface == "chat" else said[0]["type"] in lifecycle
            assert reader.has_content is not is_lifecycle, (exchange.id, event)
            if not is_lifecycle:
                break


@pytest.mark.parametrize("size", [1, 1448, 1 << 20])
def test_usage_that_the_client_did_not_ask_for_leaves_no_trace(recorded: Collection, size: int) -> None:
    for exchange in (e for e in answers(recorded, stream=True) if e.surface == "chat"):
        reader = reader_for(exchange, wants_usage=False)
        relayed = relay(reader, pieces(exchange.wire, size))

        assert reader.usage == expected_usage(exchange), exchange.id
        assert reader.is_complete, exchange.id
        assert objects(relayed) == as_if_not_asked(exchange), exchange.id
        assert relayed.endswith(b"data: [DONE]\n\n"), exchange.id
        assert not re.search(rb'"usage" ?: ?null', relayed), exchange.id


def as_if_not_asked(exchange: Exchange) -> list[dict[str, Any]]:
    kept = [o for o in objects(exchange.wire) if not (o.get("usage") and not o["choices"])]
    return [{k: v for k, v in o.items() if k != "usage" or v is not None} for o in kept]


def test_a_stream_without_usage_is_untouched_by_hiding(recorded: Collection) -> None:
    silent = [e for e in answers(recorded, stream=True) if e.surface == "chat" and '"usage"' not in (e.sse or "")]
    for exchange in silent:
        assert relay(reader_for(exchange, wants_usage=False), [exchange.wire]) == exchange.wire


def test_failures_keep_status_and_body_but_for_refused_credentials(recorded: Collection) -> None:
    failures = [e for e in recorded if e.status >= 400]
    assert len(failures) >= 4
    for exchange in failures:
        headers = [(k.encode(), v.encode()) for k, v in exchange.response_headers.items()]
        error = error_from(exchange.status, headers, exchange.wire, provider="p", secrets=("sk-provider",))
        if exchange.status in {401, 403}:
            assert isinstance(error, ProviderAuthError), exchange.id
            continue
        assert isinstance(error, UpstreamStatusError), exchange.id
        assert (error.http_status, error.body) == (exchange.status, exchange.wire), exchange.id
        said = exchange.body["error"]
        assert error.message == " ".join((said if isinstance(said, str) else said["message"]).split())[:500], (
            exchange.id
        )
        assert error.upstream_headers == headers, exchange.id


def test_the_recorded_requests_are_forwarded_unchanged(recorded: Collection) -> None:
    for exchange in (e for e in recorded if e.surface in SURFACES):
        sent = exchange.request_body
        if not isinstance(sent, dict) or not sent.get("model"):
            continue
        body = json.dumps(sent).encode()
        request = model_request(SURFACES[exchange.surface], body, is_stream=exchange.stream, wants_stream_usage=True)
        upstream = PROVIDERS[exchange.provider].prepare(request, deployment(sent["model"]))

        assert upstream.body == body, exchange.id
