"""The keeper as a process of its own: what it is made of, what it delivers, and what its death costs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest

from gateway_middleware import Settings
from gateway_middleware.composition.keeper import CrashPrices, KeeperConfig, KeeperProcess
from gateway_middleware.composition.keeper_config import keeper_config
from gateway_middleware.composition.keeper_prices import KeptPrices, forget_prices, leave_prices, prices_path
from gateway_middleware.core.price import Price
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.journal.keeper_status import KeeperStatus, read_status, write_status
from gateway_middleware.metering.journal.segment import Segment
from gateway_middleware.simulator import Simulator
from gateway_middleware.simulator.collector import Collector, Fault
from journaled import call, event, leftovers, spooled
from redis_process import free_port
from running import LogLines

pytestmark = pytest.mark.anyio
HEAVY = ("starlette", "httpx", "uvicorn", "limits", "prometheus_client", "genai_prices", "pydantic")
FOREIGN = ("GATEWAY_", "OPENAI_", "ANTHROPIC_", "AZURE_")
MAX_BYTES = 32 * 2**20


async def until(condition: Any, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def come_to(figure: Callable[[], Awaitable[float]], expected: float) -> None:
    async with asyncio.timeout(30):
        while await figure() != expected:
            await asyncio.sleep(0.1)


class Running:
    """A keeper in this process, over a journal that leaves its files to it."""

    def __init__(self, path: Path, **config: Any) -> None:
        self.lines = LogLines()
        self._leaving = asyncio.Event()
        self._keeper = KeeperProcess(KeeperConfig(journal=str(path), **config), log=AccessLog(self.lines, delay=0.0))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keeper.run(self._leaving))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving.set()
        await self._task


async def test_events_of_a_living_process_are_delivered_and_its_status_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Collector(token="secret-token").serve() as server:
        async with (
            Journal(path, keeper="process") as journal,
            Running(path, url=f"{server.url}/events", token="secret-token"),
        ):
            journal.open(call("a"))
            journal.close(event("a"))
            await until(lambda: len(server.collector.events) == 1)
            assert await asyncio.to_thread(journal.flush)
            await until(lambda: told(path).delivery is not None and told(path).delivery.delivered == 1)
            assert (told(path).backlog, told(path).trouble) == (0, None)
            await until(lambda: journal.keeper_status is not None and journal.keeper_status.delivery is not None)
        assert leftovers(path) != []


def told(path: Path) -> Any:
    status = read_status(path)
    return KeeperStatus(at=0.0, began=0.0) if status is None else status


async def test_what_is_left_is_taken_in_and_delivered_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Collector().serve() as server:
        async with Running(path, url=f"{server.url}/events"):
            await until(lambda: told(path).at > 0)
            async with Journal(path, keeper="process") as journal:
                journal.open(call("a"))
                journal.close(event("a"))
        assert len(server.collector.events) == 1
        assert (leftovers(path), spooled(path)) == ([], [])


async def test_a_sink_that_refuses_is_told_in_log_and_status(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Collector().serve() as server:
        server.collector.behave(Fault(status=400), times=100)
        async with Running(path, url=f"{server.url}/events") as running, Journal(path, keeper="process") as journal:
            journal.open(call("a"))
            journal.close(event("a"))
            await until(lambda: told(path).dead_letters == 1)
            await until(lambda: b"usage_dead_letter" in running.lines.raw)


async def test_a_second_keeper_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Running(path):
        await until(lambda: told(path).at > 0)
        first = told(path).began
        async with Running(path):
            await asyncio.sleep(0.2)
            assert told(path).began == first
    assert told(path).began == first


async def test_counts_go_on_where_the_keeper_before_has_left_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    before = KeeperStatus(at=1.0, began=1.0, dropped=5, damaged=2, quarantined=1, orphaned=4)
    write_status(path, before)
    async with Journal(path, keeper="process"), Running(path):
        damage(leftovers(path)[:1])
        await until(lambda: told(path).damaged == 3)
        status = told(path)
    assert (status.dropped, status.quarantined, status.orphaned) == (5, 1, 4)


def damage(files: list[Path]) -> None:
    """Write into each file of a journal what is no record."""
    for file in files:
        segment = Segment.beside(file)
        assert segment is not None
        segment.append(b"\nnonsense\n")
        segment.close()


async def test_a_spool_that_cannot_be_kept_is_told_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_bytes(b"in the way")
    async with Running(folder / "journal.db"):
        await asyncio.sleep(0.1)
        folder.unlink()
        folder.mkdir()
        await until(lambda: told(folder / "journal.db").at > 0)
        assert told(folder / "journal.db").trouble is None


def test_what_a_keeper_is_told_comes_from_the_settings() -> None:
    settings = Settings.from_env(
        {
            "OPENAI_API_KEY": "sk-x", "GATEWAY_OPEN": "true", "GATEWAY_JOURNAL": "/there/j.db",
            "GATEWAY_USAGE_METERING_URL": "http://127.0.0.1:9/events", "GATEWAY_USAGE_METERING_TOKEN": "secret-token",
            "GATEWAY_PRICES": '{"openai/m": {"input": 1, "output": 2}}',
        }
    )  # fmt: skip
    config = keeper_config(settings)
    assert (config.journal, config.url, config.token) == ("/there/j.db", "http://127.0.0.1:9/events", "secret-token")
    assert (config.prices["openai/m"].input, config.vendors) == (Decimal(1), {"openai": "openai"})


def test_calls_of_the_dead_are_priced() -> None:
    prices = CrashPrices(
        {"openai/m": Price(input=Decimal(2), output=Decimal(4))}, {"openai": "openai"}, journal="journal.db"
    )
    priced = prices.appraise(event("a", cost=None))
    assert (priced.cost, priced.price_version) == ("0.000032", "configured")
    assert prices.appraise(event("a", cost="7")).cost == "7"
    assert CrashPrices({}, {}, journal="journal.db").appraise(event("a", cost=None)).cost is None


def test_calls_of_the_dead_are_priced_as_the_last_reload_said(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal.db")
    dear = {"openai/m": Price(input=Decimal(20), output=Decimal(40))}
    prices = CrashPrices({}, {}, journal=journal)
    assert prices.appraise(event("a", cost=None)).cost is None
    leave_prices(journal, KeptPrices(dear, {"openai": "openai"}))
    assert prices.appraise(event("a", cost=None)).cost == "0.00032"
    prices_path(journal).write_bytes(b"{")
    assert prices.appraise(event("a", cost=None)).cost is None
    forget_prices(journal)
    assert [path.name for path in tmp_path.iterdir()] == []
    leave_prices(str(tmp_path / "nowhere" / "journal.db"), KeptPrices())  # no disk, no harm


def test_it_imports_nothing_of_the_layers() -> None:
    code = f"import sys, gateway_middleware.serving.keeper_main; print([n for n in {HEAVY} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# As a child of `serve`.


def environment(upstream: str, sink: str, folder: Path, port: int, **extra: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
        "OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": f"{upstream}/v1", "GATEWAY_OPEN": "true",
        "GATEWAY_PORT": str(port), "GATEWAY_JOURNAL": str(folder / "journal.db"),
        "GATEWAY_USAGE_METERING_URL": f"{sink}/events", "GATEWAY_DRAIN_LAG_SECONDS": "0", **extra,
    }  # fmt: skip


def children_of(process: subprocess.Popen[bytes], *, keeper: bool) -> list[psutil.Process]:
    """The workers, or the keeper."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if ("keeper_main" in " ".join(child.cmdline())) is keeper]


