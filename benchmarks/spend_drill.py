"""`python -m benchmarks.spend_drill`: 20,000 mixed calls, and whether three ledgers say the same to the last digit.

Priced, unpriced and cached models on every surface that uses tokens, whole and streamed, with failures in between. The
provider adds up what it has served by its own price sheet; the tenant's limit on spend, and the usage events in the
journal, must come to the same. A second tenant is driven into its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any, NamedTuple

from gateway_middleware import Gateway, Settings
from gateway_middleware.core.domain import HeaderList
from gateway_middleware.core.provider_api import UpstreamRequest
from gateway_middleware.tenancy.keys import digest

BIG, SMALL, ADMIN = "big-tenants-key-0123456789", "small-tenants-key-0123456789", "an-operators-token-0123456789"
SMALL_LIMIT = 20_000
"""Micro-dollars."""
MILLION = Decimal(1_000_000)
PRICES: dict[str, dict[str, str]] = {
    "openai/m": {"input": "1.25", "output": "10", "cached_input": "0.125", "reasoning": "11.37"},
    "backup/m": {"input": "3.333333", "output": "7.77", "cached_input": "0.3"},
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
    def dollars(self) -> Decimal | None:
        """By the price sheet; None where there is none."""
        if self.deployment.startswith("free/"):
            return Decimal(0)
        price = {name: Decimal(text) for name, text in PRICES.get(self.deployment, {}).items()}
        if not price:
            return None
        plain = self.read - self.cached - self.cache_write - self.cache_write_1h
        rows = [
            (plain, price["input"]),
            (self.cached, price.get("cached_input", price["input"])),
            (self.cache_write, price.get("cache_write", price["input"])),
            (self.cache_write_1h, price.get("cache_write_1h", price["input"])),
            (self.written - self.reasoning, price.get("output", Decimal(0))),
            (self.reasoning, price.get("reasoning", price.get("output", Decimal(0)))),
        ]
        return sum((count * dollars for count, dollars in rows), Decimal(0)) / MILLION


class Answer:
    """One answer of the provider, as the gateway reads it."""

    def __init__(self, status: int, headers: HeaderList, *chunks: bytes) -> None:
        self.status, self.headers = status, headers
        self._chunks: Iterator[bytes] = iter(chunks)

    async def chunk(self) -> bytes:
        return next(self._chunks, b"")

    async def read(self, limit: int) -> bytes:
        return b"".join(self._chunks)

    def close(self) -> None:
        """Nothing is open."""

    def conclude(self) -> None:
        """Nothing is open."""


class Provider:
    """All providers at once, with a ledger of their own."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.served: list[Served] = []

    async def open(self, request: UpstreamRequest, timeouts: object, *, first_byte: float) -> Answer:
        """Answer one request."""
        name = request.target.origin.host.partition(".")[0]
        body = json.loads(request.body)
        surface = "/v1/" + request.target.path.partition("/v1/")[2]
        if surface in {COUNT_TOKENS, MODERATIONS}:
            return Answer(200, JSON, b'{"id":"x","input_tokens":12,"results":[]}')
        if body.get("user") == "fails" and name == "openai":
            return Answer(503, JSON, b'{"error":{"message":"overloaded","code":"overloaded"}}')
        if body.get("user") == "wrong":
            return Answer(400, JSON, b'{"error":{"message":"no","type":"invalid_request_error"}}')
        served = self._count(name, body, surface)
        self.served.append(served)
        return _answer(served, surface, is_stream=bool(body.get("stream")))

    async def aclose(self) -> None:
        """Nothing is open."""

    def _count(self, name: str, body: dict[str, Any], surface: str) -> Served:
        chance = self._chance
        tenant = "small" if "small" in json.dumps(body) else "big"
        served = Served(tenant, f"{name}/{body['model']}", read=chance.randint(1, 4000))
        if surface == EMBEDDINGS:
            return served
        cached = chance.randint(0, served.read) if chance.random() < 0.4 else 0
        written = chance.randint(1, body.get("max_tokens") or body.get("max_output_tokens") or 3000)
        served = served._replace(written=written, cached=cached)
        if surface == MESSAGES:
            rest = served.read - cached
            short = chance.randint(0, rest)
            return served._replace(cache_write=short, cache_write_1h=chance.randint(0, rest - short))
        return served._replace(reasoning=chance.randint(0, written))


