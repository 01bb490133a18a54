"""Budgets tell of themselves: in the log, as a metric, and to usage-metering where the operator wants that."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from asgi_driver import drive
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.metering.delivery.delivery import Delivery
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.simulator.collector import Collector
from gateway_middleware.tenancy.keys import digest
from gateway_middleware.upstream.engine import Engine
from rig import Rig, answering
from running import KEY

pytestmark = pytest.mark.anyio
EXPENSIVE = answering(b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":0}}')


def rig_in(folder: Path, *, budget_events: str = "") -> Rig:
    rig = Rig(
        {"fast": ["a/m"]},
        GATEWAY_JOURNAL=str(folder / "journal.db"),
        GATEWAY_PRICES=json.dumps({"a/m": {"input": 1000, "output": 1}}),
        GATEWAY_OPEN="",
        GATEWAY_TENANTS=json.dumps({"acme": {"keys": [digest(KEY.encode())], "spend": "10/day"}}),
        GATEWAY_GROUPS=json.dumps({"research": {"tenants": ["acme"], "spend": "100/month"}}),
        GATEWAY_USAGE_METERING_URL="http://127.0.0.1:9/events",
        GATEWAY_BUDGET_EVENTS=budget_events,
    )
    rig.scripts["a"] = EXPENSIVE
    return rig


def kept(folder: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(folder / "journal.db") as db:
        rows = [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]
    return sorted((row for row in rows if row.get("event") == "budget"), key=lambda row: row["threshold"])


async def spend(rig: Rig) -> None:
    """Ten calls of a dollar each, and one that is refused."""
    statuses = [(await rig.call()).status for _ in range(11)]
    assert statuses == [200] * 10 + [429]


async def test_log_metric_and_event_once_a_period(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, budget_events="true")
    async with rig.gateway.lifespan():
        await spend(rig)
        metrics = (await drive(rig.gateway, path="/metrics")).body.decode()
        assert 'model_gateway_budget_reached_percent{limit="spd",owner="acme"} 100.0' in metrics
        assert 'owner="group/research"' not in metrics
        lines = rig.lines("budget_reached")
        assert [(line["owner"], line["threshold"]) for line in lines] == [("acme", 50), ("acme", 80), ("acme", 100)]
    events = kept(tmp_path)
    assert [(event["owner"], event["threshold"], event["amount"]) for event in events] == [
        ("acme", 50, 10_000_000), ("acme", 80, 10_000_000), ("acme", 100, 10_000_000),
    ]  # fmt: skip


async def test_another_process_tells_of_the_same_facts_under_the_same_ids(tmp_path: Path) -> None:
    ids = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        rig = rig_in(folder, budget_events="true")
        async with rig.gateway.lifespan():
            await spend(rig)
        ids.append([event["id"] for event in kept(folder)])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


async def test_usage_metering_hears_nothing_unasked(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    async with rig.gateway.lifespan():
        await spend(rig)
    assert kept(tmp_path) == []


async def test_a_collector_takes_both_kinds_and_bills_one(tmp_path: Path) -> None:
    rig = rig_in(tmp_path, budget_events="true")
    async with rig.gateway.lifespan():
        await spend(rig)
    collector = Collector()
    async with collector.serve() as server:
        spool = Spool(tmp_path / "journal.db")
        delivery = Delivery(spool, SinkClient(Engine(), url=f"{server.url}/events"), source="/gw", clocks=Clocks())
        delivery.start()
        await delivery.aclose(10.0)
        assert spool.measure() == (0, None, 0)
        spool.close()
    (totals,) = collector.totals.items()
    assert (totals[0], totals[1].events, str(totals[1].cost)) == ("acme", 10, "10")
    budgets = [e.document for e in collector.events if e.document["type"] == "gateway.llm.budget.v1"]
    assert sorted(event["data"]["threshold_percent"] for event in budgets) == [50, 80, 100]
    assert budgets[0]["data"]["amount"] == "10"
    assert budgets[0]["subject"] == "acme"
