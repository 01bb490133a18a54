"""`python -m benchmarks.spend_drill`: 20,000 mixed calls, and whether all ledgers say the same to the last digit.

Six tenants with several keys, groups and end users call priced, unpriced and cached models in three dialects on every
surface that uses tokens, translated or not, whole and streamed, with failures, cut streams and clients that leave in
between. Each answer says what it has cost, in its header or, where the client asks, in its stream: that must be what
its usage event says. The events, `/v1/usage`, the CSV of `reconcile` and its FOCUS rows must add up to the same, FOCUS
for each kind of token; so must limits on spend of tenants, groups and end users. The provider adds up what it has
served by its own price sheet. One tenant is driven into its limit, another one past the step to a cheaper route.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import books
from benchmarks.books import MILLION, Books, Charged, Sums, micro_dollars
from benchmarks.counting_provider import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    JSON,
    MESSAGES,
    MODERATIONS,
    PRICES,
    RESPONSES,
    Provider,
    Served,
)
from gateway_middleware import Gateway, Settings
from gateway_middleware.tenancy.keys import digest

ADMIN = "an-operators-token-0123456789"
AZURE = "/openai/deployments/fast/chat/completions"
LOSSY, SMALL, THRIFTY = "lossy", "small", "thrifty"
"""Whose answers break off, so that part of their use is an estimate; with a small limit; with a cheaper route."""
TENANTS = ("big", "red", "blue", THRIFTY, LOSSY, SMALL)
SMALL_LIMIT = 20_000
"""Micro-dollars."""
USERS = ("alice", "bob", None)
_AT_ONCE = 16
_STREAM_COST = re.compile(rb'"cost":\s*(null|[0-9.eE+-]+)')


class Call(NamedTuple):
    """A request of a client. `leaves`: when it has had the first piece of its answer."""

    tenant: str
    key: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    leaves: bool = False

    @property
    def asks_cost(self) -> bool:
        """Whether its stream is to say what it has cost."""
        return bool(self.body.get("stream")) and "x-gateway-stream-cost" in self.headers


class Told(NamedTuple):
    """What the client was told. `stream_cost`: in the last usage object of its stream; None: nothing, or null."""

    call: Call
    status: int
    headers: dict[str, str]
    stream_cost: Decimal | None


def key_of(tenant: str, number: int) -> str:
    """One of a tenant's two keys."""
    return f"the-key-{number}-of-tenant-{tenant}"


def calls(count: int, chance: random.Random, tenants: tuple[str, ...]) -> Iterator[Call]:
    """Of some tenants, each with a request id of its own."""
    for number in range(count):
        tenant = chance.choice(tenants)
        headers = {"x-request-id": f"{tenant}-{number}"}
        if chance.random() < 0.5:
            headers["x-gateway-tags"] = f"team={chance.choice('xyz')}"
        if chance.random() < 0.5:
            headers["x-gateway-stream-cost"] = "true"
        word = chance.choice(["fails", "wrong"]) if chance.random() < 0.1 else ""
        if tenant == LOSSY:
            word = chance.choice(["breaks", "stays", ""])
        path, body = _asked(chance, f"tenant-{tenant} {number} {word}", is_stream=word == "stays")
        yield Call(tenant, key_of(tenant, chance.randrange(2)), path, body, headers, leaves=word == "stays")


def _asked(chance: random.Random, text: str, *, is_stream: bool) -> tuple[str, dict[str, Any]]:
    say = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"stream": is_stream or chance.random() < 0.5}
    if chance.random() < 0.7:
        body["max_tokens"] = chance.randint(1, 3000)
    user = chance.choice(USERS)
    named = {} if user is None else {"user": user}
    capped = {"max_tokens": 3000, **body}
    ways: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"model": "fast", "messages": say, **body, **named}),
        (CHAT, {"model": "claude", "messages": say, **body}),
        (CHAT, {"model": "openai/new", "messages": say, **body}),
        (AZURE, {"messages": say, **body, **named}),
        (RESPONSES, {"model": "plain", "input": text, "stream": body["stream"], **named}),
        (MESSAGES, {"model": "claude", "messages": say, **capped}),
        (MESSAGES, {"model": "plain", "messages": say, **capped}),
        (EMBEDDINGS, {"model": "openai/embed", "input": text}),
        (COUNT_TOKENS, {"model": "claude", "messages": say}),
        (MODERATIONS, {"model": "openai/mod", "input": text}),
    ]
    return chance.choice(ways[:7] if is_stream else ways)


