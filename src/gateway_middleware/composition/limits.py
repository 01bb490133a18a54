"""Rate limiting, put together from settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.composition.assembly import make_quotas
from gateway_middleware.limiting.counters import Tally
from gateway_middleware.limiting.estimate import Estimator
from gateway_middleware.limiting.middleware import CallLimits
from gateway_middleware.limiting.overview import overview
from gateway_middleware.limiting.per_key import make_store
from gateway_middleware.limiting.queue.waiting import WaitingRoom
from gateway_middleware.limiting.quota import Quotas
from gateway_middleware.limiting.reservation import Limiter
from gateway_middleware.limiting.store.fallback import OutageStore
from gateway_middleware.limiting.ticker import Ticker
from gateway_middleware.operations.limit_metrics import LimitMetrics
from gateway_middleware.operations.metric import Aggregation, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from gateway_middleware.core.domain import Clock, Tenant
    from gateway_middleware.edge.access_log import AccessLog
    from gateway_middleware.limiting.limit import Standing
    from gateway_middleware.limiting.middleware import Pricing
    from gateway_middleware.limiting.store.fallback import StoreChange
    from gateway_middleware.settings import Settings

STORAGE_DEGRADED = Gauge(
    "model_gateway_storage_degraded",
    "1 while the shared store of limits is out.",
    aggregation=Aggregation.MAX,
)
STORAGE_FAILURES = Counter("model_gateway_storage_failures", "Failures of the shared store.")
LEASES = Gauge("model_gateway_concurrency_leases", "Slots held by live calls.", aggregation=Aggregation.SUM)
QUEUE_DEPTH = Gauge("model_gateway_queue_depth", "Calls that wait for a slot.", aggregation=Aggregation.SUM)


class Limits:
    """The parts of rate limiting of one gateway, and what is told of them."""

    def __init__(
        self, settings: Settings, *, log: AccessLog, clock: Clock, wall: Clock, pricing: Pricing | None = None
    ) -> None:
        self._log = log
        self._store = make_store(
            settings.storage_uri.reveal(), clock=clock, wall=wall, weight=settings.workers, on_change=self._note_change
        )
        limiter = Limiter(self._store)
        self.metrics = LimitMetrics(lambda: self.calls.tally.counts(), self._families)
        self._room = None
        if settings.queue_seconds is not None:
            self._room = WaitingRoom(limiter, max_wait=settings.queue_seconds)
        self.calls = CallLimits(
            quotas=Quotas(**make_quotas(settings)),
            limiter=limiter,
            estimator=Estimator(),
            ticker=Ticker(limiter),
            tally=Tally(on_shadow=self._note_shadow),
            pricing=pricing,
            waiting_room=self._room,
        )

    def start(self) -> None:
        """Begin the housekeeping, in the running event loop."""
        self.calls.ticker.start()

    async def aclose(self) -> None:
        """End the housekeeping; send away who waits."""
        if self._room is not None:
            await self._room.aclose()
        await self.calls.ticker.aclose()

    async def of_tenant(self, tenant: Tenant) -> list[dict[str, Any]]:
        """How the limits of a tenant stand."""
        return await overview(self.calls.quotas, self.calls.limiter, tenant)

    def health(self) -> dict[str, Any]:
        """The part of `/v1/health`."""
        found: dict[str, Any] = {"store": "memory", "waiting": len(self._room.queue) if self._room is not None else 0}
        if isinstance(self._store, OutageStore):
            found["store"] = "degraded" if self._store.is_degraded else "shared"
            found["replicas"] = self._store.replicas
        return found

    def _families(self) -> Iterable[Metric]:
        store, room = self._store, self._room
        outages = store if isinstance(store, OutageStore) else None
        yield STORAGE_DEGRADED.family(0 if outages is None else outages.is_degraded)
        yield STORAGE_FAILURES.family(0 if outages is None else outages.failures)
        yield LEASES.family(self.calls.limiter.leased)
        if room is not None:
            yield QUEUE_DEPTH.family(len(room.queue))

    def _note_change(self, change: StoreChange) -> None:
        what = "out" if change.is_degraded else "back"
        self._log.event(
            "limit_store",
            level="error" if change.is_degraded else "warning",
            message=f"The shared store of limits is {what}: {change.reason}; {change.replicas} live replicas",
            is_degraded=change.is_degraded,
            replicas=change.replicas,
        )

    def _note_shadow(self, tenant: str, standing: Standing) -> None:
        limit = standing.claim.limit
        self._log.event(
            "limit_shadow",
            message=f"Shadow limit: {tenant} would be refused by {limit.phrase} ({limit.name})",
            tenant=tenant,
            limit=limit.name,
        )
