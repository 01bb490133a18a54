"""Cooldowns as the fleet knows them, and those that Redis has still to be told of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway_middleware.breaker.peers.messages import Pair, writable
from gateway_middleware.core.domain import Clock

_MAX_AT_ONCE = 200
_MAX_NAME = 512
_SAME_SECONDS = 0.1
"""Deadlines that differ by less are one."""


class SharedCooldowns:
    """For each pair the latest deadline. Not more than `max_pairs` wait; then the oldest is dropped, and counted."""

    __slots__ = ("_clock", "_known", "_max_pairs", "_waiting", "dropped")

    def __init__(self, clock: Clock, *, max_pairs: int = 2048) -> None:
        self._clock = clock
        self._max_pairs = max_pairs
        self._known: dict[Pair, float] = {}
        self._waiting: dict[Pair, float] = {}
        self.dropped = 0

    def put(self, deployment: str | None, credential: str, seconds: float) -> None:
        """This replica leaves it alone for `seconds`. Names beyond all measure are not shared."""
        if max(len(deployment or ""), len(credential)) > _MAX_NAME:
            self.dropped += 1
            return
        pair = (None if deployment is None else writable(deployment), writable(credential))
        until = self._clock() + seconds
        self._put(self._known, pair, until)
        self.dropped += self._put(self._waiting, pair, until)

    def take(self) -> list[tuple[Pair, float]]:
        """What is to be told next, with the seconds that are left of it: a handful at a time."""
        now = self._clock()
        taken = [(pair, self._waiting.pop(pair)) for pair in list(self._waiting)[:_MAX_AT_ONCE]]
        left = [(pair, until - now) for pair, until in taken if until > now]
        return left if left or not self._waiting else self.take()

    def put_back(self, cooldowns: Sequence[tuple[Pair, float]]) -> None:
        """They could not be told."""
        now = self._clock()
        for pair, seconds in cooldowns:
            if pair not in self._waiting:
                self.dropped += self._put(self._waiting, pair, now + seconds)

    def learn(self, cooldowns: Iterable[tuple[Pair, float]]) -> list[tuple[Pair, float]]:
        """All that stand in Redis, in seconds. Returns those that hold longer than what was known here."""
        now = self._clock()
        standing = {pair: now + seconds for pair, seconds in cooldowns if seconds > 0}
        new = [p for p, until in standing.items() if self._known.get(p, 0.0) + _SAME_SECONDS < until]
        self._known = {**standing, **self._waiting}
        return [(pair, standing[pair] - now) for pair in new]

    def forget(self, key: str) -> None:
        """A reset of a deployment, or of a provider with all its deployments; the credential's goes with either."""
        for cooldowns in (self._known, self._waiting):
            for pair in [pair for pair in cooldowns if _is_below(pair, key)]:
                del cooldowns[pair]

    def repeat(self) -> None:
        """Tell everything that is known again."""
        now = self._clock()
        self._waiting = {**{pair: until for pair, until in self._known.items() if until > now}, **self._waiting}

    def _put(self, cooldowns: dict[Pair, float], pair: Pair, until: float) -> bool:
        """Returns whether another one had to go."""
        cooldowns.pop(pair, None)
        cooldowns[pair] = until
        if len(cooldowns) <= self._max_pairs:
            return False
        del cooldowns[next(iter(cooldowns))]
        return True


def _is_below(pair: Pair, key: str) -> bool:
    deployment, credential = pair
    if deployment is None:
        return credential == key.partition("/")[0]
    return deployment == key or deployment.startswith(f"{key}/")