def _answer(served: Served, surface: str, *, is_stream: bool) -> Answer:
    usage = _usage(served, surface)
    if surface == MESSAGES:
        document = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage}
        return (
            Answer(200, SSE, *_message_events(usage)) if is_stream else Answer(200, JSON, json.dumps(document).encode())
        )
    if surface == RESPONSES:
        response = {"id": "resp_1", "object": "response", "status": "completed", "usage": usage}
        event = b"event: response.completed\ndata: %b\n\n"
        body = json.dumps(response).encode()
        delta = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x"}\n\n'
        last = event % json.dumps({"type": "response.completed", "response": response}).encode()
        return Answer(200, SSE, delta, last) if is_stream else Answer(200, JSON, body)
    if is_stream:
        delta = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        stop = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        final = b"data: %b\n\n" % json.dumps({"id": "c", "choices": [], "usage": usage}).encode()
        return Answer(200, SSE, delta, stop, final, b"data: [DONE]\n\n")
    return Answer(200, JSON, json.dumps({"id": "c", "choices": [], "usage": usage}).encode())


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
        return usage
    return {
        **usage, "completion_tokens": served.written, "prompt_tokens_details": {"cached_tokens": served.cached},
        "completion_tokens_details": {"reasoning_tokens": served.reasoning},
    }  # fmt: skip