def settings(journal: Path) -> Settings:
    """A gateway with a journal, prices, tenants and a group."""
    kinds = {"openai": "openai", "azure": "azure_openai", "anthropic": "anthropic"}
    ends = {"openai": "/v1", "azure": "", "anthropic": ""}
    providers = {
        name: {"kind": kind, "api_key": f"sk-of-the-{name}", "base_url": f"https://{name}.test{ends[name]}"}
        for name, kind in kinds.items()
    }
    routes = {"fast": ["openai/m", "azure/m"], "plain": "openai/m", "claude": "anthropic/c", "cheap": "azure/cheap"}
    return Settings.from_env(
        {
            "GATEWAY_PROVIDERS": json.dumps(providers),
            "GATEWAY_ROUTES": json.dumps(routes),
            "GATEWAY_TENANTS": json.dumps({name: _tenant(name) for name in TENANTS}),
            "GATEWAY_GROUPS": json.dumps({"colours": {"tenants": ["red", "blue"], "spend": "1000000/month"}}),
            "GATEWAY_PRICES": json.dumps(PRICES),
            "GATEWAY_JOURNAL": str(journal),
            "GATEWAY_ADMIN_TOKEN": ADMIN,
            "GATEWAY_BREAKER": "off",
        }
    )


def _tenant(name: str) -> dict[str, Any]:
    keys = [{"digest": digest(key_of(name, number).encode()), "name": f"{name}-{number}"} for number in range(2)]
    rest: dict[str, Any] = {"spend": "1000000/month", "tokens": "100000000000/day", "on_unpriced": "allow"}
    if name == SMALL:
        rest = {"spend": f"{Decimal(SMALL_LIMIT) / MILLION}/month"}
    if name == THRIFTY:
        rest |= {"spend": "2/month", "on_budget": {"route": "cheap", "percent": 50}}
    if name == "big":
        rest["per_end_user"] = {"spend": "1000000/month"}
    return {"keys": keys, **rest}


