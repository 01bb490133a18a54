"""Cooldowns as the fleet knows them, and those that Redis has still to be told of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway_middleware.breaker.peers.messages import Cooled, writable
from gateway_middleware.core.domain import Clock, provider_of

_MAX_AT_ONCE = 200
_MAX_NAME = 512
_SAME_SECONDS = 0.1
"""Deadlines that differ by less are one."""


class SharedCooldowns:
    """The latest deadline of each. Not more than `max_entries` wait; then the oldest is dropped, and counted."""

    __slots__ = ("_clock", "_known", "_max_entries", "_waiting", "dropped")

    def __init__(self, clock: Clock, *, max_entries: int = 2048) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._known: dict[Cooled, float] = {}
        self._waiting: dict[Cooled, float] = {}
        self.dropped = 0

    def put(self, deployment: str | None, credential: str, seconds: float, *, why: str | None = None) -> None:
        """This replica leaves it alone for `seconds`, `why` is the class. Names beyond all measure are not shared."""
        if max(len(deployment or ""), len(credential)) > _MAX_NAME:
            self.dropped += 1
            return
        cooled = (None if deployment is None else writable(deployment), writable(credential), why)
        until = self._clock() + seconds
        self._put(self._known, cooled, until)
        self.dropped += self._put(self._waiting, cooled, until)

    def take(self) -> list[tuple[Cooled, float]]:
        """What is to be told next, with the seconds that are left of it: a handful at a time."""
        now = self._clock()
        taken = [(cooled, self._waiting.pop(cooled)) for cooled in list(self._waiting)[:_MAX_AT_ONCE]]
        left = [(cooled, until - now) for cooled, until in taken if until > now]
        return left if left or not self._waiting else self.take()

    def put_back(self, cooldowns: Sequence[tuple[Cooled, float]]) -> None:
        """They could not be told."""
        now = self._clock()
        for cooled, seconds in cooldowns:
            if cooled not in self._waiting:
                self.dropped += self._put(self._waiting, cooled, now + seconds)

    def learn(self, cooldowns: Iterable[tuple[Cooled, float]]) -> list[tuple[Cooled, float]]:
        """All that stand in Redis, in seconds. Returns those that hold longer than was known here, the longest last."""
        now = self._clock()
        standing = {cooled: now + seconds for cooled, seconds in cooldowns if seconds > 0}
        new = [each for each, until in standing.items() if self._known.get(each, 0.0) + _SAME_SECONDS < until]
        self._known = {**standing, **self._waiting}
        return [(cooled, standing[cooled] - now) for cooled in sorted(new, key=standing.__getitem__)]

    def forget(self, key: str) -> None:
        """A reset of a deployment, or of a provider with all its deployments; the credential's goes with either."""
        for cooldowns in (self._known, self._waiting):
            for cooled in [cooled for cooled in cooldowns if _is_below(cooled, key)]:
                del cooldowns[cooled]

    def repeat(self) -> None:
        """Tell everything that is known again."""
        now = self._clock()
        self._waiting = {**{cooled: until for cooled, until in self._known.items() if until > now}, **self._waiting}

    def _put(self, cooldowns: dict[Cooled, float], cooled: Cooled, until: float) -> bool:
        """Returns whether another one had to go."""
        cooldowns.pop(cooled, None)
        cooldowns[cooled] = until
        if len(cooldowns) <= self._max_entries:
            return False
        del cooldowns[next(iter(cooldowns))]
        return True


def _is_below(cooled: Cooled, key: str) -> bool:
    deployment, credential, _ = cooled
    if deployment is None:
        return provider_of(credential) == key.partition("/")[0]
    return deployment == key or deployment.startswith(f"{key}/")
