"""What the gateway's own endpoints answer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_middleware._version import __version__
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.operations import documents as operations
from gateway_middleware.operations.admin import Action, BreakerCommands, QueryDocument
from gateway_middleware.operations.exposition import Exposition
from gateway_middleware.operations.worker_metrics import WorkerMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.breaker.peers.sharing import BreakerSharing
    from gateway_middleware.composition.control import Control, Live
    from gateway_middleware.composition.limits import Limits
    from gateway_middleware.composition.metering import Metering
    from gateway_middleware.core.asgi import ASGIApp
    from gateway_middleware.core.domain import Clock, Tenant
    from gateway_middleware.operations.provider_stats import ProviderStats


class Phase(StrEnum):
    """Of a gateway's life."""

    STARTING = "starting"
    SERVING = "ok"
    DRAINING = "draining"


class Documents:
    """Puts together what the rooms tell of themselves."""

    def __init__(
        self,
        *,
        live: Live,
        control: Control,
        operator: Operator,
        provider_stats: ProviderStats,
        limits: Limits,
        metering: Metering | None,
        sharing: BreakerSharing | None,
        collectors: Sequence[Collector],
        phase: Callable[[], Phase],
        clock: Clock,
    ) -> None:
        self._live = live
        self._control = control
        self._operator = operator
        self._provider_stats = provider_stats
        self._limits = limits
        self._metering = metering
        self._sharing = sharing
        self._collectors = [*collectors, limits.metrics, *([] if metering is None else [metering.metrics])]
        self._phase = phase
        self._clock = clock
        self._began = clock()
        folder = live.settings.metrics_directory
        self.workers = None if folder is None else WorkerMetrics(Path(folder), self.families)

    def families(self) -> list[Metric]:
        """The metrics of this process, with everything in them that has ended."""
        self._provider_stats.refresh()
        return [family for collector in self._collectors for family in collector.collect()]

    def endpoints(self) -> Mapping[str, ASGIApp]:
        """The endpoints that are no model calls, by label."""
        return {
            "models": operations.Models(lambda: self._live.table),
            "healthz": operations.Liveness(),
            "readyz": operations.Readiness(self._reason_not_ready),
            "health": operations.Document(lambda _: self._health()),
            "providers": operations.Document(lambda _: self._provider_stats.providers()),
            "provider_status": operations.ProviderStatus(self._provider_stats.provider_status),
            "metrics": Exposition(self.families if self.workers is None else self.workers.collect),
            "usage": operations.TenantUsage(self._usage_of),
            "admin_circuit_breaker": BreakerCommands(self._control.command_breaker),
            "admin_reload": Action(self._control.reload_for),
            "admin_reconcile": QueryDocument(self._reconcile),
        }

    def _reason_not_ready(self) -> str | None:
        phase = self._phase()
        if phase is not Phase.SERVING:
            return phase.value
        return None if self._metering is None else self._metering.reason_not_ready

    def _health(self) -> dict[str, Any]:
        return {
            "status": Phase.DRAINING if self._phase() is Phase.DRAINING else Phase.SERVING,
            "version": __version__,
            "config_hash": self._live.settings.config_hash,
            "uptime_seconds": round(self._clock() - self._began, 1),
            "circuit_breakers": self._operator.circuit_breakers(self._live.provider_names),
            "limits": self._limits.health(),
            "metering": None if self._metering is None else self._metering.health(),
            "sharing": None if self._sharing is None else self._sharing.snapshot(),
        }

    async def _usage_of(self, tenant: Tenant) -> dict[str, Any]:
        found: dict[str, Any] = {"tenant": tenant.name, "limits": await self._limits.of_tenant(tenant)}
        if self._metering is not None:
            found["usage"] = await self._metering.used_by(tenant)
        return found

    async def _reconcile(self, query: Mapping[str, str]) -> dict[str, Any]:
        if self._metering is None:
            raise InvalidRequestError("Metering is off: GATEWAY_JOURNAL.")
        return await self._metering.reconcile(query.get("from"), query.get("to"))
