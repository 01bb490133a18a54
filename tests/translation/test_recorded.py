"""Recorded exchanges, each converted for the clients and the providers of the other dialects."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

from gateway_middleware.core.domain import Surface
from gateway_middleware.core.errors import TranslationError
from provider_calls import relay
from traffic import Exchange, exchanges
from translation.grammar import WHOLE, check_stream
from translation.translating import CHAT, MESSAGES, RESPONSES, Call, events_of

SURFACES = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}
ASK: dict[Surface, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}},
    RESPONSES: {"input": "hi"},
    MESSAGES: {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
}
PARAMS: dict[tuple[Surface, bool], TypeAdapter[Any]] = {
    (CHAT, False): TypeAdapter(CompletionCreateParamsNonStreaming),
    (CHAT, True): TypeAdapter(CompletionCreateParamsStreaming),
    (RESPONSES, False): TypeAdapter(ResponseCreateParamsNonStreaming),
    (RESPONSES, True): TypeAdapter(ResponseCreateParamsStreaming),
    (MESSAGES, False): TypeAdapter(MessageCreateParamsNonStreaming),
    (MESSAGES, True): TypeAdapter(MessageCreateParamsStreaming),
}
ANSWERS = [e for e in exchanges() if e.surface in SURFACES and "azure_ai_inference" not in e.tags and e.status == 200]
STREAMS = [e for e in ANSWERS if e.sse is not None]
WHOLES = [e for e in ANSWERS if isinstance(e.body, dict)]


def others(exchange: Exchange) -> list[Surface]:
    """The surfaces whose clients may get this answer by translation."""
    own = SURFACES[exchange.surface]
    return [surface for surface in (CHAT, RESPONSES, MESSAGES) if surface is not own]


def call_for(surface: Surface, exchange: Exchange, *, stream: bool) -> Call:
    """A call of a client whose translation goes to the surface that the exchange was recorded on."""
    to = "anthropic" if exchange.surface == "messages" else "openai"
    own, body = SURFACES[exchange.surface], {**ASK[surface], "stream": stream}
    return Call(surface, body, to, native=own)


@pytest.mark.parametrize("exchange", WHOLES, ids=lambda e: e.id)
def test_a_whole_answer_is_one_of_the_clients_sdk(exchange: Exchange) -> None:
    if exchange.surface == "chat" and not exchange.body["choices"]:
        pytest.skip("an answer without a choice has nothing to translate")
    for surface in others(exchange):
        reader = call_for(surface, exchange, stream=False).reader(is_event_stream=False)
        written = relay(reader, [exchange.wire])
        WHOLE[surface].validate_json(written)
        assert reader.is_complete
        assert _texts(surface, msgspec.json.decode(written)) == _texts(SURFACES[exchange.surface], exchange.body)


@pytest.mark.parametrize("exchange", STREAMS, ids=lambda e: e.id)
def test_a_stream_keeps_the_clients_grammar_wherever_it_is_cut(exchange: Exchange) -> None:
    for surface in others(exchange):
        reader = call_for(surface, exchange, stream=True).reader(is_event_stream=True)
        whole = relay(reader, [exchange.wire])
        if reader.error is not None:
            continue
        assert reader.is_complete
        check_stream(surface, events_of(whole))
        again = call_for(surface, exchange, stream=True).reader(is_event_stream=True)
        assert relay(again, _cut(exchange)) == whole or _has_early_estimate(surface)


def _has_early_estimate(surface: Surface) -> bool:
    """The first event of Messages tells the usage that is known by then, which depends on what has come."""
    return surface is MESSAGES


@pytest.mark.parametrize("exchange", [e for e in ANSWERS if e.request_body], ids=lambda e: e.id)
def test_a_request_is_valid_for_the_other_provider_or_refused_by_name(exchange: Exchange) -> None:
    surface = SURFACES[exchange.surface]
    for target in others(exchange):
        to = "anthropic" if target is MESSAGES else "openai"
        written = _translated(surface, exchange.request_body, to, target)
        if written is None:
            continue
        _walk(PARAMS[target, bool(written.get("stream"))].validate_python(_filled(written)))


def _translated(surface: Surface, body: dict[str, Any], to: str, target: Surface) -> dict[str, Any] | None:
    """What goes upstream, or None for a refusal that names its field."""
    try:
        return Call(surface, body, to, native=target).body
    except TranslationError as refusal:
        if not refusal.param:
            raise
        return None


def _filled(body: dict[str, Any]) -> dict[str, Any]:
    """Members that the SDK calls required and the service does not."""
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if item.get("type") == "reasoning":
            item.setdefault("id", "rs_1")
    return body


def _walk(value: Any) -> None:
    """Typed iterables are validated when they are walked."""
    if isinstance(value, dict):
        for member in value.values():
            _walk(member)
    elif isinstance(value, (list, tuple)) or hasattr(value, "__next__"):
        for item in value:
            _walk(item)


def _cut(exchange: Exchange) -> list[bytes]:
    dice, wire, cut, at = random.Random(exchange.id), exchange.wire, [], 0
    while at < len(wire):
        size = dice.choice((1, 2, 3, 5, 17, 64, 200, 1000))
        cut.append(wire[at : at + size])
        at += size
    return cut


def _texts(surface: Surface, body: dict[str, Any]) -> str:
    """Everything that is said to a reader, refusals too."""
    if surface is CHAT:
        message = body["choices"][0].get("message") or {}
        return (message.get("content") or "") + (message.get("refusal") or "")
    if surface is MESSAGES:
        return "".join(block["text"] for block in body["content"] if block["type"] == "text")
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text", "") + part.get("refusal", "") for part in parts)