def _message_events(usage: dict[str, Any]) -> Iterator[bytes]:
    start = {"type": "message_start", "message": {"id": "msg_1", "usage": {**usage, "output_tokens": 1}}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    for event in (start, delta, end, {"type": "message_stop"}):
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def calls(count: int, chance: random.Random, tenant: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Paths and bodies."""
    say = [{"role": "user", "content": tenant}]
    for _ in range(count):
        body: dict[str, Any] = {"stream": chance.random() < 0.5}
        if chance.random() < 0.7:
            body["max_tokens"] = chance.randint(1, 3000)
        if chance.random() < 0.1:
            body["user"] = chance.choice(["fails", "wrong"])
        yield chance.choice(
            [
                (CHAT, {"model": "fast", "messages": say, **body}),
                (CHAT, {"model": "openai/new", "messages": say, **body}),
                (RESPONSES, {"model": "plain", "input": tenant, "stream": body["stream"]}),
                (MESSAGES, {"model": "claude", "messages": say, **body, "max_tokens": body.get("max_tokens", 3000)}),
                (EMBEDDINGS, {"model": "openai/embed", "input": tenant}),
                (COUNT_TOKENS, {"model": "claude", "messages": say}),
                (MODERATIONS, {"model": "openai/mod", "input": tenant}),
            ]
        )


def settings(journal: Path) -> Settings:
    """A gateway with a journal, prices and two tenants."""
    providers = {
        name: {"kind": "anthropic" if name == "anthropic" else "openai", "api_key": f"sk-of-the-{name}",
               "base_url": f"https://{name}.test" + ("" if name == "anthropic" else "/v1")}
        for name in ("openai", "backup", "anthropic")
    }  # fmt: skip
    tenants = {
        "big": {"keys": [digest(BIG.encode())], "spend": "1000000/month", "tokens": "100000000000/day",
                "on_unpriced": "allow"},
        "small": {"keys": [digest(SMALL.encode())], "spend": f"{Decimal(SMALL_LIMIT) / MILLION}/month"},
    }  # fmt: skip
    routes = {"fast": ["openai/m", "backup/m"], "plain": "openai/m", "claude": "anthropic/c"}
    return Settings.from_env(
        {
            "GATEWAY_PROVIDERS": json.dumps(providers),
            "GATEWAY_ROUTES": json.dumps(routes),
            "GATEWAY_TENANTS": json.dumps(tenants),
            "GATEWAY_PRICES": json.dumps(PRICES),
            "GATEWAY_JOURNAL": str(journal),
            "GATEWAY_ADMIN_TOKEN": ADMIN,
            "GATEWAY_BREAKER": "off",
        }
    )


async def ask(gateway: Gateway, path: str, key: str, body: Any = None, query: bytes = b"") -> tuple[int, bytes]:
    """One request, without a socket."""
    sent: list[dict[str, Any]] = []
    content = b"" if body is None else json.dumps(body).encode()
    headers = [(b"authorization", b"Bearer " + key.encode()), (b"host", b"gateway"), *JSON]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "path": path,
        "raw_path": path.encode(), "method": "GET" if body is None else "POST", "query_string": query,
        "root_path": "", "headers": headers, "client": ("127.0.0.1", 1), "server": ("gateway", 80),
    }  # fmt: skip
    requests = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return requests.pop() if requests else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    await gateway(scope, receive, send)
    return sent[0]["status"], b"".join([message.get("body", b"") for message in sent[1:]])


class Sums(NamedTuple):
    """What a ledger says of one tenant: tokens, exact dollars, and micro-dollars with each call rounded up."""

    read: int
    written: int
    dollars: Decimal
    micro_dollars: int


def sums_of(rows: list[tuple[int, int, Decimal | None]]) -> Sums:
    """Added up."""
    costs = [cost for _, _, cost in rows if cost is not None]
    micro = sum(int((cost * MILLION).to_integral_value(ROUND_CEILING)) for cost in costs)
    return Sums(sum(row[0] for row in rows), sum(row[1] for row in rows), sum(costs, Decimal(0)), micro)


def events_of(journal: Path, tenant: str) -> Sums:
    """What the usage events say. Those of the free surfaces are at no tokens and no cost."""
    with sqlite3.connect(journal) as db:
        events = [json.loads(body) for (body,) in db.execute("SELECT body FROM events")]
    rows = []
    for event in events:
        if event["tenant"] == tenant:
            usage = event["usage"]
            cost = None if event.get("cost") is None else Decimal(event["cost"])
            rows.append((usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cost))
    return sums_of(rows)


async def run(count: int, *, seed: int = 0) -> dict[str, Any]:
    """Returns the figures; `differences` must be empty."""
    chance = random.Random(seed)
    provider = Provider(chance)
    with tempfile.TemporaryDirectory(prefix="spend-drill-") as folder:
        journal = Path(folder, "journal.db")
        gateway = Gateway(settings(journal), exchange=provider, write_log=lambda _: None)
        statuses: Counter[int] = Counter()
        async with gateway.lifespan():
            for path, body in calls(count, chance, "big"):
                statuses[(await ask(gateway, path, BIG, body))[0]] += 1
            for path, body in calls(count // 20, chance, "small"):
                statuses[(await ask(gateway, path, SMALL, body))[0]] += 1
            limits = {name: await _spend(gateway, name) for name in ("big", "small")}
        events = {name: events_of(journal, name) for name in limits}
    served = {
        name: sums_of([(s.read, s.written, s.dollars) for s in provider.served if s.tenant == name]) for name in limits
    }
    return {
        "calls": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "provider": {name: str(sums.dollars) for name, sums in served.items()},
        "differences": list(_differences(served, events, limits, provider.served)),
    }


async def _spend(gateway: Gateway, tenant: str) -> int:
    """Micro-dollars that count against the tenant's limit."""
    _, body = await ask(gateway, "/v1/admin/usage", ADMIN, query=f"tenant={tenant}".encode())
    (row,) = [row for row in json.loads(body)["limits"] if row["unit"] == "spend"]
    return round(float(row["used"]) * 1e6)


def _differences(
    served: dict[str, Sums], events: dict[str, Sums], limits: dict[str, int], every: list[Served]
) -> Iterator[str]:
    """Whatever is not equal."""
    for name, sums in served.items():
        if events[name] != sums:
            yield f"{name}: the provider has {sums}, the events have {events[name]}"
        if limits[name] != sums.micro_dollars:
            yield f"{name}: the provider has {sums.micro_dollars} micro-dollars, the limit has {limits[name]}"
    dearest = max((s.dollars or Decimal(0) for s in every if s.tenant == "small"), default=Decimal(0)) * MILLION
    if served["small"].micro_dollars > SMALL_LIMIT + dearest:
        yield f"small: {served['small'].micro_dollars} of {SMALL_LIMIT} were spent, the dearest call was {dearest}"


def main() -> None:
    """The drill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    figures = asyncio.run(run(args.calls, seed=args.seed))
    print(json.dumps(figures, indent=1))
    raise SystemExit(1 if figures["differences"] else 0)


if __name__ == "__main__":
    main()
