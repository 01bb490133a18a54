"""The rows of the table: each measures the gateway with everything on, beside nginx where that says something."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks import load, redis_server, servers, wrk
from benchmarks.bench import Bench, Side, at_gateway, cpu_us, p50_ms, p99_ms, rate
from benchmarks.figures import Figure
from benchmarks.limit_strategies import admission
from benchmarks.servers import KEY, LIMITS, Server
from benchmarks.wrk import Job

Row = Callable[[Bench], Iterator[Figure]]


def c64(bench: Bench) -> Iterator[Figure]:
    """One call, 64 connections."""
    with bench.gateway() as gateway:
        turns = bench.in_turns([bench.at_nginx("chat"), at_gateway(gateway, "chat")], connections=64)
    yield Figure(
        "c64", "one call, 64 connections: CPU µs", turns.median(cpu_us), turns.median(cpu_us, 0), turns.ratio(cpu_us),
        floor=95, floor_ratio=6.3, goal=85,
    )  # fmt: skip


def c1(bench: Bench) -> Iterator[Figure]:
    """One connection: what a call waits."""
    with bench.gateway() as gateway:
        turns = bench.in_turns([bench.at_nginx("chat"), at_gateway(gateway, "chat")], connections=1)
    yield Figure(
        "c1", "one connection: p50 ms", turns.median(p50_ms), turns.median(p50_ms, 0), turns.ratio(p50_ms),
        floor_ratio=2.0, goal_ratio=1.7, digits=2,
    )  # fmt: skip


def burst(bench: Bench) -> Iterator[Figure]:
    """Streams that come at once."""
    with bench.gateway() as gateway:
        turns = bench.in_turns([bench.at_nginx("burst"), at_gateway(gateway, "burst")], connections=64)
    yield Figure(
        "burst", "burst of 50 events, 64 connections: CPU µs", turns.median(cpu_us), turns.median(cpu_us, 0),
        turns.ratio(cpu_us), floor=170, floor_ratio=3.6, goal=145,
    )  # fmt: skip


def paced(bench: Bench) -> Iterator[Figure]:
    """Streams whose events come one by one."""
    with bench.gateway() as gateway:
        sides = [bench.at_nginx("paced"), at_gateway(gateway, "paced")]
        turns = bench.in_turns(sides, connections=64, seconds=max(bench.seconds, 4))
    yield Figure(
        "paced", "50 events 5 ms apart, 64 connections: CPU µs", turns.median(cpu_us), turns.median(cpu_us, 0),
        turns.ratio(cpu_us), floor=1_100, floor_ratio=2.0, goal=1_000,
    )  # fmt: skip


def first(bench: Bench) -> Iterator[Figure]:
    """How late the first event of a stream is, from the request on: the provider sends it at once."""

    def p99(side: Side) -> float:
        body = side.job.body.replace("@MODEL@", side.job.models[0]).encode()
        request = load.post(side.job.path, "bench", KEY, body)
        result = load.closed_loop(
            side.server.port, request, connections=100, seconds=max(bench.seconds, 3), by_first_byte=True, spread=1.0
        )
        if result.failed:
            raise RuntimeError(f"{side.server.name}: {result.failed} streams failed")
        return result.quantile(0.99)

    with bench.gateway() as gateway:
        sides = [bench.at_nginx("spaced"), at_gateway(gateway, "spaced")]
        rounds = [[p99(side) for side in sides] for _ in range(bench.repeat)]
    of_nginx, of_gateway = (statistics.median(r[n] for r in rounds) for n in (0, 1))
    yield Figure(
        "first", "100 streams: request to first event, p99 ms", of_gateway, of_nginx, of_gateway / of_nginx,
        floor=10, goal=2, digits=2,
    )  # fmt: skip


def inflight(bench: Bench) -> Iterator[Figure]:
    """A thousand calls that wait for their provider."""
    with bench.gateway() as gateway:
        sides = [bench.at_nginx("slow"), at_gateway(gateway, "slow")]
        turns = bench.in_turns(sides, connections=1000, seconds=max(bench.seconds, 4))
    name = "1,000 in flight x 300 ms"
    yield Figure(
        "inflight", f"{name}: calls/s of 3,333", turns.median(rate), turns.median(rate, 0), turns.ratio(rate),
        floor=3_150, goal=3_250, more_is_better=True,
    )  # fmt: skip
    yield Figure(
        "inflight", f"{name}: p99 ms", turns.median(p99_ms), turns.median(p99_ms, 0), turns.ratio(p99_ms),
        floor=400, goal=350,
    )  # fmt: skip
    yield Figure("inflight", f"{name}: resident MB", turns.median(lambda m: m.rss_mb), floor=90, goal=70)


def redis(bench: Bench) -> Iterator[Figure]:
    """What Redis adds; the ratio is with to without, nginx has no part in it."""
    with redis_server.redis_server() as uri, bench.gateway() as without:
        with bench.gateway({"GATEWAY_STORAGE_URI": uri}) as shared:
            sides = [at_gateway(without, "chat"), at_gateway(shared, "chat")]
            alone = bench.in_turns(sides, connections=1)
            many = bench.in_turns(sides, connections=64)
    yield Figure(
        "redis", "Redis on, one connection: added p50 ms", alone.difference(p50_ms), ratio=alone.ratio(p50_ms),
        floor=0.12, goal=0.08, digits=2,
    )  # fmt: skip
    yield Figure(
        "redis", "Redis on, 64 connections: added CPU µs", many.difference(cpu_us), ratio=many.ratio(cpu_us), floor=8
    )


def translated(bench: Bench) -> Iterator[Figure]:
    """Bursts of 200 events in the client's dialect, against the same relayed as they are."""
    ways = {
        "chat client, Messages provider": ("messages200", "/v1/chat/completions"),
        "Messages client, chat provider": ("burst200", "/v1/messages"),
    }
    with bench.gateway() as gateway:
        for name, (kind, path) in ways.items():
            sides = [at_gateway(gateway, "burst200"), at_gateway(gateway, kind, path=path)]
            turns = bench.in_turns(sides, connections=16)
            yield Figure(
                "translated", f"{name}: CPU µs per event; ratio to relayed", turns.median(cpu_us) / 200,
                ratio=turns.ratio(cpu_us), floor_ratio=2.0, goal_ratio=1.5, digits=1,
            )  # fmt: skip


