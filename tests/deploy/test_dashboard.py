"""The dashboard and the alerts ask for what the gateway really exports, and every panel has something to show."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest
from redis_process import free_port
from running import KEY, gateway_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio
DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "model-gateway.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
ALERTS = re.findall(r"expr: (.*)", (DEPLOY / "prometheus" / "alerts.yml").read_text())
SPENT = "the-key-of-a-tenant-with-a-spent-budget"
BREAKER_OPENS_AFTER = 5
"""Rounds of work, each with one failure of the same provider."""
VARIABLES = {"$__rate_interval": "10s", "$tenant": ".*", "$provider": ".*"}


def plain(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def test_the_dashboard_is_what_its_table_makes() -> None:
    made = subprocess.run(
        [sys.executable, DEPLOY / "grafana" / "make_dashboard.py"], capture_output=True, check=True
    ).stdout
    assert json.loads(made) == DASHBOARD


@asynccontextmanager
async def busy(folder: Path) -> AsyncIterator[str]:
    """A gateway in which a little of everything has happened, and goes on happening."""
    routes = {
        "fast": ["openai/gpt-5-mini"],
        "moved": ["openai/sim-status-503", "azure/gpt5mini"],
        "cooled": ["openai/sim-429-30", "azure/gpt5mini"],
        "claude": ["anthropic/claude-sonnet-4-5"],
        "dear": ["openai/dear"],
        "cheap": ["azure/gpt5mini"],
    }
    limits = {"requests": "100000/minute", "concurrency": 5, "spend": "0.0001/month", "shadow": ["spend"]}
    tenants = {
        "acme": {"keys": [digest(KEY.encode())], "on_unpriced": "allow", **limits},
        "spent": {
            "keys": [digest(SPENT.encode())],
            "spend": "100/month",
            "on_budget": {"route": "cheap", "percent": 1},
        },
    }
    prices = {"azure/gpt5mini": {"input": 1, "output": 2}, "openai/gpt-5-mini": {"input": 1, "output": 2}}
    prices["openai/dear"] = {"input": 100_000, "output": 100_000}
    async with Simulator().serve() as simulator:
        async with gateway_for(
            simulator.url,
            GATEWAY_ROUTES=json.dumps(routes),
            GATEWAY_TENANTS=json.dumps(tenants),
            GATEWAY_PRICES=json.dumps(prices),
            GATEWAY_JOURNAL=str(folder / "journal.db"),
        ) as url:
            for _ in range(BREAKER_OPENS_AFTER):
                await _work(url)
            work = asyncio.create_task(_work_on(url))
            yield url
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def _work_on(url: str) -> None:
    while True:
        await _work(url)
        await asyncio.sleep(0.02)


_NUMBERS = count()


async def _work(url: str) -> None:
    ask: list[Any] = [{"role": "user", "content": f"x {next(_NUMBERS)}"}]  # the same one again is no new failure
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for model, stream in (("fast", True), ("fast", False), ("moved", False), ("cooled", False)):
            body = {"model": model, "messages": ask, "stream": stream}
            await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
        body = {"model": "dear", "messages": ask}
        await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {SPENT}"})
        body = {"model": "claude", "messages": ask, "max_tokens": 9}
        await client.post("/v1/messages", json=body, headers={"x-api-key": KEY})
        await client.post("/v1/messages", json=body, headers={"x-api-key": "wrong"})


@pytest.mark.parametrize("query", QUERIES + ALERTS)
async def test_every_name_and_label_is_exported(tmp_path_factory: pytest.TempPathFactory, query: str) -> None:
    global _SCRAPED  # noqa: PLW0603  # one scrape for all queries
    if not _SCRAPED:
        async with busy(tmp_path_factory.mktemp("busy")) as url:
            async with httpx.AsyncClient(trust_env=False) as client:
                _SCRAPED = (await client.get(f"{url}/metrics")).text
    for name, selector in re.findall(r"((?:model_gateway|gen_ai)_[a-z_]+)(?:\{([^}]*)\})?", plain(query)):
        if name.startswith("gen_ai_") and not name.endswith(("_bucket", "_total")):
            continue  # a label
        lines = [line for line in _SCRAPED.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        assert lines, name
        for label in re.findall(r"(\w+)(?:=~|!=|!~|=)", selector):
            assert f'{label}="' in lines[0], (name, label)


_SCRAPED = ""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_alerts() -> None:
    done = subprocess.run(["promtool", "check", "rules", DEPLOY / "prometheus" / "alerts.yml"], check=False)
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
async def test_a_real_prometheus_has_data_for_every_panel(tmp_path: Path) -> None:
    async with busy(tmp_path) as url:
        port = free_port()
        target = url.removeprefix("http://")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")],
            "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": [target]}]}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        process = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            empty = await _empty_panels(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()
    assert empty == []


async def _empty_panels(prometheus: str) -> list[str]:
    empty = list(QUERIES)
    async with httpx.AsyncClient(base_url=prometheus, trust_env=False) as client:
        for _ in range(20):
            await asyncio.sleep(1)
            still = []
            for query in empty:
                try:
                    answer = (await client.get("/api/v1/query", params={"query": plain(query)})).json()
                except httpx.HTTPError:
                    answer = {"status": "starting"}
                if answer["status"] == "error":
                    raise AssertionError(answer)
                if not answer.get("data", {}).get("result"):
                    still.append(query)
            empty = still
            if not empty:
                break
    return empty
