"""`python -m benchmarks.drills`: ten thousand clients that leave, counted.

Clients leave while connecting, before the head and in the middle of streams; some of the upstream's connections never
complete. Then a hundred good calls are made, and sockets, tasks and the provider's side are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import statistics
import time
from pathlib import Path

import uvloop

from benchmarks.load import request_bytes
from benchmarks.servers import KEY, free_port, gateway_environment
from gateway_middleware import Gateway, Settings
from gateway_middleware.app import GatewayApplication
from gateway_middleware.commands.serve import door_limits, make_server
from gateway_middleware.simulator import Simulator
from gateway_middleware.upstream.engine import Engine

WAYS = ("sim-stall", "sim-slow-100", "sim-gap-5:length-200", "sim-stall-2", "nowhere")


async def _leave(port: int, model: str, *, is_stream: bool, after: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes("drill", KEY, model=model, is_stream=is_stream))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(after):
            while await reader.read(65536):
                pass
    writer.transport.abort()


async def _good(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes("drill", KEY))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
    writer.transport.abort()
    return answer.startswith(b"HTTP/1.1 200")


def _black_hole() -> dict[str, str]:
    """A provider whose connections never complete: a listener that accepts nothing, with its backlog full."""
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    _HELD.append(hole)
    for _ in range(2):
        filler = socket.socket()
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(hole.getsockname())
        _HELD.append(filler)
    url = f"http://127.0.0.1:{hole.getsockname()[1]}/v1"
    return {"GATEWAY_PROVIDERS": json.dumps({"hole": {"kind": "openai", "base_url": url, "api_key": "sk-hole"}})}


_HELD: list[object] = []


def _sockets() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def disconnects(count: int, *, seed: int = 1) -> None:
    chance, engine = random.Random(seed), Engine()
    async with Simulator(record=True, capacity=count + 200).serve() as upstream:
        environment = gateway_environment(int(upstream.url.rpartition(":")[2])) | _black_hole()
        gateway = Gateway(Settings.from_env(environment), exchange=engine, write_log=lambda _: None)
        port = free_port()
        server = make_server(
            GatewayApplication(gateway),
            host="127.0.0.1",
            port=port,
            limits=door_limits(gateway.settings),
            drain_seconds=gateway.settings.drain_seconds,
            outbox=gateway.outbox,
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        tasks, sockets = len(asyncio.all_tasks()), _sockets()
        began = time.perf_counter()
        for _ in range(count // 100):
            await asyncio.gather(*(_one(port, chance) for _ in range(100)))
        took = time.perf_counter() - began
        last = time.perf_counter()
        while upstream.simulator.counters.in_flight and time.perf_counter() - last < 5:
            await asyncio.sleep(0.005)
        released = time.perf_counter() - last
        good = sum(await asyncio.gather(*(_good(port) for _ in range(100))))
        await engine.aclose()
        await asyncio.sleep(0.3)
        print(f"{count} disconnects in {took:.1f} s; the last of them worked off {released * 1000:.0f} ms later")
        print(f"next 100 calls good: {good}; connections left: {engine.open_connections}")
        print(f"tasks {len(asyncio.all_tasks()) - tasks:+d}, sockets {_sockets() - sockets:+d}")
        left = [r for r in upstream.simulator.requests if r.peer_closed_at is not None]
        held = [r.peer_closed_at - r.at for r in left if r.peer_closed_at]
        print(f"{len(left)} calls were left by the gateway, {statistics.median(held):.3f} s (median) and")
        print(f"{max(held):.3f} s (at most) after they reached the provider; their clients stayed up to 0.05 s")
        server.should_exit = True
        await serving


async def _one(port: int, chance: random.Random) -> None:
    way = chance.choice(WAYS)
    model = "hole/any" if way == "nowhere" else way
    await _leave(port, model, is_stream=chance.random() < 0.7, after=chance.random() * 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.drills", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    uvloop.run(disconnects(parser.parse_args().count))


if __name__ == "__main__":
    main()
