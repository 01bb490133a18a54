"""Metering, put together from settings: the journal, the way to usage-metering, and what is told of both."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.middleware import Middleware

from gateway_middleware.composition.audit_store import AuditStore, JournaledAudits, NoAudits
from gateway_middleware.composition.call_usage import CallUsage, not_here
from gateway_middleware.composition.journal_metrics import journal_families
from gateway_middleware.composition.keeper import KEPT_SECONDS, note_dead, note_health
from gateway_middleware.composition.keeper_config import index_uri, kept_prices
from gateway_middleware.composition.keeper_prices import leave_prices
from gateway_middleware.composition.part import Commit, Fixed, Lifeless
from gateway_middleware.composition.upstream import exchange_of
from gateway_middleware.core.errors import InvalidRequestError
from gateway_middleware.metering.budget_event import BudgetEvent
from gateway_middleware.metering.call_index.redis_index import NoCallIndex, call_index
from gateway_middleware.metering.call_index.writer import index_writer
from gateway_middleware.metering.charges import charge_row, charges_together
from gateway_middleware.metering.counters import UsageCounters
from gateway_middleware.metering.delivery.delivery import Delivery
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.delivery.state import DeliveryState
from gateway_middleware.metering.journal.journal import Journal
from gateway_middleware.metering.middleware import MeteringMiddleware
from gateway_middleware.operations.metering_metrics import MeteringMetrics
from gateway_middleware.operations.metric import Aggregation
from gateway_middleware.upstream.engine import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx
    from prometheus_client.registry import Collector

    from gateway_middleware.composition.log import Log
    from gateway_middleware.composition.pricing import CallPricing
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.core.outbox import Outbox
    from gateway_middleware.limiting.budgets import BudgetReached
    from gateway_middleware.limiting.estimate import Estimator
    from gateway_middleware.metering.journal.keeping import KeptBy
    from gateway_middleware.metering.middleware import Labels
    from gateway_middleware.metering.usage_event import UsageEvent
    from gateway_middleware.settings import Settings

_FLUSH_SECONDS = 1.0
_COMMIT_SECONDS = 0.05
"""A closed call is on disk at once, and in the database after so long: it is what a loss of power may cost."""
_SETTLE_SECONDS = 2.0
OFF = "off"


_NO_DELIVERY = {"standing": "off", "reason": "GATEWAY_USAGE_METERING_URL is not set: events stay in the journal"}


_NO_NEWS = {"standing": "unknown", "reason": "the keeper process has not told anything yet"}


class MeteringOff(Fixed, Lifeless):
    """No call is metered: `GATEWAY_JOURNAL` is off."""

    reason_not_ready: str | None = None
    reason_degraded: str | None = None

    def layers(
        self, estimator: Estimator, *, heeds_entries: bool, labels_of: Callable[[str], Labels]
    ) -> list[Middleware]:
        """None."""
        return []

    def collectors(self) -> list[Collector]:
        """None."""
        return []

    def health(self) -> dict[str, Any] | None:
        """The part of `/v1/health`."""
        return None

    async def used_by(self, tenant: Tenant, *, splits: bool = False) -> dict[str, Any]:
        """Nothing is known of what a tenant has used."""
        return {}

    def note_budget(self, reached: BudgetReached) -> None:
        """Nobody is told."""

    @property
    def audits(self) -> AuditStore:
        """Where changes of keys are written down: nowhere but in the log."""
        return NoAudits()

    async def of_call(self, tenant: Tenant | None, request_id: str) -> dict[str, Any]:
        """Raises `PathNotFoundError`."""
        raise not_here(request_id)

    async def reconcile(self, first: str | None, last: str | None) -> dict[str, Any]:
        """Raises `InvalidRequestError`."""
        raise InvalidRequestError("Metering is off: GATEWAY_JOURNAL.")


class Metering(Fixed):
    """Metering of one gateway. `transport` reaches usage-metering in place of the gateway's own engine."""

    def __init__(
        self,
        settings: Settings,
        clocks: Clocks,
        *,
        pricing: CallPricing,
        log: Log,
        outbox: Outbox,
        keeper: KeptBy,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._outbox = outbox
        self._pricing = pricing
        self._journal_path, self._is_left_to_keeper = settings.journal, keeper == "process"
        self._log = log.lines
        self._wall = wall = clocks.wall
        clock = clocks.monotonic
        url = settings.usage_metering_url
        self._index = call_index(index_uri(settings), seconds=settings.usage_index_seconds)
        self._index_writer = index_writer(self._index if keeper == "thread" else NoCallIndex())
        self.journal = Journal(
            Path(settings.journal),
            wall=wall,
            clock=clock,
            keeps=None if url else KEPT_SECONDS,
            appraise=self._appraise,
            commit_delay=_COMMIT_SECONDS,
            outbox=outbox,
            keeper=keeper,
        )
        self.journal.on_ends = self._index_writer.note
        self.counters = UsageCounters()
        of_losses = Aggregation.MAX if keeper == "process" else Aggregation.SUM
        self.metrics = MeteringMetrics(
            self.counters, lambda: journal_families(self.journal, self._delivery_state, of_losses=of_losses)
        )
        delivers = url is not None and keeper == "thread"
        self._delivery = self._build_delivery(settings, clocks, transport) if delivers else None
        self._has_sink = url is not None
        self._calls = CallUsage(self.journal, self._index)
        self._tells_budgets = url is not None and settings.budget_events
        self._telling: set[asyncio.Task[None]] = set()
        self.audits: AuditStore = (
            JournaledAudits(self.journal.spool, on_news=self._notify) if settings.audit_events else NoAudits()
        )

    def prepare(self, new: Settings) -> Commit:
        """A keeper process hears of other prices: it has those of the start."""
        kept = kept_prices(new)
        return (lambda: leave_prices(self._journal_path, kept)) if self._is_left_to_keeper else super().prepare(new)

    def _build_delivery(
        self, settings: Settings, clocks: Clocks, transport: httpx.AsyncBaseTransport | None
    ) -> Delivery:
        token = settings.usage_metering_token
        sink = SinkClient(
            Engine() if transport is None else exchange_of(transport),
            url=settings.usage_metering_url or "",
            token=None if token is None else token.reveal(),
            wall=clocks.wall,
        )
        return Delivery(
            self.journal.spool,
            sink,
            source=settings.event_source,
            event_type=settings.event_type,
            dataschema=settings.event_schema,
            clocks=clocks,
            on_health=lambda health: note_health(self._log, health),
            on_dead=lambda event_id, reason: note_dead(self._log, event_id, reason),
        )

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Recover what dead processes left, then take calls; deliver what they used.

        On the way out everything is on disk, and delivered as far as that goes in a few seconds.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._index.aclose)
            await stack.enter_async_context(self._index_writer.lifespan())
            stack.push_async_callback(asyncio.to_thread, self.journal.spool.close)
            if self._delivery is not None:
                stack.push_async_callback(self._delivery.aclose, _FLUSH_SECONDS)
            await stack.enter_async_context(self.journal)
            stack.push_async_callback(self._wait_for_calls)
            if self._delivery is not None:
                self._delivery.start()
            yield

    def layers(
        self, estimator: Estimator, *, heeds_entries: bool, labels_of: Callable[[str], Labels]
    ) -> list[Middleware]:
        """The layer that meters calls.

        `labels_of` gives the labels of a provider. `heeds_entries`: requests leave after their entry, with the
        gateway's outbox.
        """
        return [
            Middleware(
                MeteringMiddleware,
                journal=self.journal,
                outbox=self._outbox,
                heeds_entries=heeds_entries,
                appraise=self.appraise,
                estimate_input=lambda request, tenant: estimator.estimate(request, tenant).input_tokens,
                on_event=self.counters.note,
                labels_of=labels_of,
                wall=self._wall,
            )
        ]

    def collectors(self) -> list[Collector]:
        """The metrics."""
        return [self.metrics]

    def note_budget(self, reached: BudgetReached) -> None:
        """Have usage-metering told that a budget has reached a threshold, where the operator wants that."""
        if self._tells_budgets:
            task = asyncio.get_running_loop().create_task(self._tell(reached))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, reached: BudgetReached) -> None:
        event = BudgetEvent.of(
            reached.key,
            time=self._wall(),
            owner=reached.owner,
            limit=reached.limit,
            threshold=reached.threshold,
            amount=reached.amount,
            period=(reached.period_start, reached.period_end),
        )
        try:
            await asyncio.to_thread(self.journal.spool.add, event)
        except (sqlite3.Error, OSError) as error:
            self._log.event("budget_event", level="error", message=f"A budget's event is lost: {type(error).__name__}")
        self._notify()

    def _notify(self) -> None:
        if self._delivery is not None:
            self._delivery.notify()

    async def _wait_for_calls(self) -> None:
        """Calls that the server has cancelled still close what they opened."""
        await asyncio.gather(*self._telling)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                while self.journal.counts.open:  # noqa: ASYNC110  # the journal is no part of the event loop
                    await asyncio.sleep(0.01)

    def appraise(self, event: UsageEvent, tier: str | None) -> UsageEvent:
        """The event with its cost, where a price is known. What is free has one already."""
        if event.cost is not None:
            return event
        deployment = event.deployment
        cost = self._pricing.price_of(
            provider=event.provider,
            key=deployment,
            usage=event.usage,
            at=event.time,
            served=event.model_served,
            tier=tier,
        )
        if cost is None:
            return event
        return msgspec.structs.replace(event, cost=cost.text, price_version=cost.version, unit_prices=cost.unit_prices)

    def _appraise(self, event: UsageEvent) -> UsageEvent:
        return self.appraise(event, None)

    # What is told.

    def health(self) -> dict[str, Any]:
        """The part of `/v1/health`."""
        state, spool = self.journal.state, self.journal.spool
        health: dict[str, Any] = {
            "state": state.status,
            "reason": state.reason,
            "disk": "slow" if self.journal.is_disk_slow else "ok",
            "calls": self.journal.counts._asdict(),
            "backlog": spool.backlog,
            "oldest_seconds": round(spool.oldest_age, 3),
            "dead_letters": spool.dead_letters,
            "delivery": _NO_DELIVERY,
        }
        delivery = self._delivery_state
        if delivery is not None:
            health["delivery"] = _delivery_document(delivery)
        elif self._has_sink:
            health["delivery"] = _NO_NEWS
        status = self.journal.keeper_status
        if status is not None:
            health["keeper"] = {"began": _moment(status.began), "at": _moment(status.at), "orphaned": status.orphaned}
        return health

    @property
    def _delivery_state(self) -> DeliveryState | None:
        if self._delivery is not None:
            return self._delivery.state
        status = self.journal.keeper_status
        return None if status is None else status.delivery

    @property
    def reason_degraded(self) -> str | None:
        """What does not work of it, if anything."""
        state = self.journal.state
        return None if state.status == "ok" else state.reason or state.status

    @property
    def reason_not_ready(self) -> str | None:
        """Why no call can be taken, if so."""
        state = self.journal.state
        return state.reason if state.status == "unavailable" else None

    async def used_by(self, tenant: Tenant, *, splits: bool = False) -> dict[str, Any]:
        """What a tenant has used today and this month (UTC); `splits`: and what the month was charged for."""
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        first = today.replace(day=1)
        month = await asyncio.to_thread(self.journal.reconcile, first, today)
        own = [row for row in month.totals if row.tenant == tenant.name]
        usage = {"today": [row for row in own if row.day == today.isoformat()], "month": own}
        if not splits:
            return {"usage": usage}
        split = await asyncio.to_thread(self.journal.spool.split_of, tenant.name, first, today)
        return {"usage": usage, "charges": [charge_row(charge) for charge in charges_together(*split)]}

    async def of_call(self, tenant: Tenant | None, request_id: str) -> dict[str, Any]:
        """What one call has used, as far as the journal or the index of all replicas knows.

        `tenant` None: whosever it was. Raises `PathNotFoundError`, and `UnavailableError` while the journal cannot be
        read and nobody else knows.
        """
        return await self._calls.document(None if tenant is None else tenant.name, request_id)

    async def reconcile(self, first: str | None, last: str | None) -> dict[str, Any]:
        """Sums by tenant and day, and the balance of this process. Days as `2026-11-24`.

        Raises `InvalidRequestError`.
        """
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        begin, end = _day(first, "from") or today, _day(last, "to") or today
        reconciliation = await asyncio.to_thread(self.journal.reconcile, begin, end)
        return {
            "from": begin.isoformat(),
            "to": end.isoformat(),
            "calls": self.journal.counts._asdict(),
            "totals": reconciliation.totals,
            "open": reconciliation.open,
        }


def _delivery_document(state: DeliveryState) -> dict[str, Any]:
    """With its moments as RFC 3339."""
    document = msgspec.structs.asdict(state)
    moments = {name: _moment(document.pop(name)) for name in ("last_success", "retry_at")}
    return {"standing": document.pop("health"), **document, **moments}


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _day(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"`{name}` must be a day such as 2026-11-24.", param=name) from None


def build_metering(
    settings: Settings,
    clocks: Clocks,
    *,
    pricing: CallPricing,
    log: Log,
    outbox: Outbox,
    keeper: KeptBy | None,
    transport: httpx.AsyncBaseTransport | None,
) -> Metering | MeteringOff:
    """Metering as configured. `keeper` overrules the setting."""
    if settings.journal == OFF:
        return MeteringOff()
    chosen = keeper or ("process" if settings.keeper == "process" else "thread")
    return Metering(settings, clocks, pricing=pricing, log=log, outbox=outbox, keeper=chosen, transport=transport)
