"""`python -m benchmarks.fault_drill --seconds 60`: faults of all kinds under load, and afterwards all is as before.

Two workers serve calls, half of them streams, some of whose clients leave. Meanwhile processes are stopped and go on,
are killed, the disk is slow, the configuration is read again; with `--redis` Redis is stopped and emptied as well. When
the faults are over, calls are answered as ever, nobody holds a slot, and every call that the provider took is in the
journal once. Faults are drawn by `--seed`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.crash_drill import Drill, figures_of, victims_of
from benchmarks.redis_server import redis_server
from benchmarks.slow_disk import SlowDisk
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest

KEY, TOKEN = "gw-drill-000000000000000000000000000000000000000000", "adm-drill-0000000000000000"
CALLS, AT_ONCE = 400, 32
LONGEST = 2.0
"""Seconds that a call may take afterwards, on a machine that does other work as well."""
_LIMITS = {
    "requests": "100000/second",
    "tokens": "1000000000/minute",
    "concurrency": 5000,
    "spend": "1000000/month",
    "on_unpriced": "allow",
}
Fault = Callable[[], Coroutine[Any, Any, None]]


class FaultDrill(Drill):
    """A `serve` with two workers, and what can be done to it."""

    def __init__(
        self, folder: Path, upstream: str, *, rate: float, chance: random.Random, redis: str | None = None
    ) -> None:
        super().__init__(folder, upstream, rate=rate, more={
            "GATEWAY_OPEN": "false", "GATEWAY_WORKERS": "2", "GATEWAY_ADMIN_TOKEN": TOKEN,
            "GATEWAY_TENANTS": json.dumps({"drill": {"keys": [digest(KEY.encode())], **_LIMITS}}),
            **({} if redis is None else {"GATEWAY_STORAGE_URI": redis}),
        }, headers={"authorization": f"Bearer {KEY}"})  # fmt: skip
        self._chance = chance
        self._redis = redis
        self._disk = SlowDisk.make(folder)
        if self._disk is not None:
            self.environment |= self._disk.environment
        self.faults: Counter[str] = Counter()

    def begin(self) -> None:
        self._server = self.start()

    async def end(self) -> None:
        self._server.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._server.wait, 30)

    async def go_wrong(self, seconds: float) -> None:
        """One fault after the other."""
        faults: dict[str, Fault] = {
            "worker stopped": lambda: self._stop("worker", 0.6),
            "keeper stopped": lambda: self._stop("keeper", 3.0),
            "worker killed": lambda: self._kill("worker"),
            "keeper killed": lambda: self._kill("keeper"),
            "read again": self._read_again,
        }
        if self._disk is not None:
            faults["slow disk"] = lambda: self._slow(2.0)
        if self._redis is not None:
            faults |= {"Redis stopped": lambda: self._stop_redis(1.5), "Redis emptied": self._empty_redis}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            name = self._chance.choice(list(faults))
            self.faults[name] += 1
            await faults[name]()
            await asyncio.sleep(self._chance.uniform(0.05, 0.7))

    async def _stop(self, which: str, longest: float) -> None:
        await self._pause(victims_of(self._server.pid, which), longest)

    async def _pause(self, processes: list[psutil.Process], longest: float) -> None:
        if processes:
            victim = self._chance.choice(processes)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.suspend()
                await asyncio.sleep(self._chance.uniform(0.05, longest))
                victim.resume()

    async def _kill(self, which: str) -> None:
        if victims := victims_of(self._server.pid, which):
            with contextlib.suppress(psutil.NoSuchProcess):
                self._chance.choice(victims).kill()

    async def _read_again(self) -> None:
        self._server.send_signal(signal.SIGHUP)

    async def _slow(self, longest: float) -> None:
        assert self._disk is not None
        self._disk.begin()
        try:
            await asyncio.sleep(self._chance.uniform(0.1, longest))
        finally:
            self._disk.end()

    async def _stop_redis(self, longest: float) -> None:
        servers = [p for p in psutil.Process().children() if "redis-server" in p.name()]
        await self._pause(servers, longest)

    async def _empty_redis(self) -> None:
        port = (self._redis or "").rpartition(":")[2].partition("/")[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"FLUSHALL\r\n")
        await reader.readline()
        writer.close()

    async def afterwards(self) -> dict[str, object]:
        """How calls are answered when nothing is wrong any more."""
        statuses: Counter[int] = Counter()
        longest = 0.0
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, headers=self.headers, timeout=20) as client:
            for first in range(0, CALLS, AT_ONCE):
                began = time.monotonic()
                statuses.update(await asyncio.gather(*(self.ask(client, first + i) for i in range(AT_ONCE))))
                longest = max(longest, time.monotonic() - began)
            slots = await self._slots_held(client)
        return {"answers": dict(statuses), "longest_s": round(longest, 2), "slots_held": slots}

    async def _slots_held(self, client: httpx.AsyncClient) -> float:
        """By the metrics, in which a worker hears of the other with some delay."""
        held = await self._slots(client)
        for _ in range(50):
            if not held:
                break
            await asyncio.sleep(0.1)
            held = await self._slots(client)
        return held

    async def _slots(self, client: httpx.AsyncClient) -> float:
        metrics = (await client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})).text
        lines = [line for line in metrics.splitlines() if line.startswith("model_gateway_concurrency_leases")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


async def run(seconds: float, rate: float, seed: int, redis: str | None = None) -> dict[str, Any]:
    """Returns the figures."""
    with tempfile.TemporaryDirectory(prefix="fault-drill-") as folder:
        async with Simulator(capacity=1_000_000).serve() as simulator:
            drill = FaultDrill(Path(folder), simulator.url, rate=rate, chance=random.Random(seed), redis=redis)
            drill.begin()
            try:
                await drill.until_ready()
                over = asyncio.Event()
                load = asyncio.create_task(drill.load(over, patience=1.0))
                await drill.go_wrong(seconds)
                over.set()
                await load
                await asyncio.sleep(6.0)  # a disk is well after five seconds
                afterwards = await drill.afterwards()
            finally:
                await drill.end()
            return figures_of(drill, simulator) | afterwards | {"faults": dict(drill.faults)}


def is_well(figures: dict[str, Any]) -> bool:
    """Whether all is as it was, however fast the machine is."""
    return not (figures["lost"] or figures["double"] or figures["slots_held"]) and set(figures["answers"]) == {200}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redis", action="store_true")
    chosen = parser.parse_args()
    with redis_server() if chosen.redis else contextlib.nullcontext() as uri:
        figures = asyncio.run(run(chosen.seconds, chosen.rate, chosen.seed, uri))
    print(json.dumps(figures, indent=2))
    return 0 if is_well(figures) and figures["longest_s"] < LONGEST else 1


if __name__ == "__main__":
    sys.exit(main())
