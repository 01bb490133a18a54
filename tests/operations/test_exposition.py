"""Metrics as text, in parts and over processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from asgi_driver import drive
from gateway_middleware.operations.exposition import Exposition
from gateway_middleware.operations.metric import Aggregation, Counter, Gauge
from gateway_middleware.operations.worker_metrics import WorkerMetrics
from gateway_middleware.simulator import Simulator
from redis_process import free_port

pytestmark = pytest.mark.anyio


def families(count: int = 1050) -> list[Metric]:
    counter = CounterMetricFamily("calls", "Calls.", labels=("tenant",))
    for number in range(count):
        counter.add_metric((f"t{number}",), number)
    histogram = HistogramMetricFamily("seconds", "Seconds.", labels=("a",))
    histogram.add_metric(("x",), buckets=[("0.1", 1.0), ("+Inf", 3.0)], sum_value=4.5)
    empty = GaugeMetricFamily("nothing", "None.", labels=("a",))
    return [counter, histogram, empty]


class Fixed(Collector):
    def collect(self) -> list[Metric]:
        return families()


async def scrape(accept: str) -> str:
    endpoint = Exposition(families)
    return (await drive(endpoint, headers={"accept": accept})).body.decode()


async def test_in_parts_it_is_the_same_text() -> None:
    registry = CollectorRegistry()
    registry.register(Fixed())
    assert await scrape("text/plain") == generate_latest(registry).decode()
    text = await scrape("application/openmetrics-text; version=1.0.0")
    assert text == generate_openmetrics(registry).decode()
    assert list(parse_openmetrics(text))
    assert list(parse_text(await scrape("text/plain")))


async def test_ten_thousand_series_do_not_hold_the_loop() -> None:
    many = families(10_000)
    endpoint = Exposition(lambda: many)
    steps: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            steps.append(time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    transcript = await drive(endpoint)
    watching.cancel()
    assert transcript.body.count(b"\n") > 10_000
    assert len(steps) > 100, "the loop had its turn between the parts"


def test_processes_are_added_up_and_the_dead_still_count(tmp_path: Path) -> None:
    def of(value: float) -> list[Metric]:
        return [
            Counter("c", "c").family(value),
            Counter("k", "k").family(value, aggregation=Aggregation.MAX),
            Gauge("g", "g", aggregation=Aggregation.SUM).family(value),
            Gauge("m", "m", ("state",), aggregation=Aggregation.MAX).family({("open",): value}),
        ]

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid, value in ((os.getppid(), 5.0), (dead.pid, 7.0)):
        WorkerMetrics(tmp_path, partial(of, value), pid=pid).write()
    (tmp_path / "1.metrics").write_bytes(b"broken")
    own = WorkerMetrics(tmp_path, lambda: of(1.0))
    own.write()
    found = {family.name: family.samples[0].value for family in own.collect()}
    assert found == {"c": 13.0, "k": 7.0, "g": 6.0, "m": 5.0}


def test_what_a_process_has_told_counts_when_it_is_killed_next(tmp_path: Path) -> None:
    own = WorkerMetrics(tmp_path, lambda: [Counter("c", "c").family(3.0)], pid=os.getppid())
    own.collect()
    other = WorkerMetrics(tmp_path, lambda: [Counter("c", "c").family(1.0)])
    (merged,) = other.collect()
    assert [sample.value for sample in merged.samples] == [4.0]


def test_a_gauge_must_say_how_processes_are_aggregated(tmp_path: Path) -> None:
    own = WorkerMetrics(tmp_path, lambda: [GaugeMetricFamily("g", "g", value=1.0)])
    with pytest.raises(TypeError, match="The gauge g does not say how to aggregate"):
        own.collect()


async def test_two_workers_are_one_server_to_a_scraper(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        port = free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OPENAI_"))}
        environment = {
            **kept, "OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": f"{simulator.url}/v1", "GATEWAY_OPEN": "true",
            "GATEWAY_PORT": str(port), "GATEWAY_WORKERS": "2", "GATEWAY_JOURNAL": str(tmp_path / "j.db"),
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway_middleware", "serve"], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            counted = await _call_and_scrape(f"http://127.0.0.1:{port}")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
    assert counted == {60.0}


async def _call_and_scrape(url: str) -> set[float]:
    body = {"model": "openai/gpt", "messages": [{"role": "user", "content": "x"}]}
    made = 0
    async with asyncio.timeout(40):
        while made < 60:
            # A connection of its own for each call, so that both workers get some.
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=40) as client:
                try:
                    answer = await client.post("/v1/chat/completions", json=body)
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
                    continue
                made += answer.status_code == 200
    async with asyncio.timeout(40):
        while (seen := await _scrapes(url)) != {60.0}:  # what a worker counts is with the others soon, not at once
            await asyncio.sleep(0.2)
    return seen


async def _scrapes(url: str) -> set[float]:
    seen = set()
    for _ in range(8):
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            found = parse_text((await client.get("/metrics")).text)
        seen.add(sum(s.value for f in found if f.name == "model_gateway_requests" for s in f.samples))
    return seen
