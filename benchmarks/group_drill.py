"""`python -m benchmarks.group_drill`: a group of ten tenants at three replicas under load, never over its limits.

The provider must not have more calls of the group under way than its `concurrency`; and of the calls that were let in
never more than its `requests` can lie between two moments a window apart, by the clock of whoever calls. With `--away
9` Redis answers nobody for nine seconds in the middle.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.key_drill import REPLICAS, Connection, ready, redis_server, serve
from gateway_middleware.simulator import Behaviour, Simulator
from gateway_middleware.tenancy.keys import digest

TENANTS = {f"tenant-{number}": f"the-key-of-tenant-{number}-0123456789" for number in range(10)}
REQUESTS, WINDOW, CONCURRENCY = 150, 5, 12
SECONDS_AT_PROVIDER = 0.05


class Drill:
    """What was seen of the calls that were let in: when each was sent, and when its answer was there."""

    def __init__(self, ports: Sequence[int], seed: int) -> None:
        self._ports = ports
        self._random = random.Random(seed)
        self.statuses: Counter[int] = Counter()
        self.admitted: list[tuple[float, float]] = []
        self.by_tenant: Counter[str] = Counter()

    async def load(self, until: float, number: int) -> None:
        """One connection: a call of some tenant after another."""
        connection = Connection(self._ports[number % len(self._ports)])
        while time.monotonic() < until:
            tenant = self._random.choice(list(TENANTS))
            body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": f"{number} {time.monotonic()}"}]}
            began = time.monotonic()
            status, _ = await connection.ask("POST", "/v1/chat/completions", TENANTS[tenant], body)
            self.statuses[status] += 1
            if status == 200:
                self.admitted.append((began, time.monotonic()))
                self.by_tenant[tenant] += 1
        connection.close()

    def most_within_a_window(self) -> int:
        """Calls that were sent and answered within some window, so that all of them were let in within it."""
        most = 0
        by_start = sorted(self.admitted)
        for number, (began, _) in enumerate(by_start):
            ends = sorted(end for _, end in by_start[number : number + 4 * REQUESTS])
            most = max(most, bisect.bisect_right(ends, began + WINDOW))
        return most


def settings() -> dict[str, str]:
    """The group, and each tenant with more than its share of it."""
    listed = {tenant: {"keys": [digest(key.encode())], "requests": "1000/minute"} for tenant, key in TENANTS.items()}
    group = {"tenants": [*TENANTS], "requests": f"{REQUESTS}/{WINDOW} seconds", "concurrency": CONCURRENCY}
    return {
        "GATEWAY_TENANTS": json.dumps(listed),
        "GATEWAY_GROUPS": json.dumps({"all": group}),
        "GATEWAY_REPLICAS": str(REPLICAS),
    }


@contextlib.contextmanager
def replicas(folder: Path, upstream: str, redis: int) -> Iterator[list[int]]:
    """Their ports."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(serve(folder / str(number), upstream, redis, **settings()))
            for number in range(REPLICAS)
        ]


async def pause(redis: int, after: float, seconds: float) -> None:
    """Redis answers nobody for so long; then it does what it was asked meanwhile."""
    await asyncio.sleep(after)
    _, writer = await asyncio.open_connection("127.0.0.1", redis)
    writer.write(f"CLIENT PAUSE {seconds * 1000:.0f} ALL\r\n".encode())
    await writer.drain()
    writer.close()


async def run(seconds: float, *, connections: int, away: float, folder: Path, seed: int = 1) -> tuple[Drill, int]:
    """The drill, and how many calls the provider had under way at most."""
    with redis_server(folder) as redis:
        async with Simulator(behaviour=Behaviour(ttft=SECONDS_AT_PROVIDER), record=False).serve() as simulator:
            with replicas(folder, simulator.url, redis) as ports:
                for port in ports:
                    await ready(port)
                drill = Drill(ports, seed)
                until = time.monotonic() + seconds
                load = [drill.load(until, number) for number in range(connections)]
                outage = [pause(redis, (seconds - away) / 2, away)] if away else []
                await asyncio.gather(*load, *outage)
            return drill, simulator.simulator.counters.max_in_flight


def main() -> int:
    """Run it and print its figures; 1 where a limit was passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=48)
    parser.add_argument("--away", type=float, default=0.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drill, in_flight = asyncio.run(
            run(args.seconds, connections=args.connections, away=args.away, folder=Path(folder))
        )
    most = drill.most_within_a_window()
    sys.stdout.write(
        f"{sum(drill.statuses.values())} calls in {args.seconds:.0f} s: {dict(drill.statuses)}\n"
        f"let in within {WINDOW} s: {most}, limit {REQUESTS}; under way at once: {in_flight}, limit {CONCURRENCY}\n"
        f"let in in all: {len(drill.admitted)} of {REQUESTS * (args.seconds / WINDOW + 1):.0f} at most; "
        f"of each tenant {min(drill.by_tenant.values())} to {max(drill.by_tenant.values())}\n"
    )
    return 1 if most > REQUESTS or in_flight > CONCURRENCY or set(drill.statuses) - {200, 429} else 0


if __name__ == "__main__":
    sys.exit(main())
