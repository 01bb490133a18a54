"""How each provider did over the last quarter of an hour: a sample of its last minute, every ten seconds."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.operations.recent_stats import Counts, quantile_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway_middleware.core.domain import Clock

SAMPLE_SECONDS = 10
SAMPLES = 90


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The minute before `at` (Unix time, a multiple of ten seconds). Quantiles are None without traffic."""

    at: int
    attempts: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None


class ProviderHistory:
    """Takes a sample of every provider at each full ten seconds of the day, so that those of processes fit together.

    `providers` names those of now, `last_minute` counts one's attempts.
    """

    def __init__(
        self, providers: Callable[[], Iterable[str]], last_minute: Callable[[str], Counts], *, wall: Clock
    ) -> None:
        self._providers = providers
        self._last_minute = last_minute
        self._wall = wall
        self._samples: dict[str, deque[Sample]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        wait = SAMPLE_SECONDS - self._wall() % SAMPLE_SECONDS
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def of(self, provider: str) -> list[Sample]:
        """The samples of a provider, oldest first."""
        return list(self._samples.get(provider, ()))

    def sample(self) -> None:
        """Take one of each provider; those that are configured no more are forgotten."""
        at = round(self._wall() / SAMPLE_SECONDS) * SAMPLE_SECONDS
        before = self._samples
        self._samples = {name: before.get(name) or deque(maxlen=SAMPLES) for name in self._providers()}
        for name, samples in self._samples.items():
            counts = self._last_minute(name)
            p50, p95 = (quantile_ms(counts, q) for q in (0.5, 0.95))
            samples.append(Sample(at, counts.attempts, counts.errors, p50, p95))

    def _tick(self) -> None:
        self.sample()
        self.start()