async def ask(
    gateway: Gateway, path: str, key: str, *, query: bytes = b"", call: Call | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request, without a socket: status, headers and body."""
    sent: list[dict[str, Any]] = []
    is_left = asyncio.Event()
    more = () if call is None else call.headers.items()
    headers = [(name.encode(), value.encode()) for name, value in more]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "path": path,
        "raw_path": path.encode(), "method": "GET" if call is None else "POST", "query_string": query,
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("gateway", 80),
        "headers": [(b"authorization", b"Bearer " + key.encode()), (b"host", b"gateway"), *JSON, *headers],
    }  # fmt: skip
    content = b"" if call is None else json.dumps(call.body).encode()
    requests: list[dict[str, Any]] = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await is_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if call is not None and call.leaves and message.get("body"):
            is_left.set()

    await gateway(scope, receive, send)
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join([message.get("body", b"") for message in sent[1:]])


async def make(gateway: Gateway, asked: Iterator[Call], told: list[Told], at_once: int) -> None:
    """Make all calls, some at a time."""

    async def work() -> None:
        for call in asked:
            query = b"api-version=2024-10-21" if call.path == AZURE else b""
            status, headers, body = await ask(gateway, call.path, call.key, query=query, call=call)
            costs = _STREAM_COST.findall(body) if call.asks_cost else []
            cost = Decimal(costs[-1].decode()) if costs and costs[-1] != b"null" else None
            told.append(Told(call, status, headers, cost))

    await asyncio.gather(*(work() for _ in range(at_once)))


async def run(count: int, *, seed: int = 0) -> dict[str, Any]:
    """Returns the figures; `differences` must be empty."""
    chance, told = random.Random(seed), list[Told]()
    provider = Provider(seed)
    with tempfile.TemporaryDirectory(prefix="spend-drill-") as folder:
        journal = Path(folder, "journal.db")
        gateway = Gateway(settings(journal), exchange=provider, write_log=lambda _: None)
        async with gateway.lifespan():
            await make(gateway, calls(count, chance, TENANTS[:-1]), told, _AT_ONCE)
            await make(gateway, calls(count // 20, chance, (SMALL,)), told, 1)
            documents = {name: await _usage(gateway, name) for name in TENANTS}
            users = {user: await _usage(gateway, "big", user) for user in USERS if user}
            metrics = (await ask(gateway, "/metrics", ADMIN))[2].decode()
        events = books.events_of(journal)
        ours = books.close(journal, {name: document["usage"]["month"] for name, document in documents.items()})
    differences = [
        *_told_otherwise(told, events),
        *_books_that_differ(ours),
        *_charges_that_differ(documents, ours),
        *_limits_that_differ(documents, users, events),
        *_provider_differs(provider.served, ours),
    ]
    return _figures(told, events, ours, metrics) | {"differences": differences}


async def _usage(gateway: Gateway, tenant: str, end_user: str | None = None) -> dict[str, Any]:
    query = b"split=true" if end_user is None else f"end_user={end_user}".encode()
    document: dict[str, Any] = json.loads((await ask(gateway, "/v1/usage", key_of(tenant, 0), query=query))[2])
    return document


def _figures(told: list[Told], events: list[dict[str, Any]], ours: Books, metrics: str) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for charged, (quantity, _) in ours.charged.items():
        kinds[charged.kind] += quantity
    steps = [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith(_STEPS)]
    return {
        "calls": len(told),
        "statuses": dict(sorted(Counter(answer.status for answer in told).items())),
        "streams": sum(bool(answer.call.body.get("stream")) for answer in told),
        "costs_told": sum("x-gateway-cost" in answer.headers for answer in told),
        "stream_costs_told": sum(answer.stream_cost is not None for answer in told),
        "events": len(events),
        "sources": dict(sorted(Counter(event["usage_source"] for event in events).items())),
        "stepped_down": sum("budget" in event for event in events),
        "steps_told": sum("x-gateway-budget" in answer.headers for answer in told),
        "steps_metric": sum(float(value) for value in steps),
        "dollars": {tenant: f"{sums.dollars:f}" for tenant, sums in sorted(ours.events.items())},
        "total": f"{sum((sums.dollars for sums in ours.events.values()), Decimal(0)):f}",
        "focus_rows": ours.focus_rows,
        "quantities": dict(sorted(kinds.items())),
    }


_STEPS = "model_gateway_budget_steps_total{"


def _told_otherwise(told: list[Told], events: list[dict[str, Any]]) -> Iterator[str]:
    """Answers that have told another cost than their events."""
    of_call: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        of_call.setdefault(event["request_id"], []).append(event)
    for answer in told:
        name = answer.call.headers["x-request-id"]
        own = of_call.pop(name, [])
        if answer.call.tenant == LOSSY and answer.status == 200 and "x-gateway-cost" not in answer.headers:
            continue  # it may have broken off before it could tell
        yield from (f"{name}: {fault}" for fault in _faults(answer, own))
    yield from (f"{name}: an event of no call" for name in of_call)


def _faults(answer: Told, own: list[dict[str, Any]]) -> Iterator[str]:
    is_stream = bool(answer.call.body.get("stream"))
    header, cost = answer.headers.get("x-gateway-cost"), own[-1].get("cost") if own else None
    if answer.status == 200 and len(own) != 1:
        yield f"{len(own)} events"
    if header is not None and header != cost:
        yield f"the header says {header}, the event {cost}"
    if answer.status == 200 and not is_stream and header is None and Decimal(cost or 0):
        yield f"the header says nothing, the event {cost}"
    if answer.call.asks_cost and answer.status == 200 and answer.stream_cost != (cost and Decimal(cost)):
        yield f"the stream says {answer.stream_cost}, the event {cost}"


def _books_that_differ(ours: Books) -> Iterator[str]:
    for tenant, sums in ours.events.items():
        if not sums == ours.usage[tenant] == ours.csv[tenant]:
            yield f"{tenant}: events {sums}, /v1/usage {ours.usage[tenant]}, CSV {ours.csv[tenant]}"
        if not sums.dollars == ours.focus[tenant] == ours.split[tenant]:
            yield f"{tenant}: events {sums.dollars}, FOCUS {ours.focus[tenant]}, split {ours.split[tenant]}"
        tokens = sum(n for key, (n, _) in ours.charged.items() if key.tenant == tenant and key.kind != "request")
        if tokens != sums.read + sums.written:
            yield f"{tenant}: events {sums.read + sums.written} tokens, FOCUS {tokens}"
    if any(not key.kind for key in ours.charged):
        yield "some of it is not split"


def _charges_that_differ(documents: dict[str, Any], ours: Books) -> Iterator[str]:
    """What `/v1/usage?split=true` says of the month."""
    for tenant, document in documents.items():
        total = sum((Decimal(charge["cost"]) for charge in document["charges"]), Decimal(0))
        if total != ours.events[tenant].dollars:
            yield f"{tenant}: events {ours.events[tenant].dollars}, charges {total}"


def _limits_that_differ(
    documents: dict[str, Any], users: dict[str, Any], events: list[dict[str, Any]]
) -> Iterator[str]:
    """Limits on spend count each call in micro-dollars, rounded up. What broke off is reckoned with beforehand."""

    def used(tenants: tuple[str, ...], end_user: str | None = None) -> int:
        own = [e for e in events if e["tenant"] in tenants and e.get("cost")]
        if end_user is not None:
            own = [e for e in own if (e.get("attribution") or {}).get("end_user") == end_user]
        return micro_dollars([Decimal(event["cost"]) for event in own])

    scopes = [(documents[name], "tenant", used((name,))) for name in TENANTS if name != LOSSY]
    scopes += [(documents["red"], "group/colours", used(("red", "blue")))]
    scopes += [(users[user], f"user/{user}", used(("big",), user)) for user in users]
    for document, scope, expected in scopes:
        (row,) = [row for row in document["limits"] if row["unit"] == "spend" and row["scope"] == scope]
        if round(row["used"] * 1e6) != expected:
            yield f"{scope}: the events have {expected} micro-dollars, the limit {round(row['used'] * 1e6)}"


def _provider_differs(served: list[Served], ours: Books) -> Iterator[str]:
    """By the provider's own price sheet; of the tenant whose answers break off there are estimates."""
    theirs: dict[Charged, int] = {}
    costs: dict[str, list[Decimal]] = {}
    for one in served:
        costs.setdefault(one.tenant, []).append(one.dollars or Decimal(0))
        for kind, count in one.by_kind.items():
            key = Charged(one.tenant, one.deployment, kind)
            theirs[key] = theirs.get(key, 0) + count
    charged = {key: n for key, (n, _) in ours.charged.items() if key.kind != "request" and key.tenant != LOSSY}
    theirs = {key: count for key, count in theirs.items() if key.tenant != LOSSY}
    for key in sorted(charged.keys() | theirs.keys()):
        if charged.get(key) != theirs.get(key):
            yield f"{key}: the provider has {theirs.get(key)}, FOCUS has {charged.get(key)}"
    for tenant, own in costs.items():
        if tenant != LOSSY and sum(own) != ours.events.get(tenant, Sums(0, 0, Decimal(0))).dollars:
            yield f"{tenant}: the provider has {sum(own)}, the events {ours.events[tenant].dollars}"
    small = costs.get(SMALL, [])
    if micro_dollars(small) > SMALL_LIMIT + max(small, default=Decimal(0)) * MILLION:
        yield f"{SMALL}: {micro_dollars(small)} of {SMALL_LIMIT} were spent, the dearest call was {max(small)}"


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