def limits(bench: Bench) -> Iterator[Figure]:
    """One admission of four limits, in memory."""
    median, _ = admission(100_000, bench.seconds)
    yield Figure("limits", "one decision at 100,000 tenants: µs", median, floor=10, goal=5, digits=1)


def many_tenants(count: int) -> str:
    """`GATEWAY_TENANTS` with so many tenants, the keys of which are those of `tenant_key`."""
    tenants = {
        f"t{n}": {"keys": ["sha256:" + hashlib.sha256(tenant_key(n).encode()).hexdigest()], **LIMITS}
        for n in range(count)
    }
    tenants["bench"] = {"keys": ["sha256:" + hashlib.sha256(KEY.encode()).hexdigest()], **LIMITS}
    return json.dumps(tenants)


def tenant_key(number: int) -> str:
    return f"gw-bench-{number:041d}"


def first_answer(bench: Bench, tenants: int) -> float:
    """Seconds from the start of `serve` with so many tenants to its first good answer."""
    with contextlib.ExitStack() as stack:
        changes = tenants_file(stack, tenants)
        began = time.perf_counter()
        gateway = stack.enter_context(servers.gateway(bench.mock.port, ["chat"], changes))
        body = wrk.BODY.replace("@MODEL@", "chat/gpt-5-mini").encode()
        request = load.post(Job.path, "bench", KEY, body)
        while time.perf_counter() - began < 90:
            with contextlib.suppress(OSError):
                if load.closed_loop(gateway.port, request, connections=1, seconds=0.001).done:
                    return time.perf_counter() - began
        raise TimeoutError("the gateway did not answer")


def tenants_file(stack: contextlib.ExitStack, count: int) -> dict[str, str | None]:
    """Changes of the environment for so many tenants: in a file, since an environment is bounded."""
    folder = stack.enter_context(servers.folder())
    path = folder / "tenants.toml"
    lines = [
        f"[tenants.{name}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in tenant.items())
        for name, tenant in json.loads(many_tenants(count)).items()
    ]
    path.write_text("\n".join(lines))
    return {"GATEWAY_TENANTS": None, "GATEWAY_CONFIG_FILE": str(path)}


def start(bench: Bench) -> Iterator[Figure]:
    """How long a new process takes."""
    for count, floor, goal in ((1, 0.5, 0.25), (100_000, 5, 3)):
        seconds = statistics.median(first_answer(bench, count) for _ in range(3 if count == 1 else 1))
        yield Figure("start", f"start to first answer, tenants {count:,}: s", seconds, floor=floor, goal=goal, digits=2)


def resident(bench: Bench) -> Iterator[Figure]:
    """Memory of the serving process."""
    with servers.gateway(bench.mock.port, ["chat"]) as gateway:
        time.sleep(1)
        yield Figure("resident", "resident, idle: MB", gateway.rss_mb(), floor=60, goal=45)
        ask_for(gateway, 20_000)
        yield Figure("resident", "resident after 20,000 calls: MB", gateway.rss_mb(), floor=70, goal=55)


def ask_for(gateway: Server, calls: int) -> None:
    """Make at least so many calls."""
    done = 0
    while done < calls:
        done += wrk.run(gateway.port, at_gateway(gateway, "chat").job, connections=64, seconds=2).done


def idle(bench: Bench) -> Iterator[Figure]:
    """What a server without calls takes while it holds a hundred thousand events."""
    with servers.gateway(bench.mock.port, ["chat"]) as gateway:
        ask_for(gateway, 100_000)
        gateway.settled_cpu_seconds()
        time.sleep(4)
        before = gateway.cpu_seconds()
        time.sleep(10)
        spent = 1000 * (gateway.cpu_seconds() - before) / 10
    yield Figure("idle", "idle with 100,000 events in the spool: CPU ms/s", spent, floor=3, goal=1, digits=1)


def workers(bench: Bench) -> Iterator[Figure]:
    """Two workers on the core of one; the ratio is two to one, nginx has no part in it."""
    with bench.gateway() as one, bench.gateway({"GATEWAY_WORKERS": "2"}) as two:
        turns = bench.in_turns([at_gateway(one, "chat"), at_gateway(two, "chat")], connections=64)
    yield Figure(
        "workers", "two workers on one core: CPU µs of a call; ratio to one", turns.median(cpu_us),
        ratio=turns.ratio(cpu_us), floor_ratio=1.05, goal_ratio=1.0,
    )  # fmt: skip


ROWS: dict[str, Row] = {
    row.__name__: row
    for row in (c64, c1, burst, paced, first, inflight, redis, translated, limits, start, resident, idle, workers)
}
"""Each row by its name; the docstring says what it measures."""
