"""Rate limiting, put together from settings."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client.core import HistogramMetricFamily

from gateway_middleware.composition.part import Commit
from gateway_middleware.composition.quotas import make_quotas
from gateway_middleware.core.bounded import BoundedNames
from gateway_middleware.limiting.budgets import THRESHOLDS, Budgets
from gateway_middleware.limiting.counters import DecisionCounters, limit_rows
from gateway_middleware.limiting.estimate import Estimator
from gateway_middleware.limiting.middleware import CallLimits
from gateway_middleware.limiting.queue.waiting import WaitingRoom
from gateway_middleware.limiting.quota import Quotas
from gateway_middleware.limiting.reservation import Reservations
from gateway_middleware.limiting.store.fallback import FallbackStore
from gateway_middleware.limiting.store.from_uri import store_from_uri
from gateway_middleware.operations.histogram import Histogram
from gateway_middleware.operations.limit_metrics import LimitMetrics
from gateway_middleware.operations.metric import Aggregation, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from gateway_middleware.composition.keys import RuntimeKeys
    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.limiting.budgets import BudgetReached
    from gateway_middleware.limiting.limit import LimitStatus
    from gateway_middleware.limiting.middleware import Pricing
    from gateway_middleware.limiting.store.fallback import StoreChange
    from gateway_middleware.settings import Settings

STORAGE_DEGRADED = Gauge(
    "model_gateway_storage_degraded",
    "1 while the shared store of limits is out.",
    aggregation=Aggregation.MAX,
)
DEGRADED_DECISIONS = Counter(
    "model_gateway_limit_degraded_decisions", "Calls whose limits were decided without the shared store."
)
STORAGE_FAILURES = Counter("model_gateway_storage_failures", "Failures of the shared store.")
LEASES = Gauge("model_gateway_concurrency_leases", "Slots held by live calls.", aggregation=Aggregation.SUM)
BUDGET_REACHED = Gauge(
    "model_gateway_budget_reached_percent",
    "Highest threshold (50, 80, 100) that the spend of a tenant or group has reached in this period.",
    ("owner", "limit"),
    aggregation=Aggregation.MAX,
)
BUDGET_STEPS = Counter(
    "model_gateway_budget_steps",
    "Calls that went on with a cheaper route (`on_budget`), by that route.",
    ("tenant", "route"),
)
QUEUE_DEPTH = Gauge("model_gateway_queue_depth", "Calls that wait for a slot.", aggregation=Aggregation.SUM)
_LOOK_SECONDS = 1.0
QUEUE_WAIT = "model_gateway_queue_wait_seconds"
WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Limits:
    """Rate limiting of one gateway, and what is told of it."""

    takes = frozenset(
        {"tenants", "groups", "routes", "default_requests", "default_tokens", "default_concurrency", "default_spend"}
    )

    def __init__(
        self,
        settings: Settings,
        clocks: Clocks,
        *,
        log: Log,
        pricing: Pricing,
        keys: RuntimeKeys,
        on_budget: Callable[[BudgetReached], None] = lambda _: None,
    ) -> None:
        self._log = log.lines
        self._wall = clocks.wall
        self._on_budget = on_budget
        self._budgets = Budgets(self._note_budget)
        self._budget_owner = BoundedNames()
        self._store = store_from_uri(
            settings.storage_uri.reveal(),
            clock=clocks.monotonic,
            wall=clocks.wall,
            weight=settings.workers,
            min_replicas=(settings.replicas or 1) * settings.workers,
            on_change=self._note_change,
        )
        reservations = Reservations(self._store)
        self.metrics = LimitMetrics(lambda: self.calls.counters.counts(), self._families)
        self._waits = Histogram(WAIT_BUCKETS)
        self._looking: asyncio.TimerHandle | None = None
        self._room = None
        if settings.queue_seconds is not None:
            self._room = WaitingRoom(reservations, max_wait=settings.queue_seconds, on_wait=self._waits.observe)
        quotas = make_quotas(settings)
        self.calls = CallLimits(
            quotas=Quotas(
                tenants=quotas.tenants,
                default=quotas.default,
                routes=quotas.routes,
                groups=quotas.groups,
                stored=keys.quotas,
                clock=clocks.monotonic,
            ),
            reservations=reservations,
            estimator=Estimator(),
            counters=DecisionCounters(
                on_shadow=self._note_shadow,
                budgets=self._budgets if settings.limits_spend else None,
                on_news=self._look_soon,
            ),
            pricing=pricing,
            waiting_room=self._room,
        )
        keys.subscribe(self.calls.quotas.forget)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Keep house; on the way out send away whoever waits."""
        async with AsyncExitStack() as stack:
            stack.callback(self._look)
            stack.push_async_callback(self.calls.reservations.aclose)
            await self.calls.reservations.open()
            if self._room is not None:
                stack.push_async_callback(self._room.aclose)
            yield

    def _look_soon(self) -> None:
        """Decisions are counted in batches: a budget is told of within a second all the same."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        self.calls.counters.refresh()

    def prepare(self, new: Settings) -> Commit:
        """Other limits; what has been used of them stays counted."""
        quotas = make_quotas(new)
        return lambda: self.calls.quotas.replace(
            tenants=quotas.tenants, default=quotas.default, routes=quotas.routes, groups=quotas.groups
        )

    def collectors(self) -> list[Collector]:
        """The metrics."""
        return [self.metrics]

    async def of_tenant(self, tenant: Tenant, end_user: str | None = None) -> list[dict[str, Any]]:
        """How the limits of a tenant stand, with those of one of its end users."""
        return await limit_rows(self.calls.quotas, self.calls.reservations, tenant, end_user)

    def health(self) -> dict[str, Any]:
        """The part of `/v1/health`."""
        health: dict[str, Any] = {"store": "memory", "waiting": len(self._room.queue) if self._room is not None else 0}
        if isinstance(self._store, FallbackStore):
            health["store"] = "degraded" if self._store.is_degraded else "shared"
            health["replicas"] = self._store.replicas
        return health

    def _families(self) -> Iterable[Metric]:
        store, room = self._store, self._room
        outages = store if isinstance(store, FallbackStore) else None
        yield STORAGE_DEGRADED.family(0 if outages is None else outages.is_degraded)
        yield STORAGE_FAILURES.family(0 if outages is None else outages.failures)
        self.calls.counters.refresh()
        standing = self._budgets.standing(self._wall())
        yield BUDGET_REACHED.family({(self._budget_owner(owner), limit): p for (owner, limit), p in standing.items()})
        yield BUDGET_STEPS.family(self.calls.counters.steps)
        yield DEGRADED_DECISIONS.family(self.calls.counters.degraded_decisions)
        yield LEASES.family(self.calls.reservations.leased)
        yield QUEUE_DEPTH.family(0 if room is None else len(room.queue))
        waits = HistogramMetricFamily(QUEUE_WAIT, "Seconds that calls waited for a slot or a refill.")
        waits.add_metric([], buckets=self._waits.buckets(), sum_value=self._waits.total)
        yield waits

    def _note_change(self, change: StoreChange) -> None:
        what = "out" if change.is_degraded else "back"
        self._log.event(
            "limit_store",
            level="error" if change.is_degraded else "warning",
            message=f"The shared store of limits is {what}: {change.reason}; {change.replicas} live replicas",
            is_degraded=change.is_degraded,
            replicas=change.replicas,
        )

    def _note_budget(self, reached: BudgetReached) -> None:
        self._log.event(
            "budget_reached",
            level="warning" if reached.threshold == THRESHOLDS[-1] else "info",
            message=f"Budget: {reached.owner} has spent {reached.threshold} % of "
            f"${reached.amount / 1e6:,.2f} ({reached.limit})",
            owner=reached.owner,
            limit=reached.limit,
            threshold=reached.threshold,
        )
        self._on_budget(reached)

    def _note_shadow(self, tenant: str, status: LimitStatus) -> None:
        limit = status.claim.limit
        self._log.event(
            "limit_shadow",
            message=f"Shadow limit: {tenant} would be refused by {limit.phrase} ({limit.name})",
            tenant=tenant,
            limit=limit.name,
        )
