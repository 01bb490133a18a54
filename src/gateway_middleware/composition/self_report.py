"""What this process says of itself for `/v1/admin/status`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gateway_middleware.core.domain import Tenant
from gateway_middleware.operations.fleet_status import MAX_TENANTS
from gateway_middleware.operations.process_report import ProcessReport, ProviderReport, SpendReport, TenantReport

if TYPE_CHECKING:
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.limits import Limits
    from gateway_middleware.composition.metering import Metering, MeteringOff
    from gateway_middleware.composition.recent import Recent
    from gateway_middleware.composition.stats import Stats
    from gateway_middleware.composition.tenants import Tenants
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.edge.in_flight import InFlight

_SPEND_SECONDS = 5.0


class SelfReport:
    """Makes reports of this process. `health` is the document of `/v1/health`, `journal` tells journals apart."""

    def __init__(
        self,
        *,
        config: LiveConfig,
        breakers: Operator,
        limits: Limits,
        metering: Metering | MeteringOff,
        stats: Stats,
        recent: Recent,
        tenants: Tenants,
        in_flight: InFlight,
        health: Callable[[], dict[str, Any]],
        phase: Callable[[], str],
        journal: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._config = config
        self._breakers = breakers
        self._limits = limits
        self._metering = metering
        self._stats = stats
        self._recent = recent
        self._tenants = tenants
        self._in_flight = in_flight
        self._health = health
        self._phase = phase
        self._journal = journal
        self._clock = clock
        self._spend: SpendReport | None = None
        self._spend_at = -_SPEND_SECONDS

    async def make(self, *, also: Iterable[str] | None = None) -> ProcessReport:
        """The report. `also` names tenants that other processes know; None: another process asks.

        What a shared store counts is the same for every process: then only the one that puts all together looks.
        """
        health = self._health()
        tenants, others = await self._tenant_reports(also)
        return ProcessReport(
            phase=self._phase(),
            uptime_seconds=health["uptime_seconds"],
            problems=[{"kind": p.kind, "name": p.name, "message": p.message} for p in health["problems"]],
            calls_in_flight=self._in_flight.calls,
            loop_lag_seconds=round(self._stats.lag.seconds, 4),
            limits=health["limits"],
            metering=health["metering"],
            providers={name: self._provider(name) for name in self._config.provider_names},
            tenants=tenants,
            other_tenants=others,
            events=self._recent.events(),
            errors=self._recent.errors(),
            spend=await self._spend_today(),
        )

    def _provider(self, name: str) -> ProviderReport:
        breakers, recent = self._breakers.status(name), self._stats.providers.recent
        keys = {key for key in breakers["circuit_breakers"] if key.startswith(f"{name}/")}
        models = sorted({*self._stats.providers.models(name), *(key.partition("/")[2] for key in keys)})
        return ProviderReport(
            kind=self._config.providers[name].kind,
            breakers=breakers,
            last_minute=recent.provider_counts(name),
            deployments={f"{name}/{model}": recent.deployment_counts(name, model) for model in models},
            samples=self._stats.history.of(name),
        )

    async def _tenant_reports(self, also: Iterable[str] | None) -> tuple[dict[str, TenantReport], int]:
        admitted, refused = self._decisions()
        known = {*admitted, *self._tenants.names(), *(also or ())}
        shown = sorted(known, key=lambda name: (-refused[name], -admitted[name], name))[:MAX_TENANTS]
        rows = await self._limit_rows(shown, looks=also is not None or self._limits.health()["store"] != "shared")
        reports = {
            name: TenantReport(limits=limits, admitted=admitted[name], refused=refused[name])
            for name, limits in zip(shown, rows, strict=True)
        }
        return reports, len(known) - len(shown)

    def _decisions(self) -> tuple[Counter[str], Counter[str]]:
        """How often calls of each tenant were let pass and refused: by its busiest limit."""
        admitted: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for (tenant, _), counts in self._limits.calls.counters.counts().items():
            admitted[tenant] = max(admitted[tenant], counts.admitted)
            refused[tenant] += counts.refused
        return admitted, refused

    async def _limit_rows(self, names: Sequence[str], *, looks: bool) -> list[list[dict[str, Any]]]:
        if not looks:
            return [[] for _ in names]
        return await asyncio.gather(*(self._limits.of_tenant(Tenant(name=name)) for name in names))

    async def _spend_today(self) -> SpendReport | None:
        """None where nothing is metered, or the journal cannot be read now."""
        if self._clock() - self._spend_at >= _SPEND_SECONDS and self._health()["metering"] is not None:
            self._spend_at = self._clock()
            try:
                document = await self._metering.reconcile(None, None)
            except (OSError, sqlite3.Error):
                self._spend = None
            else:
                self._spend = _spend_of(document, self._journal())
        return self._spend


def _spend_of(document: dict[str, Any], journal: str) -> SpendReport:
    totals = document["totals"]
    return SpendReport(
        journal=journal,
        costs={row.tenant: row.cost for row in totals},
        calls=sum(row.closed + row.orphaned for row in totals),
        unpriced=sum(row.unpriced for row in totals),
    )
