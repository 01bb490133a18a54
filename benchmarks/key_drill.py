"""`python -m benchmarks.key_drill`: thousands of keys made, used, rotated and revoked over three replicas under load.

Each step is asked of a replica at random, and looked at in all three. From a second after the answer on, a key that was
made or rotated must be let in everywhere, an old one until its grace is over, and a revoked one nowhere. A replica that
comes at the end, and its restart, know all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.servers import free_port
from gateway_middleware.simulator import Simulator
from gateway_middleware.tenancy.keys import digest

ADMIN, LOAD_KEY = "an-operators-token-0123456789", "the-key-of-the-load-0123456789"
KEYS = "/v1/admin/tenants/acme/keys"
REPLICAS = 3
GRACE = 3.0
_TRIES, _LASTING = 5, 200
_PAUSE = 0.01
"""Seconds between two calls of one connection of the load."""
ASK = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


class Connection:
    """One connection to one replica that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.slowest = 0.0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, key: str, body: Any = None) -> tuple[int, Any]:
        """Status and document."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        began = time.monotonic()
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        writer.write(
            f"{head}content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
        )
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        document = json.loads(await reader.readexactly(length)) if length else None
        self.slowest = max(self.slowest, time.monotonic() - began)
        return int(lines[0].split()[1]), document

    def close(self) -> None:
        """Let it go."""
        if self._streams is not None:
            self._streams[1].close()


class Drill:
    """What was seen. `faults` must stay empty."""

    def __init__(self, ports: list[int], seed: int) -> None:
        self._ports = ports
        self._random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {"made": [], "rotated": [], "revoked": []}
        self.answers: dict[str, list[float]] = {"create": [], "rotate": [], "revoke": []}
        self.keys: list[str] = []
        self.slowest: list[float] = []
        self.checks = self.calls = self.refused = 0

    async def life(self) -> str:
        """One key from its making to its end; returns its last secret."""
        connections = [Connection(port) for port in self._ports]
        try:
            made = await self._operate("create", connections, "POST", KEYS, {})
            await self._until(200, made["key"], connections, "made")
            await self._expect(200, made["key"], connections, "made and refused")
            path = f"{KEYS}/{made['key_id']}"
            asked = time.monotonic()  # the grace begins between this and the answer
            rotated = await self._operate("rotate", connections, "POST", f"{path}/rotate", {"grace": GRACE})
            began = time.monotonic()
            await self._until(200, rotated["key"], connections, "rotated")
            await self._expect(200, made["key"], connections, "shut out within the grace", until=asked + GRACE)
            await asyncio.sleep(max(began + GRACE + 1.0 - time.monotonic(), 0.0))
            await self._expect(401, made["key"], connections, "let in after the grace")
            await self._expect(200, rotated["key"], connections, "rotated and refused")
            await self._operate("revoke", connections, "DELETE", path, None)
            await self._until(401, rotated["key"], connections, "revoked")
            await asyncio.sleep(1.0)
            await self._expect(401, rotated["key"], connections, "let in after it was revoked")
            return str(rotated["key"])
        finally:
            self.slowest.append(max(connection.slowest for connection in connections))
            for connection in connections:
                connection.close()

    async def make(self, count: int) -> list[str]:
        """So many keys that nobody revokes."""
        connections = [Connection(port) for port in self._ports]
        keys = [(await self._operate("create", connections, "POST", KEYS, {}))["key"] for _ in range(count)]
        for connection in connections:
            connection.close()
        return keys

    async def look(self, connection: Connection, lasting: list[str]) -> None:
        """What a replica that has just started makes of revoked keys, and of those that are not."""
        for key in self.keys[:500]:
            await self._expect(401, key, [connection], "revoked, and let in after a start")
        for key in lasting:
            await self._expect(200, key, [connection], "shut out after a start")
        connection.close()

    async def load(self, stop: asyncio.Event) -> None:
        """Model calls of another key, which nothing of this may disturb."""
        connection = Connection(self._random.choice(self._ports))
        while not stop.is_set():
            status, _ = await connection.ask("POST", "/v1/chat/completions", LOAD_KEY, ASK)
            self.calls += 1
            await asyncio.sleep(_PAUSE)
            if status != 200:
                self.faults[f"a call of the load: {status}"] += 1
        connection.close()

    async def _operate(self, what: str, connections: list[Connection], method: str, path: str, body: Any) -> Any:
        connection = self._random.choice(connections)
        for _ in range(_TRIES):
            began = time.monotonic()
            status, document = await connection.ask(method, path, ADMIN, body)
            self.answers[what].append(time.monotonic() - began)
            if status in {200, 201}:
                return document
            self.refused += 1
            await asyncio.sleep(1.0)
        raise RuntimeError(f"{what}: {status} {document}")

    async def _until(self, expected: int, key: str, connections: list[Connection], what: str) -> None:
        """How long it takes all replicas; a look that began later than a second after the answer is a fault."""
        began = time.monotonic()
        for connection in connections:
            while True:
                looked = time.monotonic()
                status, _ = await connection.ask("GET", "/v1/models", key)
                self.checks += 1
                if status == expected:
                    break
                if looked > began + 1.0:
                    self.faults[f"{what}: {status} after a second"] += 1
                    break
                await asyncio.sleep(0.05)
        self.seconds[what].append(looked - began)

    async def _expect(
        self, expected: int, key: str, connections: list[Connection], fault: str, *, until: float = math.inf
    ) -> None:
        """An answer that comes later than `until` says nothing."""
        for connection in connections:
            status, _ = await connection.ask("GET", "/v1/models", key)
            self.checks += 1
            if status != expected and time.monotonic() < until:
                self.faults[f"{fault}: {status}"] += 1


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """A Redis that keeps nothing; yields its port."""
    port = free_port()
    binary = shutil.which("redis-server") or "redis-server"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()


@contextlib.contextmanager
def serve(folder: Path, upstream: str, redis: int, **settings: str) -> Iterator[int]:
    """A replica; yields its port."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "OPENAI_API_KEY": "sk-simulated",
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_ADMIN_TOKEN": ADMIN,
        "GATEWAY_TENANTS": json.dumps({"acme": {}, "load": {"keys": [digest(LOAD_KEY.encode())]}}),
        "GATEWAY_JOURNAL": str(folder / "journal.db"),
        "GATEWAY_STORAGE_URI": f"redis://127.0.0.1:{redis}",
        **settings,
    }
    command = [sys.executable, "-m", "gateway_middleware", "serve"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


async def ready(port: int) -> None:
    """Wait until it takes calls."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            status, _ = await Connection(port).ask("GET", "/readyz", ADMIN)
            if status == 200:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError("a replica does not start")


async def run(count: int, *, at_once: int, folder: Path, seed: int = 1) -> Drill:
    """The whole drill, and a replica that comes at its end and is restarted: it must know what the others know."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        async with Simulator().serve() as simulator:
            ports = [stack.enter_context(serve(folder / str(n), simulator.url, redis)) for n in range(REPLICAS)]
            for port in ports:
                await ready(port)
            drill = Drill(ports, seed)
            await _lives(drill, count, at_once)
            lasting = await drill.make(_LASTING)
            for _ in range(2):
                with serve(folder / "new", simulator.url, redis) as port:
                    await ready(port)
                    await drill.look(Connection(port), lasting)
    return drill


async def _lives(drill: Drill, count: int, at_once: int) -> None:
    stop, turns = asyncio.Event(), asyncio.Semaphore(at_once)
    load = [asyncio.create_task(drill.load(stop)) for _ in range(4)]

    async def one() -> str:
        async with turns:
            return await drill.life()

    drill.keys = await asyncio.gather(*(one() for _ in range(count)))
    stop.set()
    await asyncio.gather(*load)


def report(drill: Drill, seconds: float) -> list[str]:
    """The figures in lines."""
    lines = [
        f"{len(drill.keys)} keys in {seconds:.0f} s, {drill.checks} looks, {drill.calls} calls of the load",
        f"{drill.refused} times the store was away",
    ]
    for what, values in (*drill.seconds.items(), *drill.answers.items(), ("slowest", drill.slowest)):
        ordered = sorted(values)
        high, middle = ordered[int(0.99 * (len(ordered) - 1))], statistics.median(ordered)
        lines.append(f"{what:8} p50 {middle * 1e3:.0f} ms, p99 {high * 1e3:.0f} ms, max {ordered[-1] * 1e3:.0f} ms")
    return lines + [f"FAULT {fault}: {count}" for fault, count in sorted(drill.faults.items())]


def main() -> int:
    """Run it and print its figures; 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=150)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        drill = asyncio.run(run(args.keys, at_once=args.at_once, folder=Path(folder)))
    print("\n".join(report(drill, time.monotonic() - began)))
    return 1 if drill.faults else 0


if __name__ == "__main__":
    sys.exit(main())
