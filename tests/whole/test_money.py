"""Money explains itself: header, usage events, `/v1/usage`, one call's document and finance's CSV are one figure."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_driver import drive
from gateway_middleware.__main__ import main
from gateway_middleware.metering.usage_event import UsageEvent
from gateway_middleware.tenancy.keys import digest
from rig import ADMIN, MESSAGES, Rig, answering, chat_events, failing, streaming
from running import KEY

pytestmark = pytest.mark.anyio
OTHER = "another-tenants-key-0123456789"
PRICES = {
    "a/m": {"input": "1.25", "output": "10", "cached_input": "0.125", "version": "sheet-7"},
    "b/m": {"input": "3.333333", "output": "7.77"},
    "x/m": {"input": "3", "output": "15"},
}


def rig_in(folder: Path, *, breaker: str = "on") -> Rig:
    return Rig(
        {"fast": ["a/m", "b/m"], "claude": ["x/m"], "new": ["c/m"]},
        GATEWAY_JOURNAL=str(folder / "journal.db"),
        GATEWAY_PRICES=json.dumps(PRICES),
        GATEWAY_OPEN="",
        GATEWAY_TENANTS=json.dumps(
            {"acme": {"keys": [digest(KEY.encode())]}, "other": {"keys": [digest(OTHER.encode())]}}
        ),
        GATEWAY_BREAKER=breaker,
    )


async def document(rig: Rig, path: str, key: str = KEY, query: bytes = b"") -> tuple[int, Any]:
    answer = await drive(rig.gateway, path=path, headers={"authorization": f"Bearer {key}"}, query=query)
    return answer.status, answer.json()


def counted(chance: random.Random, dialect: str) -> bytes:
    read, written = chance.randrange(1, 5000), chance.randrange(1, 900)
    if dialect == "anthropic":
        usage = {"input_tokens": read, "output_tokens": written}
        content = [{"type": "text", "text": "x"}]
        said = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": usage}
        return json.dumps(said).encode()
    cached = chance.randrange(read + 1)
    spent: dict[str, Any] = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return json.dumps({"id": "c", "model": "m", "choices": [], "usage": spent}).encode()


async def one_call(rig: Rig, chance: random.Random, request_id: str) -> Any:
    rig.scripts["a"] = chance.choice([answering(counted(chance, "openai")), failing(500)])
    rig.scripts["b"] = rig.scripts["c"] = answering(counted(chance, "openai"))
    rig.scripts["x"] = answering(counted(chance, "anthropic"))
    headers = {"x-request-id": request_id}
    kind = chance.choice(["fast", "fast", "claude", "new", "stream"])
    if kind == "claude":
        return await rig.call("claude", path=MESSAGES, headers=headers)
    if kind == "stream":
        rig.scripts["a"] = rig.scripts["b"] = streaming(*chat_events("hello"))
        return await rig.call("fast", stream=True, headers=headers)
    return await rig.call(kind, headers=headers)


@pytest.mark.parametrize("seed", [1, 2])
async def test_one_figure_everywhere(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig, chance = rig_in(tmp_path, breaker="off"), random.Random(seed)
    headers: dict[str, str | None] = {}
    for number in range(120):
        answer = await one_call(rig, chance, f"call-{number}")
        headers[f"call-{number}"] = answer.headers.get("x-gateway-cost")
    assert sum(cost is not None for cost in headers.values()) > 40
    for request_id, cost in list(headers.items())[::10]:
        status, told = await document(rig, f"/v1/usage/{request_id}")
        assert status == 200
        assert cost is None or cost == told["cost"] == told["attempts"][-1]["cost"]
        for attempt in told["attempts"]:
            parts = sum((Decimal(part["cost"]) for part in attempt["cost_parts"]), Decimal(0))
            assert parts == Decimal(attempt["cost"] or 0)
    day = datetime.fromtimestamp(rig.clock.wall(), UTC).date().isoformat()
    used = (await document(rig, "/v1/usage", query=b"split=true"))[1]
    (row,) = used["usage"]["today"]
    assert sum(Decimal(charge["cost"]) for charge in used["charges"]) == Decimal(row["cost"])
    await rig.gateway.aclose()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        events = [msgspec.json.decode(body, type=UsageEvent) for (body,) in db.execute("SELECT body FROM events")]
    by_call: dict[str, Decimal] = {}
    for event in events:
        by_call[event.request_id] = by_call.get(event.request_id, Decimal(0)) + Decimal(event.cost or 0)
    assert {name: by_call[name] for name, cost in headers.items() if cost} == {
        name: Decimal(cost) for name, cost in headers.items() if cost
    }
    total = sum(by_call.values())
    journal = str(tmp_path / "journal.db")
    arguments = ["reconcile", "--from", day, "--to", day, "--journal", journal, "--account", "us"]
    assert main([*arguments, "--format", "csv"]) == 0
    (exported,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert exported["cost"] == row["cost"]
    assert Decimal(exported["cost"]) == total
    for chosen, column in ((["focus"], "BilledCost"), (["csv", "--split"], "cost")):
        assert main([*arguments, "--format", *chosen]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert sum(Decimal(row[column]) for row in rows) == total
        assert len(rows) > 9
    assert main([*arguments, "--split"]) == 0
    charges = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(Decimal(charge["cost"]) for charge in charges) == total


async def test_a_call_is_told_to_whoever_made_it_and_to_operators(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    rig.scripts["a"] = answering(
        b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":1}}'
    )
    answer = await rig.call(headers={"x-request-id": "mine", "x-gateway-tags": "team=search"})
    for key in (KEY, ADMIN):
        status, told = await document(rig, "/v1/usage/mine", key)
        (attempt,) = told["attempts"]
        assert status == 200
        assert (told["tenant"], told["cost"], told["currency"]) == ("acme", answer.headers["x-gateway-cost"], "USD")
        assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (8, 1)
        assert (attempt["deployment"], attempt["tags"], attempt["price_version"]) == (
            "a/m",
            {"team": "search"},
            "sheet-7",
        )
        assert attempt["unit_prices"] == {"input": "1.25", "cached_input": "0.125", "output": "10"}
        assert attempt["cost_parts"] == [
            {"kind": "input", "quantity": 8, "unit_price": "0.00000125", "cost": "0.00001"},
            {"kind": "output", "quantity": 1, "unit_price": "0.00001", "cost": "0.00001"},
        ]
    for path, key in (("/v1/usage/mine", OTHER), ("/v1/usage/never", KEY), ("/v1/usage/%", ADMIN)):
        status, refused = await document(rig, path, key)
        assert (status, refused["error"]["code"]) == (404, "not_here")
    assert (await document(rig, "/v1/usage/mine", "nobody-at-all-0123456789"))[0] == 401
    await rig.gateway.aclose()


async def test_a_tenant_is_told_what_its_month_was_charged_for_and_no_other(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    usage = {"prompt_tokens": 8, "completion_tokens": 2}
    rig.scripts["a"] = answering(json.dumps({"id": "c", "model": "m", "choices": [], "usage": usage}).encode())
    await rig.call()
    rig.clock.advance(86400)
    await rig.call()
    bare = {"key_id": None, "paid_by": "gateway", "tags": None, "price_version": "sheet-7", "unpriced": 0}
    for path, key, query in (("/v1/usage", KEY, b""), ("/v1/admin/usage", ADMIN, b"tenant=acme&")):
        assert "charges" not in (await document(rig, path, key, query))[1]
        _, told = await document(rig, path, key, query + b"split=true")
        charges = [charge | {"key_id": None} for charge in told["charges"]]
        assert charges == [
            {**bare, "deployment": "a/m", "kind": kind, "quantity": count, "unit_price": price, "cost": cost}
            for kind, count, price, cost in (
                ("request", 2, "0", "0"), ("input", 16, "0.00000125", "0.00002"), ("output", 4, "0.00001", "0.00004")
            )
        ]  # fmt: skip
        assert len(told["usage"]["month"]) == 2
    assert (await document(rig, "/v1/usage", OTHER, b"split=true"))[1]["charges"] == []
    assert (await document(rig, "/v1/usage", KEY, b"split=maybe"))[0] == 400
    await rig.gateway.aclose()


async def test_of_calls_with_one_id_the_last_is_told(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    for _ in range(3):
        await rig.call(headers={"x-request-id": "again"})
    assert len((await document(rig, "/v1/usage/again"))[1]["attempts"]) == 1
    await rig.gateway.aclose()


async def test_a_sum_with_an_unknown_part_is_not_known(tmp_path: Path) -> None:
    rig = rig_in(tmp_path)
    await rig.call("new", headers={"x-request-id": "unpriced"})
    assert (await document(rig, "/v1/usage/unpriced"))[1]["cost"] is None
    await rig.gateway.aclose()


async def test_without_a_journal_nothing_is_here() -> None:
    rig = Rig()
    status, refused = await document(rig, "/v1/usage/any")
    assert (status, refused["error"]["code"]) == (404, "not_here")
    await rig.gateway.aclose()
