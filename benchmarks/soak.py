"""`python -m benchmarks soak --calls 300000`: does anything grow?

Mixed calls on one gateway with everything on: three in ten are streams, one in ten of all clients leaves in the middle,
one in twenty is answered 500 by the provider. The size of the process is taken at rest, ten times; after the first
fifteenth (20,000 of 300,000) it must be flat.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec
import psutil
import uvloop

from benchmarks import load, servers
from benchmarks.load import Connection
from benchmarks.mock_provider import mock_provider
from benchmarks.servers import KEY, Server, process

CONNECTIONS, PARTS = 48, 14
ABORTS, STREAMS = 0.10, 0.30


class Load:
    """Makes mixed calls, and counts how they ended: by status, or `left`."""

    def __init__(self, port: int, *, seed: int = 1) -> None:
        self._port = port
        self._chance = random.Random(seed)
        self._whole = load.request_bytes("soak", KEY, model="faulty/gpt-5-mini")
        self._stream = load.request_bytes("soak", KEY, model="faulty-stream/gpt-5-mini", is_stream=True)
        self.ends: collections.Counter[str] = collections.Counter()

    async def make(self, calls: int) -> None:
        """So many calls, over a number of connections at a time."""
        await asyncio.gather(*(self._loop(calls // CONNECTIONS) for _ in range(CONNECTIONS)))

    async def _loop(self, calls: int) -> None:
        connection = await self._connect()
        for _ in range(calls):
            if not await self._call(connection):
                connection = await self._connect()
        assert connection.transport is not None
        connection.transport.close()

    async def _call(self, connection: Connection) -> bool:
        """Whether the connection can be used again."""
        answer = connection.ask(self._stream if self._chance.random() < STREAMS else self._whole)
        if self._chance.random() < ABORTS:
            await asyncio.sleep(self._chance.random() * 0.02)
            assert connection.transport is not None
            connection.transport.abort()
            self.ends["left"] += 1
            return False
        status = await asyncio.wait_for(answer, 30)
        self.ends[str(status)] += 1
        return status != 0

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self._port))[1]


def size_of(server: Server) -> dict[str, float]:
    """What the server says of itself, at rest."""
    time.sleep(1.5)
    command = ["curl", "-sS", "-f", f"http://127.0.0.1:{server.port}/size"]
    out = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    return msgspec.json.decode(out, type=dict[str, float])


def soak(calls: int) -> bool:
    """Print the table; whether all was flat."""
    with mock_provider() as mock, servers.folder() as folder:
        port = servers.free_port()
        env = {
            **servers.full_environment(mock.port, ["faulty", "faulty-stream"]),
            "GATEWAY_JOURNAL": f"{folder}/journal.db", "GATEWAY_PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.soak_server"]
        with process("gateway", command, port, servers.SERVER_CORE, env) as server:
            return _run(server, calls)


def _run(server: Server, calls: int) -> bool:
    made, traffic, sizes = 0, Load(server.port), []
    print("| calls | resident MB | descriptors | threads | tasks |\n|---:|---:|---:|---:|---:|")
    for part in range(PARTS + 1):
        if part:
            uvloop.run(traffic.make(calls // PARTS))
            made = traffic.ends.total()
        now = size_of(server)
        sizes.append(now)
        cells = (f"{now[name]:,.0f}" for name in ("descriptors", "threads", "tasks"))
        print(f"| {made:,} | {now['rss_mb']:,.1f} | {' | '.join(cells)} |", flush=True)
    cpu = psutil.Process(server.pid).cpu_times()
    print(f"\nends: {dict(sorted(traffic.ends.items()))}; CPU {cpu.user + cpu.system:.0f} s")
    return is_flat(sizes)


def is_flat(sizes: Sequence[dict[str, float]]) -> bool:
    """No more descriptors, threads and tasks at the end than after the first part, less than 5 MB and 5 % more memory.

    `sizes` begins with that before any call. A connection to the provider for each of the load's may be kept.
    """
    idle, first, last = sizes[0], sizes[1], sizes[-1]
    first = first | {"descriptors": max(first["descriptors"], idle["descriptors"] + CONNECTIONS)}
    grown = [name for name in ("descriptors", "threads", "tasks") if last[name] > first[name] + 2]
    if last["rss_mb"] - first["rss_mb"] > max(5, 0.05 * first["rss_mb"]):
        grown.append("rss_mb")
    print("flat" if not grown else f"grown: {', '.join(grown)}")
    return not grown


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=300_000)
    sys.exit(not soak(parser.parse_args(arguments).calls))
