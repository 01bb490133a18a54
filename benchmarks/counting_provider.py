"""Providers of two wire formats that keep a ledger of what they have served, for the drill about money.

What an answer uses is chance. A word in what the client says makes it fail: `fails` (the first provider is overloaded),
`wrong` (refused), `breaks` (a stream, or a body, that is cut), `stays` (a stream that does not end).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.errors import UpstreamProtocolError
from gateway_middleware.core.provider_api import UpstreamRequest

MILLION = Decimal(1_000_000)
PRICES: dict[str, dict[str, str]] = {
    "openai/m": {"input": "1.25", "output": "10", "cached_input": "0.125", "reasoning": "11.37"},
    "azure/m": {"input": "3.333333", "output": "7.77", "cached_input": "0.3"},
    "azure/cheap": {"input": "0.001", "output": "0.002"},
    "openai/embed": {"input": "0.02"},
    "anthropic/c": {
        "input": "3", "output": "15", "cached_input": "0.3", "cache_write": "3.75", "cache_write_1h": "6",
    },
}  # fmt: skip
"""Dollars for a million tokens. `openai/new` has none."""
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
EMBEDDINGS, COUNT_TOKENS, MODERATIONS = "/v1/embeddings", "/v1/messages/count_tokens", "/v1/moderations"
JSON: HeaderList = [(b"content-type", b"application/json")]
SSE: HeaderList = [(b"content-type", b"text/event-stream")]
_CALL = re.compile(r"tenant-(\w+) \d+")
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Served(NamedTuple):
    """What the provider has counted of one answer. `read` includes what was cached and written to the cache."""

    tenant: str
    deployment: str
    read: int = 0
    written: int = 0
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0

    @property
    def by_kind(self) -> dict[str, int]:
        """Tokens of each kind that has a price of its own, none of them twice."""
        apart = self.reasoning if "reasoning" in PRICES.get(self.deployment, {}) else 0
        kinds = {
            "input": self.read - self.cached - self.cache_write - self.cache_write_1h,
            "cached_input": self.cached,
            "cache_write": self.cache_write,
            "cache_write_1h": self.cache_write_1h,
            "output": self.written - apart,
            "reasoning": apart,
        }
        return {kind: count for kind, count in kinds.items() if count}

    @property
    def dollars(self) -> Decimal | None:
        """By the price sheet; None where there is none."""
        price = {name: Decimal(text) for name, text in PRICES.get(self.deployment, {}).items()}
        if not price:
            return None
        return sum((count * _price(price, kind) for kind, count in self.by_kind.items()), Decimal(0)) / MILLION


def _price(price: dict[str, Decimal], kind: str) -> Decimal:
    return price.get(kind, price["input"] if kind.startswith("cache") else Decimal(0))


class Answer:
    """One answer of the provider, as the gateway reads it. `then` is what it does when its chunks have come."""

    def __init__(self, status: int, headers: HeaderList, *chunks: bytes, then: str = "") -> None:
        self.status, self.headers = status, headers
        self._chunks: Iterator[bytes] = iter(chunks)
        self._then = then

    async def chunk(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        if self._then == "breaks":
            raise UpstreamProtocolError("The answer was cut.")
        if self._then == "stays":
            await asyncio.get_running_loop().create_future()
        return b""

    async def read(self, limit: int) -> bytes:
        body = b""
        while chunk := await self.chunk():
            body += chunk
        return body

    def close(self) -> None:
        """Nothing is open."""

    def conclude(self) -> None:
        """Nothing is open."""


class Provider:
    """All providers at once, with one ledger. The same seed serves the same call with the same use."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.served: list[Served] = []

    async def open(self, request: UpstreamRequest, timeouts: object, *, first_byte: float) -> Answer:
        """Answer one request."""
        await asyncio.sleep(0)
        name = request.target.origin.host.partition(".")[0]
        text = request.body.decode()
        body, surface = json.loads(text), "/v1/" + request.target.path.partition("/v1/")[2]
        if surface in {COUNT_TOKENS, MODERATIONS}:
            return Answer(200, JSON, b'{"id":"x","input_tokens":12,"results":[]}')
        if " fails" in text and name == "openai":
            return Answer(503, JSON, b'{"error":{"message":"overloaded","code":"overloaded"}}')
        if " wrong" in text:
            return Answer(400, JSON, b'{"error":{"message":"no","type":"invalid_request_error"}}')
        served = self._count(name, body, surface, text)
        self.served.append(served)
        then = "breaks" if " breaks" in text else "stays" if " stays" in text else ""
        return _answer(served, surface, is_stream=bool(body.get("stream")), then=then)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _count(self, name: str, body: dict[str, Any], surface: str, text: str) -> Served:
        call = _CALL.search(text)
        if call is None:
            raise ValueError("nobody says whose call it is")
        chance = random.Random(f"{self._seed} {call[0]}")
        served = Served(call[1], f"{name}/{body['model']}", read=chance.randint(1, 4000))
        if surface == EMBEDDINGS:
            return served
        cached = chance.randint(0, served.read) if chance.random() < 0.4 else 0
        cap = next((body[name] for name in _CAPS if body.get(name)), 3000)
        served = served._replace(written=chance.randint(1, cap), cached=cached)
        if surface == MESSAGES:
            rest = served.read - cached
            short = chance.randint(0, rest)
            return served._replace(cache_write=short, cache_write_1h=chance.randint(0, rest - short))
        return served._replace(reasoning=chance.randint(0, served.written))


