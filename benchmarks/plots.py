"""`python -m benchmarks plots [name ...]`: pictures for `docs/pictures`, named `cost-{name}.png` (extra `bench`).

All of them show the gateway with everything on, and nginx in the same run where it has a part in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

try:
    import matplotlib as mpl
except ModuleNotFoundError:
    raise SystemExit("pictures need matplotlib: pip install -e '.[bench]'") from None

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import bench, figures, load, redis_server, rows, servers
from benchmarks.bench import Bench, Side, at_gateway, cpu_us, p50_ms, rate
from benchmarks.servers import KEY
from benchmarks.wrk import Job
from gateway_middleware.tenancy.keys import digest

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
COLORS = {"gateway": "#1f5fbf", "nginx": "#8a8a8a", "light": "#9dbbe3"}
OFF: dict[str, dict[str, str | None]] = {
    "everything on": {},
    "without journal": {"GATEWAY_JOURNAL": "off"},
    "... and limits": {"GATEWAY_TENANTS": json.dumps({"bench": {"keys": [digest(KEY.encode())]}})},
    "... and breakers": {"GATEWAY_BREAKER": "off"},
    "... and tenants": {"GATEWAY_TENANTS": None, "GATEWAY_OPEN": "true"},
}
"""Layers switched off one after the other; each line adds its changes to those above."""


def axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    label(axis, title, x, y)
    return figure, axis


def label(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(visible=True, axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def lines(axis: Any, xs: Sequence[float], series: dict[str, Sequence[float]], *, log: str = "x") -> None:
    """Lines by name, over all values of x, which are those marked on the axis."""
    for name, ys in series.items():
        axis.plot(xs, ys, marker="o", label=name, color=COLORS.get(name.split()[0], COLORS["gateway"]),
                  linestyle="--" if "p99" in name else "-")  # fmt: skip
    if "x" in log:
        axis.set_xscale("log")
    if "y" in log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xticks(xs, [f"{x:,}" if x < 1_000 else f"{x / 1_000:,g}k" for x in xs])
    axis.minorticks_off()
    if len(series) > 1:
        axis.legend(frameon=False)


def bars(axis: Any, values: dict[str, float], *, digits: int = 0) -> None:
    """Horizontal bars from above, each with its value."""
    colors = [
        COLORS["nginx"] if name == "nginx" else COLORS["light"] if " only" in name else COLORS["gateway"]
        for name in values
    ]
    drawn = axis.barh(list(values), list(values.values()), color=colors)
    axis.bar_label(drawn, fmt=f"{{:,.{digits}f}}", padding=3)
    axis.xaxis.set_major_formatter(f"{{x:,.{digits}f}}")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.12)


def layers(running: Bench) -> Any:
    """CPU of a call with the layers switched off one after the other."""
    values: dict[str, float] = {}
    changes: dict[str, str | None] = {}
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, more in OFF.items():
            changes = changes | more
            sides[name] = at_gateway(stack.enter_context(running.gateway(changes)), "chat")
        for name, title in {"relay": "server and engine only", "echo": "server only"}.items():
            server = stack.enter_context(servers.asgi(name, f"benchmarks.floors:{name}", running.mock.port))
            sides[title] = Side(server, Job())
        sides["nginx"] = running.at_nginx("chat")
        turns = running.in_turns(list(sides.values()), connections=64)
        values = {name: turns.median(cpu_us, n) for n, name in enumerate(sides)}
    figure, axis = axes("CPU of one call, 64 connections", "µs, all threads and processes", "")
    bars(axis, values)
    return figure


def latency(running: Bench) -> Any:
    """Latency at fixed rates of arrivals, from the moment at which each was due."""
    rates = (100, 250, 500, 1_000, 1_500, 2_000)
    series: dict[str, list[float]] = {name: [] for name in ("nginx p50", "nginx p99", "gateway p50", "gateway p99")}
    with running.gateway() as gateway:
        sides = {"nginx": running.at_nginx("chat"), "gateway": at_gateway(gateway, "chat")}
        for arrivals in rates:
            for name, side in sides.items():
                request = load.post(side.job.path, "bench", KEY, body_of(side))
                result = load.open_loop(side.server.port, request, rate=arrivals, seconds=running.seconds)
                series[f"{name} p50"].append(result.quantile(0.5))
                series[f"{name} p99"].append(result.quantile(0.99))
    figure, axis = axes("Latency by rate", "calls a second", "ms")
    lines(axis, rates, dict(series), log="xy")
    return figure


def body_of(side: Side) -> bytes:
    return side.job.body.replace("@MODEL@", side.job.models[0]).encode()


def inflight(running: Bench) -> Any:
    """CPU of a call while many wait 300 ms for their provider."""
    counts = (1, 10, 100, 500, 1_000, 2_000)
    with running.gateway() as gateway:
        sides = [running.at_nginx("slow"), at_gateway(gateway, "slow")]
        turns = [running.in_turns(sides, connections=n, seconds=max(running.seconds, 3)) for n in counts]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    label(left, "CPU of a call that takes 300 ms", "calls in flight", "µs")
    lines(
        left,
        counts,
        {name: [t.median(cpu_us, n) for t in turns] for n, name in enumerate(("nginx", "gateway"))},
        log="xy",
    )
    label(right, "Calls a second", "calls in flight", "")
    lines(
        right,
        counts,
        {name: [t.median(rate, n) for t in turns] for n, name in enumerate(("nginx", "gateway"))},
        log="xy",
    )
    return figure


def body(running: Bench) -> Any:
    """CPU of a call by the size of its body."""
    sizes = {"1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
    head, tail = '{"model":"@MODEL@","max_tokens":64,"messages":[{"role":"user","content":"', '"}]}'
    ys: dict[str, list[float]] = {"nginx": [], "gateway": []}
    with running.gateway() as gateway:
        for size in sizes.values():
            text = head + "word " * ((size - len(head) - len(tail)) // 5) + tail
            sides = [
                Side(running.nginx, Job(path="/chat/v1/chat/completions", body=text)),
                Side(gateway, Job(body=text)),
            ]
            turns = running.in_turns(sides, connections=4)
            for n, name in enumerate(ys):
                ys[name].append(turns.median(cpu_us, n))
    figure, axis = axes("CPU of a call by the size of its body", "body", "µs")
    lines(axis, list(sizes.values()), dict(ys), log="xy")
    axis.set_xticks(list(sizes.values()), list(sizes))
    return figure


def tenants(running: Bench) -> Any:
    """CPU of a call, and the start, by the number of tenants; calls are spread over all of them."""
    counts = (1, 100, 1_000, 10_000, 100_000)
    cost, seconds = [], []
    for count in counts:
        with contextlib.ExitStack() as stack:
            gateway = stack.enter_context(running.gateway(rows.tenants_file(stack, count)))
            keys = [rows.tenant_key(n) for n in range(count)]
            cost.append(running.in_turns([Side(gateway, Job(keys=keys))], connections=64).median(cpu_us))
        seconds.append(rows.first_answer(running, count))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    label(left, "CPU of a call, spread over all tenants", "tenants", "µs")
    lines(left, counts, {"gateway": cost})
    label(right, "Start to first answer", "tenants", "s")
    lines(right, counts, {"gateway": seconds})
    return figure


def routes(running: Bench) -> Any:
    """CPU of a call by the number of routes; calls are spread over all of them."""
    counts, cost = (1, 10, 100, 1_000), []
    for count in counts:
        named = {f"alias-{n}": ["chat/gpt-5-mini", "burst/gpt-5-mini"] for n in range(count)}
        with running.gateway({"GATEWAY_ROUTES": json.dumps(named)}) as gateway:
            job = Job(models=[f"alias-{n}" for n in range(count)])
            cost.append(running.in_turns([Side(gateway, job)], connections=64).median(cpu_us))
    figure, axis = axes("CPU of a call by the number of routes", "routes, calls spread over all", "µs")
    lines(axis, counts, {"gateway": cost})
    return figure


def stream(running: Bench) -> Any:
    """CPU of one event by the length of the stream."""
    lengths = (10, 100, 1_000, 10_000)
    ys: dict[str, list[float]] = {"nginx": [], "gateway": []}
    with running.gateway(kinds=["chat", *(f"length{n}" for n in lengths)]) as gateway:
        for length in lengths:
            sides = [running.at_nginx(f"length{length}"), at_gateway(gateway, f"length{length}")]
            turns = running.in_turns(sides, connections=8, seconds=max(running.seconds, 2))
            for n, name in enumerate(ys):
                ys[name].append(turns.median(cpu_us, n) / length)
    figure, axis = axes("CPU of one event, streams that come at once", "events of a stream", "µs")
    lines(axis, lengths, dict(ys), log="xy")
    return figure


def workers(running: Bench) -> Any:
    """One or two workers on one core."""
    with running.gateway() as one, running.gateway({"GATEWAY_WORKERS": "2"}) as two:
        turns = running.in_turns([at_gateway(one, "chat"), at_gateway(two, "chat")], connections=64)
    figure, axis = plt.subplots(figsize=(6.4, 2.2), layout="constrained")
    label(axis, "CPU of one call: workers that share a core", "µs, all processes", "")
    bars(axis, {"1 worker": turns.median(cpu_us, 0), "2 workers": turns.median(cpu_us, 1)})
    return figure


def redis(running: Bench) -> Any:
    """With and without Redis."""
    with redis_server.redis_server() as uri, running.gateway() as alone:
        with running.gateway({"GATEWAY_STORAGE_URI": uri}) as shared:
            sides = [at_gateway(alone, "chat"), at_gateway(shared, "chat")]
            many, one = (running.in_turns(sides, connections=n) for n in (64, 1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 2.6), layout="constrained")
    label(left, "CPU of a call, 64 connections", "µs", "")
    bars(left, {"memory": many.median(cpu_us, 0), "Redis": many.median(cpu_us, 1)})
    label(right, "One connection, p50", "ms", "")
    bars(right, {"memory": one.median(p50_ms, 0), "Redis": one.median(p50_ms, 1)}, digits=2)
    return figure


PLOTS: dict[str, Callable[[Bench], Any]] = {
    plot.__name__: plot for plot in (layers, latency, inflight, body, tenants, routes, stream, workers, redis)
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks plots", description=__doc__)
    parser.add_argument("plots", nargs="*", metavar="plot", help=f"of {', '.join(PLOTS)}")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    if unknown := set(options.plots) - set(PLOTS):
        parser.error(f"no plot {', '.join(sorted(unknown))}; there are {', '.join(PLOTS)}")
    with bench.started(options.seconds, options.repeat) as running:
        for name in options.plots or PLOTS:
            figure = PLOTS[name](running)
            figure.text(0.995, -0.03, figures.machine(), ha="right", fontsize=6, color="#666666")
            figure.savefig(options.folder / f"cost-{name}.png", dpi=110, bbox_inches="tight")
            print(options.folder / f"cost-{name}.png", flush=True)
