"""The retry budget of a replica, and the backoff before a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.breaker.state.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Clock

_REQUEST, _RETRY = 0, 1
_MAX_POWER = 30


class RetryBudget:
    """Asking a deployment again is at most a `ratio` of the requests of the last `seconds`.

    While there are fewer than `min_requests` a ratio says nothing: then `max_concurrent` retries may be under way at
    once. Above that the ratio alone decides, or quick failures would pass through the free places without end.
    """

    __slots__ = ("_clock", "_max_concurrent", "_min_requests", "_ratio", "_under_way", "_window")

    def __init__(
        self,
        clock: Clock,
        *,
        ratio: float = 0.2,
        seconds: float = 10.0,
        max_concurrent: int = 3,
        min_requests: int = 50,
    ) -> None:
        self._clock = clock
        self._ratio = ratio
        self._max_concurrent = max_concurrent
        self._min_requests = min_requests
        self._window = Window(seconds, columns=2)
        self._under_way = 0

    def count_request(self) -> None:
        """A client's call begins: once for each, before its first attempt."""
        self._window.add(self._clock(), _REQUEST)

    @property
    def has_room(self) -> bool:
        """Whether a further attempt may be made."""
        self._window.advance(self._clock())
        requests, retries = self._window.totals
        is_spare = requests < self._min_requests and self._under_way < self._max_concurrent
        return retries + 1 <= self._ratio * requests or is_spare

    def begin_retry(self) -> bool:
        """A further attempt begins, if it may. If so, `end_retry` must follow when it is over."""
        if not self.has_room:
            return False
        self._window.add(self._clock(), _RETRY)
        self._under_way += 1
        return True

    def end_retry(self) -> None:
        """The further attempt is over."""
        self._under_way -= 1


def backoff(retry: int, random: Callable[[], float], *, base: float = 0.25, cap: float = 8.0) -> float:
    """Seconds to wait before the same deployment is asked again: full jitter. `retry` counts from 0."""
    return random() * min(cap, base * 2.0 ** min(retry, _MAX_POWER))
