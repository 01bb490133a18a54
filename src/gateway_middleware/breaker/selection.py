"""In which order a call tries the deployments of its route."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import TypeAlias

from gateway_middleware.core.bounded import make_room
from gateway_middleware.core.domain import Clock, Deployment

Groups: TypeAlias = "tuple[tuple[Deployment, ...], ...]"
"""Deployments of equal priority, best group first."""


def group(deployments: Iterable[Deployment]) -> Groups:
    """By priority, lowest first; their order inside a group is kept."""
    ranked = sorted(deployments, key=lambda deployment: deployment.priority)
    return tuple(tuple(found) for _, found in itertools.groupby(ranked, key=lambda deployment: deployment.priority))


def in_turn(groups: Groups) -> list[Deployment]:
    """As written."""
    return [deployment for members in groups for deployment in members]


def by_weight(groups: Groups, random: Callable[[], float]) -> list[Deployment]:
    """By chance: each place goes to one of the rest in proportion to its weight (Efraimidis and Spirakis, 2006)."""
    return _ordered(groups, lambda deployment: _lot(1.0 - random(), deployment.weight))


def by_affinity(groups: Groups, key: bytes) -> list[Deployment]:
    """The same order for the same key, so that the provider's prompt cache stays warm.

    Weighted rendezvous hashing: when a deployment comes or goes, only its own keys move.
    """
    short = key if len(key) <= blake2b.MAX_KEY_SIZE else blake2b(key).digest()
    return _ordered(groups, lambda deployment: _lot(_chance(short, deployment.key), deployment.weight))


def by_latency(groups: Groups, latencies: Latencies) -> list[Deployment]:
    """The quickest first. One that was never measured, or not for long, is quick until the contrary is known."""
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


def _lot(chance: float, weight: float) -> float:
    """An exponential variate of this rate from an even one in (0, 1]: the smallest wins in proportion to the rates."""
    return -math.log(chance) / weight if weight > 0 else math.inf


def _chance(key: bytes, deployment: str) -> float:
    number = int.from_bytes(blake2b(deployment.encode(), key=key, digest_size=8).digest(), "big")
    return (number + 1) / (2**64 + 1)


class _Latency:
    __slots__ = ("measured", "seconds", "under_way")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.measured = -math.inf
        self.under_way = 0


class Latencies:
    """Peak EWMA of the time to first content, by deployment: a slow answer counts at once, quick ones by and by.

    The cost grows with the calls under way and fades with time, so that a slow deployment is asked again. `memory`
    is the time constant in seconds.
    """

    __slots__ = ("_clock", "_found", "_memory", "_most")

    def __init__(self, clock: Clock, *, memory: float = 30.0, most: int = 2048) -> None:
        self._clock = clock
        self._memory = memory
        self._found: dict[str, _Latency] = {}
        self._most = most

    def begin(self, key: str) -> None:
        """An attempt begins; `end` must follow."""
        found = self._found.get(key)
        if found is None:
            found = self._add(key)
        found.under_way += 1

    def end(self, key: str, seconds: float | None = None) -> None:
        """The attempt has shown its first content after so many seconds, or has ended without any (None)."""
        found = self._found.get(key)
        if found is None:
            return
        found.under_way = max(found.under_way - 1, 0)
        if seconds is not None:
            self._measure(found, seconds)

    def cost(self, key: str) -> float:
        """Seconds, more or less: only good for comparing."""
        found = self._found.get(key)
        if found is None:
            return 0.0
        return found.seconds * self._fading(found) + (found.seconds or 1.0) * found.under_way

    def _measure(self, found: _Latency, seconds: float) -> None:
        kept = self._fading(found)
        average = found.seconds * kept + seconds * (1.0 - kept)
        found.seconds, found.measured = max(seconds, average), self._clock()

    def _fading(self, found: _Latency) -> float:
        return math.exp((found.measured - self._clock()) / self._memory)

    def _add(self, key: str) -> _Latency:
        idle = (name for name, latency in self._found.items() if not latency.under_way)
        make_room(self._found, self._most, rank=lambda name: self._found[name].measured, candidates=idle)
        found = self._found[key] = _Latency()
        return found
