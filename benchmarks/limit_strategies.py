"""`python -m benchmarks.limit_strategies`: the window of this gateway beside the strategies of `limits`, in one run.

Speed: microseconds for one decision, at one tenant and at many. Exactness: calls admitted within any window, under a
load of three times the limit around the edge of a window. Redis is measured where `--redis` names one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from unittest import mock

from limits import RateLimitItem, RateLimitItemPerMinute, parse
from limits.aio import strategies
from limits.storage import storage_from_string

from gateway_middleware.limiting.limit import Claim, Limit, limit_key
from gateway_middleware.limiting.notation import concurrency, parse_limit, parse_limits
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.cells import Cells
from gateway_middleware.limiting.store.limits_storage import WindowRateLimiter
from gateway_middleware.limiting.store.memory import MemoryStore

Hit = Callable[[str, int], Awaitable[bool]]
_ITEM: RateLimitItem = RateLimitItemPerMinute(1_000_000_000)


def hits(uri: str, window_uri: str, item: RateLimitItem) -> dict[str, Hit]:
    """One `hit(tenant, cost)` for each strategy."""
    options = {"implementation": "redispy"} if "redis" in uri else {}
    shared = storage_from_string(uri, **options)
    own = storage_from_string(window_uri)
    made = {
        "limits fixed window": strategies.FixedWindowRateLimiter(shared),
        "limits sliding counter": strategies.SlidingWindowCounterRateLimiter(shared),
        "limits moving window": strategies.MovingWindowRateLimiter(shared),
        "this window": WindowRateLimiter(own),  # type: ignore[arg-type]
    }
    return {name: _hit(reservations, item) for name, reservations in made.items()}


def _hit(reservations: strategies.RateLimiter, item: RateLimitItem) -> Hit:
    kind = type(reservations).__name__

    async def hit(tenant: str, cost: int) -> bool:
        return await reservations.hit(item, kind, tenant, cost=cost)

    return hit


async def speed(hit: Hit, tenants: int, cost: int, seconds: float) -> float:
    """Microseconds for one decision, round robin over tenants."""
    names = [f"tenant-{number}" for number in range(tenants)]
    for name in names:
        await hit(name, cost)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for name in names[done % tenants : done % tenants + 64]:
            await hit(name, cost)
            done += 1
    return (time.perf_counter() - started) / done * 1e6


async def exactness(make: Callable[[Callable[[], float]], Hit], limit: int) -> int:
    """The most calls admitted in any minute when three times the limit arrive around the edge of a window."""
    now = 1_800_000_000.0 + 59.8
    moments: list[float] = []
    with mock.patch("time.time", lambda: now):  # noqa: PT008  # it moves
        hit = make(lambda: now)
        for _ in range(3):
            moments += [now for _ in range(limit) if await hit("one", 1)]
            now += 0.4
    return max(sum(start <= moment < start + 60 for moment in moments) for start in moments)


def admission(tenants: int, seconds: float) -> tuple[float, float]:
    """Median and p99 in microseconds of one whole admission: two request limits, tokens and a slot, in one step."""
    limits = [*parse_limits("1000000/second;100000000/hour"), parse_limit("1000000000/minute"), concurrency(1000)]
    reservations = Reservations(MemoryStore())
    plans, taken = [_plan(reservations, f"t{number}", limits) for number in range(tenants)], []
    until = time.perf_counter() + seconds
    for cells in itertools.cycle(plans):
        started = time.perf_counter()
        reservation = reservations.take_planned(cells, tokens=1, spend=0)
        taken.append(time.perf_counter() - started)
        if reservation is not None:
            reservation.end()
        if time.perf_counter() > until:
            break
    taken.sort()
    return taken[len(taken) // 2] * 1e6, taken[int(len(taken) * 0.99)] * 1e6


def _plan(reservations: Reservations, tenant: str, limits: Sequence[Limit]) -> Cells:
    cells = reservations.cells([Claim(limit_key(tenant, limit), limit) for limit in limits])
    if cells is None:
        raise RuntimeError("memory counts whole limits in one process")
    return cells


async def run(tenants: int, seconds: float, redis: str | None) -> None:
    print("microseconds for one decision, in memory")
    print(f"{'strategy':26}{'1 tenant':>12}{f'{tenants:,} tenants':>20}{'cost 1,000':>14}")
    for name, hit in hits("async+memory://", "async+window+memory://", _ITEM).items():
        figures = [await speed(hit, 1, 1, seconds), await speed(hit, tenants, 1, seconds)]
        # One entry for each unit of cost: what the moving window would keep for a limit on tokens.
        figures.append(await speed(hit, 1, 1000, seconds))
        print(f"{name:26}{figures[0]:12.1f}{figures[1]:20.1f}{figures[2]:14.1f}")
    if redis is not None:
        print("the same on Redis")
        for name, hit in hits(f"async+{redis}", f"async+window+{redis}", _ITEM).items():
            print(f"{name:26}{await speed(hit, 1, 1, seconds):12.1f}{await speed(hit, 1000, 1, seconds):20.1f}")
    print("\nmost admitted in any minute, of 300 around the edge of a window, limit 100")
    for name in ("limits fixed window", "limits sliding counter", "limits moving window", "this window"):
        print(f"{name:26}{await exactness(partial(_exact, name), 100):12}")
    median, p99 = admission(100_000, seconds)
    print(f"\none admission of four limits at 100,000 tenants: median {median:.1f} us, p99 {p99:.1f} us")


def _exact(name: str, clock: Callable[[], float]) -> Hit:
    item = parse("100/minute")
    if name != "this window":
        return hits("async+memory://", "async+window+memory://", item)[name]
    limit, store = parse_limit("100/minute"), MemoryStore(clock=clock, wall=clock)

    async def hit(tenant: str, cost: int) -> bool:
        return store.admit([Claim(limit_key(tenant, limit), limit, cost)], b"x").is_admitted

    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--redis", help="redis://127.0.0.1:6379")
    chosen = parser.parse_args()
    asyncio.run(run(chosen.tenants, chosen.seconds, chosen.redis))


if __name__ == "__main__":
    main()
