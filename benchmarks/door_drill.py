"""`python -m benchmarks.door_drill --connections 1000`: slow clients beside good ones, on a running `serve`.

A quarter of the connections says nothing, a quarter sends half a head, a quarter trickles a head, a quarter a body.
A good client asks all the while. Then 200 readers stall in the middle of a stream. Printed: what the good client saw
alone and beside them, resident memory, and after how many seconds each kind was gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import request_bytes
from benchmarks.servers import KEY, Server, free_port, gateway_environment, process, simulator

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
BODY = (
    HEAD
    + b"content-type: application/json\r\nauthorization: Bearer %b\r\ncontent-length: 100000\r\n\r\n" % KEY.encode()
)
KINDS = {"silent": b"", "half head": HEAD + b"x-a", "trickled head": HEAD + b"x-a: ", "trickled body": BODY}
_STALLED = 200


class GoodClient:
    """Asks one call after the other on one connection; `took` are milliseconds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._request = request_bytes("bench", KEY)
        self.took: list[float] = []
        self.failed = 0

    async def ask(self, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            self.took.append(1000 * (time.perf_counter() - began))
            self.failed += not head.startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.01)
        writer.close()

    def figures(self) -> dict[str, float]:
        took = sorted(self.took)
        return {
            "calls": len(took),
            "failed": self.failed,
            "p50_ms": round(took[len(took) // 2], 2),
            "p99_ms": round(took[len(took) * 99 // 100], 2),
        }


class SlowClients:
    """Connections of one kind. `gone_after`: seconds until the last one was closed by the gateway."""

    def __init__(self, port: int, kind: str, count: int) -> None:
        self._port, self._kind, self._count = port, kind, count
        self._connections: list[Connection] = []
        self.gone_after: float | None = None

    async def hold(self) -> None:
        for _ in range(self._count):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(KINDS[self._kind])
            self._connections.append((reader, writer))
        began = time.perf_counter()
        trickling = asyncio.create_task(self._trickle())
        await asyncio.gather(*(self._end(reader) for reader, _ in self._connections))
        self.gone_after = round(time.perf_counter() - began, 1)
        trickling.cancel()
        for _, writer in self._connections:
            writer.close()

    async def _trickle(self) -> None:
        while "trickled" in self._kind:
            await asyncio.sleep(2)
            for _, writer in self._connections:
                if not writer.is_closing():
                    writer.write(b"a")

    async def _end(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass


def _stall(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    model = b"openai/sim-gap-0:length-20000:size-400"  # about 12 MB
    body = b'{"model": "%b", "stream": true, "messages": [{"role": "user", "content": "x"}]}' % model
    head = HEAD + b"content-type: application/json\r\nauthorization: Bearer %b\r\n" % KEY.encode()
    client.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    return client


async def run(server: Server, connections: int, seconds: float) -> dict[str, object]:
    alone, beside = GoodClient(server.port), GoodClient(server.port)
    await alone.ask(5)
    before = server.rss_mb()
    slow = {kind: SlowClients(server.port, kind, connections // len(KINDS)) for kind in KINDS}
    holding = [asyncio.create_task(clients.hold()) for clients in slow.values()]
    asking = asyncio.create_task(beside.ask(seconds))
    await asyncio.sleep(8)
    held = server.rss_mb()
    await asyncio.wait(holding, timeout=seconds)
    await asking
    stalled_before = server.rss_mb()
    readers = [_stall(server.port) for _ in range(_STALLED)]
    await asyncio.sleep(5)
    stalled = server.rss_mb()
    for reader in readers:
        reader.close()
    return {
        "alone": alone.figures(),
        "beside": beside.figures(),
        "rss_mb": {"before": round(before, 1), "held": round(held, 1), "after": round(stalled_before, 1)},
        "gone_after_s": {kind: clients.gone_after for kind, clients in slow.items()},
        "kib_per_stalled_reader": round((stalled - stalled_before) * 1e6 / 1024 / _STALLED, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=45.0)
    chosen = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, simulator() as upstream:
        environment = gateway_environment(upstream.port) | {
            "GATEWAY_PORT": str(port),
            "GATEWAY_JOURNAL": str(Path(folder) / "journal.db"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        command = [sys.executable, "-m", "gateway_middleware", "serve"]
        with process("serve", command, port, "0", environment) as server:
            figures = asyncio.run(run(server, chosen.connections, chosen.seconds))
    print(json.dumps(figures, indent=2))
    gone = figures["gone_after_s"]
    assert isinstance(gone, dict)
    return 0 if all(gone.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