async def ask(client: httpx.AsyncClient, times: int) -> None:
    body = {"model": "openai/sim-length-5", "messages": [{"role": "user", "content": "x"}]}
    for _ in range(times):
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def sample(client: httpx.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics")).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                assert (await client.get("/readyz")).status_code == 200
                return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_the_keeper_of_serve_is_small_is_replaced_and_its_death_costs_nothing(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as server:
        port = free_port()
        env = environment(simulator.url, server.url, tmp_path, port, GATEWAY_WORKERS="2")
        command = [sys.executable, "-m", "gateway_middleware", "serve"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                    await ready(client)
                    await ask(client, 5)
                    await until(lambda: len(server.collector.events) == 5)
                    (keeper,) = children_of(process, keeper=True)
                    assert keeper.memory_info().rss <= MAX_BYTES
                    assert len(children_of(process, keeper=False)) == 2
                    keeper.send_signal(signal.SIGTERM)  # it is not its place to leave
                    keeper.send_signal(signal.SIGKILL)
                    await ask(client, 5)
                    await until(lambda: len(server.collector.events) == 10)
                    health = (await client.get("/v1/health")).json()["metering"]
                    assert health["delivery"]["standing"] == "ok"
                    assert [child.pid for child in children_of(process, keeper=True)] != [keeper.pid]
                    await until(lambda: told(tmp_path / "journal.db").began > 0)
                    damage(leftovers(tmp_path / "journal.db")[:1])
                    await until(lambda: told(tmp_path / "journal.db").damaged == 1)
                    # Each worker reads it twice a second and leaves it for the others.
                    await come_to(lambda: sample(client, "model_gateway_journal_damaged_records_total"), 1.0)
                    assert health["calls"]["orphaned"] == 0
                    assert (await client.get("/v1/health")).json()["metering"]["keeper"]["orphaned"] == 0
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=20)
            finally:
                process.kill()
        assert process.returncode == 0
        assert len(server.collector.events) == 10
        events = [json.loads(line)["event"] for line in output.splitlines()]
        assert events.count("keeper_died") == 1
        assert leftovers(tmp_path / "journal.db") == []


@pytest.mark.parametrize("victim", ["supervisor", "all"])
async def test_whoever_dies_every_call_is_delivered_once_by_the_next_server(tmp_path: Path, victim: str) -> None:
    async with Simulator().serve() as simulator, Collector().serve() as server:
        port = free_port()
        env = environment(simulator.url, server.url, tmp_path, port)
        command = [sys.executable, "-m", "gateway_middleware", "serve"]
        for _ in range(2):
            with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                        await ready(client)
                        await ask(client, 20)
                finally:
                    everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
                    for one in everybody if victim == "all" else everybody[:1]:
                        one.kill()
            gone, alive = psutil.wait_procs(everybody, timeout=10)
            assert (len(gone), alive) == (3, [])
        async with Running(tmp_path / "journal.db", url=f"{server.url}/events"):
            await until(lambda: len(server.collector.events) >= 40)
        assert len(server.collector.events) == 40
        assert sum(total.output_tokens for total in server.collector.totals.values()) == 200
        assert server.collector.conflicts == 0
        assert leftovers(tmp_path / "journal.db") == []


async def test_keep_serves_gateways_of_other_servers(tmp_path: Path) -> None:
    async with Collector().serve() as server:
        env = environment("http://127.0.0.1:1", server.url, tmp_path, 0)
        command = [sys.executable, "-m", "gateway_middleware", "keep"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                async with Journal(tmp_path / "journal.db", keeper="process") as journal:
                    journal.open(call("a"))
                    journal.close(event("a"))
                    await until(lambda: len(server.collector.events) == 1)
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=10)
            finally:
                process.kill()
        assert process.returncode == 0, output
    with subprocess.Popen(command, env={**env, "GATEWAY_JOURNAL": "off"}, stderr=subprocess.PIPE) as refused:
        _, errors = refused.communicate(timeout=20)
    assert (refused.returncode, errors.count(b"\n")) == (1, 1)
