"""`python -m benchmarks`: floors and gateway side by side on pinned cores, printed as ratios.

Absolute figures belong to the machine; read the ratios. Every scenario interleaves its servers and takes medians.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks import load, servers
from benchmarks.load import Result
from benchmarks.servers import KEY, Server

Row = dict[str, float]


def measure(server: Server, run: Callable[[], Result]) -> tuple[Result, float]:
    """Run load; returns what it saw and the CPU seconds the server used."""
    before = server.cpu_seconds()
    result = run()
    return result, server.cpu_seconds() - before


def plain(server: Server, *, connections: int, seconds: float) -> Row:
    request = load.request_bytes("bench", KEY)
    result, cpu = measure(
        server, lambda: load.closed_loop(server.port, request, connections=connections, seconds=seconds)
    )
    return {
        "rps": result.done / result.seconds,
        "cpu_us": 1e6 * cpu / max(result.done, 1),
        "p50_ms": result.quantile(0.5),
        "p99_ms": result.quantile(0.99),
        "failed": result.failed,
    }


def paced(server: Server, *, rate: float, seconds: float) -> Row:
    request = load.request_bytes("bench", KEY)
    result = load.open_loop(server.port, request, rate=rate, seconds=seconds)
    return {"p50_ms": result.quantile(0.5), "p99_ms": result.quantile(0.99), "failed": result.failed}


def streams(server: Server, *, connections: int, seconds: float) -> Row:
    body = load.request_bytes("bench", KEY, model="sim-gap-20:length-50", is_stream=True)
    result, cpu = measure(
        server,
        lambda: load.closed_loop(
            server.port, body, connections=connections, seconds=seconds, by_first_byte=True, spread=1.0
        ),
    )
    return {
        "events/s": result.events / result.seconds,
        "cpu_us": 1e6 * cpu / max(result.events, 1),
        "first_p50_ms": result.quantile(0.5),
        "first_p99_ms": result.quantile(0.99),
        "failed": result.failed,
    }


def in_flight(server: Server, *, connections: int, seconds: float) -> Row:
    body = load.request_bytes("bench", KEY, model="sim-slow-500")
    result, cpu = measure(server, lambda: load.closed_loop(server.port, body, connections=connections, seconds=seconds))
    return {
        "rps": result.done / result.seconds,
        "cpu_us": 1e6 * cpu / max(result.done, 1),
        "p99_ms": result.quantile(0.99),
        "rss_mb": server.rss_mb(),
        "failed": result.failed,
    }


def start_time() -> float:
    """Seconds from the start of `serve` to its first answered call."""
    with servers.simulator() as upstream:
        port = servers.free_port()
        env = {**os.environ, **servers.gateway_environment(upstream.port), "GATEWAY_PORT": str(port)}
        began = time.perf_counter()
        gateway = subprocess.Popen(
            ["taskset", "-c", servers.SERVER_CORE, sys.executable, "-m", "gateway_middleware", "serve"],
            env=env, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        servers.wait_for(port)
        result = load.closed_loop(port, load.request_bytes("bench", KEY), connections=1, seconds=0.001)
        took = time.perf_counter() - began
        gateway.terminate()
        gateway.wait(10)
        assert result.done, "the gateway did not answer"
        return took


SCENARIOS: dict[str, tuple[str, Callable[[Server, float], Row]]] = {
    "c64": ("not streaming, 64 connections", lambda s, t: plain(s, connections=64, seconds=t)),
    "c1": ("not streaming, 1 connection", lambda s, t: plain(s, connections=1, seconds=t)),
    "open": ("not streaming, 1,000 arrivals a second", lambda s, t: paced(s, rate=1000, seconds=t)),
    "streams": ("100 paced streams, 20 ms between events", lambda s, t: streams(s, connections=100, seconds=t)),
    "inflight": ("1,000 in flight, upstream takes 500 ms", lambda s, t: in_flight(s, connections=1000, seconds=t)),
}


def translated(server: Server, seconds: float, repeat: int) -> dict[str, Row]:
    """Bursts of 200 events: relayed in the provider's own dialect, and translated, in turns at one gateway."""
    rows: dict[str, list[Row]] = {name: [] for name in load.STREAMS}
    for _ in range(repeat):
        for name, (path, body) in load.STREAMS.items():
            request = load.post(path, "bench", KEY, body)
            run = partial(load.closed_loop, server.port, request, connections=16, seconds=seconds, by_first_byte=True)
            result, cpu = measure(server, run)
            per_call = 1e6 * cpu / max(result.done, 1)
            row = {"events/call": result.events / max(result.done, 1), "cpu_us/call": per_call}
            row |= {
                "cpu_us": per_call / load.STREAM_LENGTH,
                "first_p50_ms": result.quantile(0.5),
                "failed": result.failed,
            }
            rows[name].append(row)
    return {name: medians(samples) for name, samples in rows.items()}


def medians(rows: list[Row]) -> Row:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def report(title: str, rows: dict[str, Row], *, by: str = "nginx") -> None:
    """Print rows; the last column is the CPU as a ratio to that of the row named `by`."""
    print(f"\n{title}")
    names = list(next(iter(rows.values())))
    print("  " + f"{'':>22}" + "".join(f"{n:>14}" for n in [*names, f"cpu x {by}"]))
    floor = rows.get(by, {}).get("cpu_us")
    for server, row in rows.items():
        ratio = f"{row['cpu_us'] / floor:14.2f}" if floor and "cpu_us" in row else " " * 14
        print("  " + f"{server:>22}" + "".join(f"{row[n]:14.2f}" for n in names) + ratio)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", default=list(SCENARIOS), help=f"of {', '.join(SCENARIOS)}, translated, start"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each server, interleaved")
    parser.add_argument("--servers", default="echo,relay,nginx,gateway")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(servers.LOAD_CORE)})
    print(f"Python {sys.version.split()[0]}, server on core {servers.SERVER_CORE}, upstream and load on the other")
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(servers.simulator())
        running = {}
        for name in options.servers.split(","):
            if name == "nginx":
                running[name] = stack.enter_context(servers.nginx(upstream.port))
            else:
                factory = {
                    "echo": "benchmarks.floors:echo",
                    "relay": "benchmarks.floors:relay",
                    "gateway": "gateway_middleware:create_app",
                }[name]
                running[name] = stack.enter_context(servers.asgi(name, factory, upstream.port))
        if "translated" in options.scenarios and "gateway" in running:
            rows_translated = translated(running["gateway"], options.seconds, options.repeat)
            report("bursts of 200 events, translated", rows_translated, by="relayed")
        for scenario in [s for s in options.scenarios if s in SCENARIOS]:
            title, run = SCENARIOS[scenario]
            # The echo has no upstream: it says nothing about streams or about waiting.
            chosen = {n: s for n, s in running.items() if n != "echo" or scenario not in {"streams", "inflight"}}
            rows: dict[str, list[Row]] = {name: [] for name in chosen}
            for _ in range(options.repeat):
                for name, server in chosen.items():
                    rows[name].append(run(server, options.seconds))
            report(title, {name: medians(samples) for name, samples in rows.items()})
    if "start" in options.scenarios or options.scenarios == list(SCENARIOS):
        print(f"\nstart to first served request: {statistics.median(start_time() for _ in range(3)):.2f} s")


if __name__ == "__main__":
    main()
