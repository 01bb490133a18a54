"""What is counted of calls, breakers and the process, for `/metrics` and the documents about providers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_middleware.breaker.failure.rules import ALARMING
from gateway_middleware.composition.breakers import policies_of
from gateway_middleware.composition.part import Fixed
from gateway_middleware.edge.refused_requests import RefusedRequests
from gateway_middleware.operations.attempt_metrics import AttemptMetrics
from gateway_middleware.operations.breaker_metrics import BreakerMetrics
from gateway_middleware.operations.call_metrics import CallMetrics
from gateway_middleware.operations.connection_metrics import InFlightMetrics, LogMetrics, RefusalMetrics
from gateway_middleware.operations.exposition import Exposition
from gateway_middleware.operations.loop_lag import LoopLag
from gateway_middleware.operations.process_metrics import ProcessMetrics
from gateway_middleware.operations.provider_history import ProviderHistory
from gateway_middleware.operations.provider_stats import ProviderStats
from gateway_middleware.operations.sunset_metrics import SunsetMetrics
from gateway_middleware.operations.worker_metrics import WorkerMetrics

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from gateway_middleware.breaker.events import CooldownEvent
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.edge.in_flight import InFlight
    from gateway_middleware.settings import Settings


def settings_in_force(settings: Settings, provider: str) -> dict[str, Any]:
    """Deadlines and breaker numbers of a provider; those that a route or a target sets for itself are not in it."""
    (timeouts,) = (p.timeouts for p in settings.providers if p.name == provider)
    return {"timeouts": timeouts, "circuit_breaker": policies_of(settings)[provider]}


class Stats(Fixed):
    """Counts ended calls and listens to breakers. `collectors` are those of the other parts."""

    def __init__(
        self,
        settings: Settings,
        config: LiveConfig,
        clocks: Clocks,
        *,
        operator: Operator,
        log: Log,
        in_flight: InFlight,
        collectors: Sequence[Collector],
    ) -> None:
        calls = CallMetrics(lambda: config.route_names)
        attempts = AttemptMetrics(lambda: config.route_names, vendor_of=lambda name: config.providers[name].otel_name)
        self._breakers = BreakerMetrics(
            lambda: operator.circuit_breakers(config.provider_names),
            lambda: config.deployment_keys,
            alarm_classes=ALARMING,
            accounts=operator.accounts,
        )
        self.providers = ProviderStats(
            providers=config.configured,
            deployments=lambda: config.deployments,
            breakers=operator.status,
            settings=lambda name: settings_in_force(config.settings, name),
            observers=(calls.observe, attempts.observe, self._breakers.observe),
            clock=clocks.monotonic,
        )
        self.history = ProviderHistory(
            lambda: config.provider_names, lambda name: self.providers.recent.provider_counts(name), wall=clocks.wall
        )
        self.lag = LoopLag()
        process = ProcessMetrics(lambda: config.config_hash)
        lines = LogMetrics(lambda: log.lines.dropped)
        sunsets = SunsetMetrics(config.sunsets)
        self.refused = RefusedRequests(log.lines, clocks.monotonic)
        refused = RefusalMetrics(self.refused.counts)
        under_way = InFlightMetrics(lambda: in_flight.calls)
        own = (calls, attempts, self._breakers, self.lag, process, lines, under_way, refused, sunsets)
        self._collectors = (*own, *collectors)
        folder = settings.metrics_directory
        self._workers = None if folder is None else WorkerMetrics(Path(folder), self.families)
        self.exposition = Exposition(self.families if self._workers is None else self._workers.collect)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Watch the event loop, and share metrics with other workers where there are any."""
        async with AsyncExitStack() as stack:
            self.lag.start()
            stack.callback(self.lag.stop)
            self.history.start()
            stack.callback(self.history.stop)
            if self._workers is not None:
                self._workers.start()
                stack.push_async_callback(self._workers.aclose)
            yield

    def families(self) -> Iterable[Metric]:
        """The metrics of this process, with everything in them that has ended."""
        self.providers.refresh()
        return [family for collector in self._collectors for family in collector.collect()]

    def on_transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        self._breakers.transition(transition.key, transition.after)

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """A provider has asked for time."""
        self._breakers.cooldown(cooldown.credential)
        if cooldown.is_alarming and cooldown.failure_class is not None:
            self._breakers.alarm(cooldown.credential, cooldown.failure_class)