def _answer(served: Served, surface: str, *, is_stream: bool, then: str) -> Answer:
    whole, events = _FORMATS.get(surface, _FORMATS[CHAT])
    usage = _usage(served, surface)
    if not is_stream:
        body = json.dumps(whole(usage, served)).encode()
        return Answer(200, JSON, body[:40] if then else body, then=then)
    chunks = list(events(usage, served))
    return Answer(200, SSE, *(chunks[:-2] if then else chunks), then=then)


def _usage(served: Served, surface: str) -> dict[str, Any]:
    if surface == MESSAGES:
        writes = {"ephemeral_5m_input_tokens": served.cache_write, "ephemeral_1h_input_tokens": served.cache_write_1h}
        total = served.cache_write + served.cache_write_1h
        return {
            "input_tokens": served.read - served.cached - total, "output_tokens": served.written,
            "cache_read_input_tokens": served.cached, "cache_creation_input_tokens": total, "cache_creation": writes,
        }  # fmt: skip
    if surface == RESPONSES:
        return {
            "input_tokens": served.read, "output_tokens": served.written, "total_tokens": served.read + served.written,
            "input_tokens_details": {"cached_tokens": served.cached},
            "output_tokens_details": {"reasoning_tokens": served.reasoning},
        }  # fmt: skip
    usage: dict[str, Any] = {"prompt_tokens": served.read, "total_tokens": served.read + served.written}
    if surface == EMBEDDINGS:
        has_output_price = "output" in PRICES.get(served.deployment, {})
        return {**usage, "completion_tokens": 0} if has_output_price else usage
    return {
        **usage, "completion_tokens": served.written, "prompt_tokens_details": {"cached_tokens": served.cached},
        "completion_tokens_details": {"reasoning_tokens": served.reasoning},
    }  # fmt: skip


def _chat(usage: dict[str, Any], served: Served) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    model = served.deployment.partition("/")[2]
    return {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def _embeddings(usage: dict[str, Any], served: Served) -> dict[str, Any]:
    return {"object": "list", "data": [], "model": served.deployment.partition("/")[2], "usage": usage}


def _chat_events(usage: dict[str, Any], served: Served) -> Iterator[bytes]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": served.deployment.partition("/")[2]}
    for choices in (
        [{"index": 0, "delta": {"role": "assistant", "content": "x"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    ):
        yield b"data: %b\n\n" % json.dumps({**head, "choices": choices}).encode()
    yield b"data: %b\n\n" % json.dumps({**head, "choices": [], "usage": usage}).encode()
    yield b"data: [DONE]\n\n"


def _response(usage: dict[str, Any], served: Served) -> dict[str, Any]:
    model = served.deployment.partition("/")[2]
    return {"id": "resp_1", "object": "response", "status": "completed", "model": model, "output": [], "usage": usage}


def _response_events(usage: dict[str, Any], served: Served) -> Iterator[bytes]:
    delta = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x"}\n\n'
    yield delta
    yield delta
    last = {"type": "response.completed", "response": _response(usage, served)}
    yield b"event: response.completed\ndata: %b\n\n" % json.dumps(last).encode()


def _message(usage: dict[str, Any], served: Served) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": served.deployment.partition("/")[2],
        "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _message_events(usage: dict[str, Any], served: Served) -> Iterator[bytes]:
    begun = {**_message({**usage, "output_tokens": 1}, served), "content": [], "stop_reason": None}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    for event in (
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage["output_tokens"]}},
        {"type": "message_stop"},
    ):
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


_FORMATS = {
    CHAT: (_chat, _chat_events),
    EMBEDDINGS: (_embeddings, _chat_events),
    RESPONSES: (_response, _response_events),
    MESSAGES: (_message, _message_events),
}
