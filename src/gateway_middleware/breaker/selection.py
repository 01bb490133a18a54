"""In which order a call tries the deployments of its route."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import TypeAlias

from gateway_middleware.core.bounded import make_room
from gateway_middleware.core.domain import Balance, Clock, Deployment, Route

Groups: TypeAlias = "tuple[tuple[Deployment, ...], ...]"
"""Deployments of equal priority, best group first."""


def group(deployments: Iterable[Deployment]) -> Groups:
    """By priority, lowest first; their order inside a group is kept."""
    ranked = sorted(deployments, key=lambda deployment: deployment.priority)
    return tuple(tuple(members) for _, members in itertools.groupby(ranked, key=lambda deployment: deployment.priority))


def in_turn(groups: Groups) -> list[Deployment]:
    """The order in which they are written."""
    return [deployment for members in groups for deployment in members]


def by_weight(groups: Groups, random: Callable[[], float]) -> list[Deployment]:
    """By chance: each place goes to one of the rest in proportion to its weight (Efraimidis and Spirakis, 2006)."""
    return _ordered(groups, lambda deployment: _exponential(1.0 - random(), deployment.weight))


def by_affinity(groups: Groups, key: bytes) -> list[Deployment]:
    """The same order for the same key, so that the provider's prompt cache stays warm.

    Weighted rendezvous hashing: when a deployment comes or goes, only its own keys move.
    """
    short = key if len(key) <= blake2b.MAX_KEY_SIZE else blake2b(key).digest()
    return _ordered(groups, lambda deployment: rendezvous(short, deployment.key, deployment.weight))


def rendezvous(key: bytes, name: str, weight: float) -> float:
    """The rank of a name for this key (at most 64 bytes): of several names the least is the choice of the key."""
    return _exponential(_chance(key, name), weight)


def by_latency(groups: Groups, latencies: Latencies) -> list[Deployment]:
    """The quickest first. One that was not measured lately counts as quick until the contrary is known."""
    return _ordered(groups, lambda deployment: latencies.cost(deployment.key) / max(deployment.weight, 1e-9))


def affinity_key(tenant: str, *, cache_key: bytes | None, prompt: bytes, prefix: int = 1024) -> bytes:
    """What makes two calls want the same deployment: the tenant with its `prompt_cache_key`, or the prompt's start."""
    kind, rest = (b"k", cache_key) if cache_key is not None else (b"p", prompt[:prefix])
    owner = tenant.encode()
    return blake2b(b"%d:%b%b%b" % (len(owner), owner, kind, rest), digest_size=16).digest()


def _ordered(groups: Groups, rank: Callable[[Deployment], float]) -> list[Deployment]:
    if all(len(members) == 1 for members in groups):
        return in_turn(groups)
    return [deployment for members in groups for deployment in _sorted(members, rank)]


def _sorted(members: Sequence[Deployment], rank: Callable[[Deployment], float]) -> Sequence[Deployment]:
    return members if len(members) == 1 else sorted(members, key=rank)


def _exponential(chance: float, weight: float) -> float:
    """An exponential variate of this rate from an even one in (0, 1]: the smallest wins in proportion to the rates."""
    return -math.log(chance) / weight if weight > 0 else math.inf


def _chance(key: bytes, deployment: str) -> float:
    number = int.from_bytes(blake2b(deployment.encode(), key=key, digest_size=8).digest(), "big")
    return (number + 1) / (2**64 + 1)


class Selector:
    """Puts the deployments of a route into the order that its `balance` asks for."""

    __slots__ = ("_random", "latencies")

    def __init__(self, latencies: Latencies, random: Callable[[], float]) -> None:
        self.latencies = latencies
        self._random = random

    def order(self, route: Route, affinity: bytes | None) -> list[Deployment]:
        """Best first. Without `affinity` a route that balances by it is balanced by weight."""
        deployments = route.deployments
        if route.balance is Balance.ORDER or len(deployments) == 1:
            return list(deployments)
        groups = group(deployments)
        if route.balance is Balance.LATENCY:
            return by_latency(groups, self.latencies)
        return by_weight(groups, self._random) if affinity is None else by_affinity(groups, affinity)


class _Latency:
    __slots__ = ("measured", "seconds", "under_way")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.measured = -math.inf
        self.under_way = 0


class Latencies:
    """Peak EWMA of the time to first content, by deployment: it rises at once and falls slowly.

    The cost grows with the calls under way and fades with time, so that a slow deployment is asked again. `memory`
    is the time constant in seconds.
    """

    __slots__ = ("_clock", "_latencies", "_max_deployments", "_memory")

    def __init__(self, clock: Clock, *, memory: float = 30.0, max_deployments: int = 2048) -> None:
        self._clock = clock
        self._memory = memory
        self._latencies: dict[str, _Latency] = {}
        self._max_deployments = max_deployments

    def begin(self, key: str) -> None:
        """An attempt begins; `end` must follow."""
        latency = self._latencies.get(key)
        if latency is None:
            latency = self._add(key)
        latency.under_way += 1

    def end(self, key: str, seconds: float | None = None) -> None:
        """The attempt has shown its first content after so many seconds, or has ended without any (None)."""
        latency = self._latencies.get(key)
        if latency is None:
            return
        latency.under_way = max(latency.under_way - 1, 0)
        if seconds is not None:
            self._measure(latency, seconds)

    def cost(self, key: str) -> float:
        """Seconds, more or less: only good for comparing."""
        latency = self._latencies.get(key)
        if latency is None:
            return 0.0
        return latency.seconds * self._fading(latency) + (latency.seconds or 1.0) * latency.under_way

    def _measure(self, latency: _Latency, seconds: float) -> None:
        weight = self._fading(latency)
        average = latency.seconds * weight + seconds * (1.0 - weight)
        latency.seconds, latency.measured = max(seconds, average), self._clock()

    def _fading(self, latency: _Latency) -> float:
        return math.exp((latency.measured - self._clock()) / self._memory)

    def _add(self, key: str) -> _Latency:
        idle = (name for name, latency in self._latencies.items() if not latency.under_way)
        make_room(
            self._latencies, self._max_deployments, rank=lambda name: self._latencies[name].measured, candidates=idle
        )
        latency = self._latencies[key] = _Latency()
        return latency
