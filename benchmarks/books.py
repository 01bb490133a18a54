"""What the gateway's books say of money: its usage events, `/v1/usage`, and what `reconcile` prints for finance."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from collections import defaultdict
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any, NamedTuple

MILLION = Decimal(1_000_000)
ZERO = Decimal(0)


class Sums(NamedTuple):
    """What a ledger says of one tenant: tokens, and exact dollars."""

    read: int
    written: int
    dollars: Decimal


class Charged(NamedTuple):
    """What was charged of one kind of token."""

    tenant: str
    deployment: str
    kind: str


class Books(NamedTuple):
    """By tenant: what was told by each. `charged` is by kind of token, as FOCUS tells it: quantity and dollars."""

    events: dict[str, Sums]
    usage: dict[str, Sums]
    csv: dict[str, Sums]
    split: dict[str, Decimal]
    focus: dict[str, Decimal]
    charged: dict[Charged, tuple[int, Decimal]]
    focus_rows: int


def events_of(journal: Path) -> list[dict[str, Any]]:
    """Every usage event, in the order in which the calls ended."""
    with sqlite3.connect(journal) as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]


def event_sums(events: list[dict[str, Any]]) -> dict[str, Sums]:
    """Added up by tenant."""
    sums: dict[str, Sums] = defaultdict(lambda: Sums(0, 0, ZERO))
    for event in events:
        usage, (read, written, dollars) = event["usage"], sums[event["tenant"]]
        cost = Decimal(event.get("cost") or 0)
        sums[event["tenant"]] = Sums(
            read + (usage.get("input_tokens") or 0), written + (usage.get("output_tokens") or 0), dollars + cost
        )
    return dict(sums)


def micro_dollars(costs: list[Decimal]) -> int:
    """As limits on spend count: each call rounded up."""
    return sum(int((cost * MILLION).to_integral_value(ROUND_CEILING)) for cost in costs)


def usage_sums(rows: list[dict[str, Any]]) -> Sums:
    """What `/v1/usage` says of a tenant, added up over days."""
    dollars = sum((Decimal(row["cost"]) for row in rows), ZERO)
    return Sums(sum(row["input_tokens"] for row in rows), sum(row["output_tokens"] for row in rows), dollars)


def reconcile(journal: Path, *arguments: str) -> list[dict[str, str]]:
    """The rows of `model-gateway reconcile`, over all days."""
    command = [sys.executable, "-m", "gateway_middleware", "reconcile", "--journal", str(journal), "--account", "drill"]
    days = ["--from", "2020-01-01", "--to", "2100-01-01"]
    done = subprocess.run([*command, *days, *arguments], capture_output=True, text=True, check=True)
    return list(csv.DictReader(io.StringIO(done.stdout)))


def close(journal: Path, usage: dict[str, list[dict[str, Any]]]) -> Books:
    """Close the books: `usage` is what `/v1/usage` told of each tenant."""
    focus = reconcile(journal, "--format", "focus")
    charged: dict[Charged, tuple[int, Decimal]] = {}
    for row in focus:
        key = Charged(row["SubAccountId"], row["SkuId"].rpartition(":")[0], row["SkuId"].rpartition(":")[2])
        count, dollars = charged.get(key, (0, ZERO))
        charged[key] = count + int(row["ConsumedQuantity"]), dollars + Decimal(row["BilledCost"])
    return Books(
        events=event_sums(events_of(journal)),
        usage={tenant: usage_sums(rows) for tenant, rows in usage.items()},
        csv=_csv_sums(reconcile(journal, "--format", "csv")),
        split=_dollars(reconcile(journal, "--format", "csv", "--split"), "tenant", "cost"),
        focus=_dollars(focus, "SubAccountId", "BilledCost"),
        charged=charged,
        focus_rows=len(focus),
    )


def _csv_sums(rows: list[dict[str, str]]) -> dict[str, Sums]:
    of_tenant: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        counts = {name: int(row[name]) for name in ("input_tokens", "output_tokens")}
        of_tenant[row["tenant"]].append({**counts, "cost": row["cost"]})
    return {tenant: usage_sums(own) for tenant, own in of_tenant.items()}


def _dollars(rows: list[dict[str, str]], tenant: str, cost: str) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for row in rows:
        sums[row[tenant]] += Decimal(row[cost])
    return dict(sums)
