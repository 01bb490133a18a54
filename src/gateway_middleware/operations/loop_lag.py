"""How late the event loop is: what a callback had to wait beyond its time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from gateway_middleware.operations.metric import Aggregation, Gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

LAG = Gauge(
    "model_gateway_event_loop_lag_seconds", "Largest delay of the event loop in 15 s.", aggregation=Aggregation.MAX
)
_SECONDS = 0.5
_SAMPLES = 30


class LoopLag(Collector):
    """The largest delay of the last fifteen seconds, sampled twice a second."""

    def __init__(self) -> None:
        self._delays: deque[float] = deque([0.0], maxlen=_SAMPLES)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin, in the running event loop."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + _SECONDS
            self._timer = loop.call_at(self._due, self._sample, loop)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._delays.append(max(now - self._due, 0.0))
        self._due = now + _SECONDS
        self._timer = loop.call_at(self._due, self._sample, loop)

    @property
    def seconds(self) -> float:
        """The largest recent delay."""
        return max(self._delays)

    def collect(self) -> Iterable[Metric]:
        """The metric family, for a prometheus_client registry."""
        yield LAG.family(self.seconds)
