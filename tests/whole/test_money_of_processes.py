"""Finance over workers, a keeper that is killed, and prices that change: what was delivered and FOCUS are one sum."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector
from running import KEY
from served import Served, serve, upstream
from server_process import until

pytestmark = pytest.mark.anyio
MODEL = "openai/sim-input-100:cached-40:output-20:reasoning-5"
ADMIN = "an-admin-token-of-some-length"
BEFORE = {"input": "1.25", "output": "10", "cached_input": "0.125"}
AFTER = {"input": "2.5", "output": "8", "reasoning": "16"}
COSTS = {Decimal("0.00028"): BEFORE, Decimal("0.00045"): AFTER}
"""60 x 1.25, 40 x 0.125 and 20 x 10 for a million; 100 x 2.5, 15 x 8 and 5 x 16."""


def write_prices(file: Path, prices: dict[str, str]) -> None:
    lines = [f'[prices."{MODEL}"]', *(f'{kind} = "{price}"' for kind, price in prices.items())]
    draft = file.with_suffix(".draft")
    draft.write_text("\n".join(lines) + "\n")
    draft.replace(file)


async def calls(url: str, count: int) -> list[Decimal]:
    """What the headers tell of whole answers, what the last usage of streams does."""
    headers = {"authorization": f"Bearer {KEY}", "x-gateway-stream-cost": "true"}
    told = []
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, headers=headers) as client:
        for number in range(count):
            body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": f"x {number}"}]}
            answer = await client.post("/v1/chat/completions", json={**body, "stream": number % 2 == 0})
            assert answer.status_code == 200
            if number % 2:
                told.append(Decimal(answer.headers["x-gateway-cost"]))
            else:
                *_, last, _ = [line for line in answer.text.splitlines() if line.startswith("data: ")]
                told.append(json.loads(last[6:], parse_float=Decimal)["usage"]["cost"])
    return told


async def kill_keeper(served: Served) -> None:
    async def is_killed() -> bool:
        keeper = served.keeper
        if keeper is not None:
            os.kill(keeper.pid, signal.SIGKILL)
        return keeper is not None

    await until(is_killed, 60.0)


async def test_every_sum_is_one_over_processes_and_a_reload_of_prices(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    write_prices(file, BEFORE)
    async with Simulator().serve() as simulator, Collector().serve() as sink:
        extra: dict[str, Any] = {
            "GATEWAY_WORKERS": "2", "GATEWAY_CONFIG_FILE": str(file), "GATEWAY_ADMIN_TOKEN": ADMIN,
            "GATEWAY_USAGE_METERING_URL": f"{sink.url}/events",
        }  # fmt: skip
        async with serve(tmp_path, **upstream(simulator), **extra) as served:
            told = [cost for some in await asyncio.gather(*(calls(served.url, 6) for _ in range(4))) for cost in some]
            await kill_keeper(served)
            write_prices(file, AFTER)
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                path, headers = f"{served.url}/v1/admin/reload", {"authorization": f"Bearer {ADMIN}"}
                assert (await client.post(path, headers=headers)).status_code == 200
            told += [cost for some in await asyncio.gather(*(calls(served.url, 6) for _ in range(4))) for cost in some]

            async def are_there() -> bool:
                return len(sink.collector.events) > len(told)

            await until(are_there, 90.0)
            served.process.send_signal(signal.SIGTERM)
            assert await served.exit() == 0
        data = [event.document["data"] for event in sink.collector.events]
        events = [event for event in data if "cost" in event]  # the reload is one, too
    assert sorted(told) == sorted(Decimal(event["cost"]) for event in events)
    assert {Decimal(event["cost"]): event["unit_prices"] for event in events} == COSTS
    command = [sys.executable, "-m", "gateway_middleware", "reconcile", "--journal", str(tmp_path / "journal.db")]
    days = ["--from", "2026-01-01", "--format", "focus", "--account", "us"]
    done = subprocess.run([*command, *days], capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == sum(told)
    of_kind: dict[tuple[str, str], int] = {}
    for row in rows:
        key = row["SkuMeter"], row["ListUnitPrice"]
        of_kind[key] = of_kind.get(key, 0) + int(row["ConsumedQuantity"])
    assert of_kind == {
        ("Requests", "0"): 48,
        ("Input Tokens", "0.00000125"): 24 * 60,
        ("Cached Input Tokens", "0.000000125"): 24 * 40,
        ("Output Tokens", "0.00001"): 24 * 20,
        ("Input Tokens", "0.0000025"): 24 * 60,
        ("Cached Input Tokens", "0.0000025"): 24 * 40,
        ("Output Tokens", "0.000008"): 24 * 15,
        ("Reasoning Tokens", "0.000016"): 24 * 5,
    }
