"""Calls through the translation of an adapter, and what comes out on both sides."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_middleware.core.domain import Deployment, Dialect, ModelRequest, Route, Surface
from gateway_middleware.core.provider_api import ResponseReader, Translation, UpstreamRequest
from gateway_middleware.core.sse import parse_event, split_events
from gateway_middleware.translation.provider import TranslatingProvider
from provider_calls import PROVIDERS, relay

NOW = 1_800_000_000
CHAT, RESPONSES, MESSAGES = Surface.CHAT, Surface.RESPONSES, Surface.MESSAGES
_DIALECTS = {CHAT: Dialect.OPENAI, RESPONSES: Dialect.OPENAI, MESSAGES: Dialect.ANTHROPIC}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
MODELS = {"anthropic": "claude-sonnet-4-5", "openai": "gpt-4o", "azure": "gpt-4o"}


def provider(name: str, *, has_responses: bool = True, native: frozenset[Surface] | None = None) -> TranslatingProvider:
    return TranslatingProvider(PROVIDERS[name], now=lambda: NOW, has_responses=has_responses, native=native)


class Call:
    """One translated call: the request that went upstream, what was lost, and readers for the answer."""

    def __init__(
        self,
        surface: Surface,
        body: dict[str, Any],
        to: str = "anthropic",
        *,
        model: str | None = None,
        speak: Surface | None = None,
        is_strict: bool = False,
        native: Surface | None = None,
    ) -> None:
        """`native`: the only surface that the provider has."""
        deployment = Deployment(provider=to, model=model or MODELS[to], speak=speak)
        raw = msgspec.json.encode({"model": "alias", **body})
        request = ModelRequest(
            surface=surface,
            dialect=_DIALECTS[surface],
            model="alias",
            route=Route(name="alias", deployments=(deployment,)),
            body=raw,
            fields=_members(raw),
            is_stream=bool(body.get("stream")),
            wants_stream_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            is_strict=is_strict,
        )
        only = None if native is None else frozenset({native})
        self.upstream: UpstreamRequest = provider(to, native=only).prepare(request, deployment)
        assert self.upstream.translation is not None
        self.translation: Translation = self.upstream.translation
        self.body: dict[str, Any] = msgspec.json.decode(self.upstream.body)
        self.dropped = self.translation.dropped

    def reader(self, *, is_event_stream: bool) -> ResponseReader:
        return self.translation.reader(is_event_stream=is_event_stream)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The client's whole answer for the provider's."""
        written = relay(self.reader(is_event_stream=False), [msgspec.json.encode(body)])
        decoded: dict[str, Any] = msgspec.json.decode(written)
        return decoded

    def stream(self, sse: bytes) -> list[dict[str, Any]]:
        """The data of the client's events for the provider's stream."""
        return events_of(relay(self.reader(is_event_stream=True), [sse]))


def events_of(written: bytes) -> list[dict[str, Any]]:
    parsed = [parse_event(event) for event in split_events(written)]
    return [msgspec.json.decode(data) for _, data in parsed if data and data != b"[DONE]"]


def sse(*events: dict[str, Any], done: bool = False) -> bytes:
    """A stream of these events, named by their types where they have one."""
    named = [
        (f"event: {e['type']}\n".encode() if "type" in e else b"") + b"data: " + msgspec.json.encode(e) + b"\n\n"
        for e in events
    ]
    return b"".join(named) + (b"data: [DONE]\n\n" if done else b"")


def message_stream(*blocks: list[dict[str, Any]], stop: str = "end_turn", **usage: Any) -> bytes:
    """A stream of Messages: each block is its start and its deltas."""
    counted = {"input_tokens": 10, "output_tokens": 5, **usage}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": {**counted, "output_tokens": 1}}},
        {"type": "ping"},
    ]
    for index, (start, *deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": counted})
    return sse(*events, {"type": "message_stop"})


def chunk(delta: dict[str, Any], finish: str | None = None, **others: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt"}
    return {**head, "choices": [choice], **others}


def called(index: int, call_id: str, name: str, arguments: str = "") -> dict[str, Any]:
    """The first piece of a tool call in a chunk."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


def more(index: int, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def user(content: Any = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}
