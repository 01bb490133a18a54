"""The keeper as a process: folds the journals of all workers of a host and delivers their usage events.

It is kept small: nothing of the gateway's layers, of its settings or of httpx is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.composition.keeper_prices import KeptPrices, left_prices
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.core.price import Price
from gateway_middleware.metering.call_index.redis_index import KEPT_SECONDS as INDEX_SECONDS
from gateway_middleware.metering.call_index.redis_index import call_index
from gateway_middleware.metering.call_index.writer import index_writer
from gateway_middleware.metering.delivery.delivery import Delivery
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.journal.housekeeping import Retention
from gateway_middleware.metering.journal.keeper import Keeper
from gateway_middleware.metering.journal.keeper_status import KeeperStatus, read_status, write_status
from gateway_middleware.metering.journal.keeping import Tally
from gateway_middleware.metering.journal.spool import Spool
from gateway_middleware.metering.usage_event import EVENT_TYPE
from gateway_middleware.upstream.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway_middleware.edge.access_log import AccessLog
    from gateway_middleware.metering.prices.prices import PriceBook
    from gateway_middleware.metering.usage_event import UsageEvent

KEPT_SECONDS = 32 * 86400.0
"""For so long events are kept for which there is no sink."""
MAX_EVENTS = 100_000
_FLUSH_SECONDS = 1.0
_BUSY_SECONDS, _IDLE_SECONDS = 0.2, 0.5
_STATUS_SECONDS = 1.0
_log = logging.getLogger("gateway_middleware")


class KeeperConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper must know. `vendors` are the vendors' ids in the price list, by the name of the provider."""

    journal: str
    url: str | None = None
    token: str | None = None
    prices: dict[str, Price] = {}
    vendors: dict[str, str | None] = {}
    log_format: str | None = None
    event_source: str = "/model-gateway"
    event_type: str = EVENT_TYPE
    event_schema: str | None = None
    index: str | None = None
    """The Redis that every replica asks for the calls of the others; None: there is no such index."""
    index_seconds: float = INDEX_SECONDS


class CrashPrices:
    """Prices the calls of processes that died, by what their reload has left (`keeper_prices`) or else by these.

    The price list is read when there is one to be priced.
    """

    def __init__(self, prices: Mapping[str, Price], vendors: Mapping[str, str | None], *, journal: str) -> None:
        self._journal = journal
        self._of_start = self._kept = KeptPrices(dict(prices), dict(vendors))
        self._book: PriceBook | None = None

    def appraise(self, event: UsageEvent) -> UsageEvent:
        """The event with its cost, where a price is known."""
        if event.cost is not None:
            return event
        self._look()
        if event.provider not in self._kept.vendors:
            return event
        if self._book is None:
            self._book = _book(self._kept.prices, self._journal)
        cost = self._book.cost(
            event.usage,
            vendor=self._kept.vendors[event.provider],
            deployment_key=event.deployment,
            model=event.deployment.partition("/")[2],
            at=event.time,
        )
        if cost is None:
            return event
        return msgspec.structs.replace(event, cost=cost.text, price_version=cost.version, unit_prices=cost.unit_prices)

    def _look(self) -> None:
        """See whether there was a reload."""
        kept = left_prices(self._journal) or self._of_start
        if kept != self._kept:
            self._kept, self._book = kept, None


def _book(prices: Mapping[str, Price], journal: str) -> PriceBook:
    from gateway_middleware.metering.prices.installed_table import table_path
    from gateway_middleware.metering.prices.prices import OverridePrices, first_of

    own = OverridePrices(prices)
    try:
        from gateway_middleware.metering.prices.listed_prices import listed_prices

        return first_of(own, listed_prices(table_path(journal)))
    except ValueError:
        return own


class KeeperProcess:
    """One life of a keeper."""

    def __init__(self, config: KeeperConfig, *, log: AccessLog, clocks: Clocks | None = None) -> None:
        clocks = clocks or Clocks()
        self._clocks = clocks
        self._log = log
        self._spool = Spool(Path(config.journal), wall=clocks.wall)
        self._config = config
        sink = None if config.url is None else SinkClient(Engine(), url=config.url, token=config.token)
        self._delivery = None if sink is None else self._deliver_to(sink)
        self._index = index_writer(call_index(config.index, seconds=config.index_seconds))
        self._keeper = Keeper(
            self._spool,
            Retention(cap=MAX_EVENTS, on_full="reject", keeps=None if config.url else KEPT_SECONDS),
            wall=clocks.wall,
            clock=clocks.monotonic,
            appraise=CrashPrices(config.prices, config.vendors, journal=config.journal).appraise,
            notify=(lambda: None) if self._delivery is None else self._delivery.notify,
            on_ends=self._index.note,
        )
        self._began = clocks.wall()
        self._before = Tally()
        self._quarantined_before = 0
        self._told_at: float | None = None
        self._fault: str | None = None

    def _deliver_to(self, sink: SinkClient) -> Delivery:
        return Delivery(
            self._spool,
            sink,
            source=self._config.event_source,
            event_type=self._config.event_type,
            dataschema=self._config.event_schema,
            clocks=self._clocks,
            on_health=lambda health: note_health(self._log, health),
            on_dead=lambda event_id, reason: note_dead(self._log, event_id, reason),
        )

    async def run(self, leaving: asyncio.Event) -> None:
        """Keep until `leaving` is set; then take in what there is, and deliver for a second at most."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._index.lifespan())
            stack.push_async_callback(asyncio.to_thread, self._keeper.close)
            while not await asyncio.to_thread(self._begin):
                if await _is_set(leaving, _IDLE_SECONDS):
                    return
            if self._delivery is not None:
                self._delivery.start()
                stack.push_async_callback(self._close, self._delivery)
            pause = 0.0
            while not await _is_set(leaving, pause):
                pause = _BUSY_SECONDS if await asyncio.to_thread(self._work) else _IDLE_SECONDS
            await asyncio.to_thread(self._guarded, self._keeper.finish)

    async def _close(self, delivery: Delivery) -> None:
        await delivery.aclose(_FLUSH_SECONDS)
        await asyncio.to_thread(self._tell)

    def _begin(self) -> bool:
        if not self._guarded(self._keeper.begin):
            return False
        if (last := read_status(self._spool.path)) is not None:
            self._before = Tally(*(getattr(last, name) for name in Tally._fields))
            self._quarantined_before = last.quarantined
        return True

    def _work(self) -> bool:
        """One pass; whether it has brought anything."""
        before = self._keeper.reached
        self._guarded(self._keeper.work)
        has_news = self._keeper.reached != before
        if has_news or self._told_at is None or self._clocks.monotonic() - self._told_at >= _STATUS_SECONDS:
            self._tell()
        return has_news

    def _guarded(self, work: Callable[[], bool | None]) -> bool | None:
        """Whatever fails is tried again at the next pass."""
        try:
            done = work()
        except Exception as error:  # noqa: BLE001 - the keeper lives on, and its status tells
            if self._fault is None:
                _log.error("usage spool cannot be written: %r", error)
            self._fault = f"the usage spool cannot be written: {error}"
            return False
        self._fault = None
        return done

    def _tell(self) -> None:
        gauge, keeper = self._spool.gauge, self._keeper
        tally = Tally(*map(sum, zip(self._before, keeper.tally, strict=True)))
        self._told_at = self._clocks.monotonic()
        status = KeeperStatus(
            at=self._clocks.wall(),
            began=self._began,
            trouble=self._fault or keeper.trouble,
            reached=keeper.reached,
            quarantined=self._quarantined_before + self._spool.quarantined,
            delivery=None if self._delivery is None else self._delivery.state,
            **gauge._asdict(),
            **tally._asdict(),
        )
        with contextlib.suppress(OSError):
            write_status(self._spool.path, status)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Whether it is, within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def note_health(log: AccessLog, health: str) -> None:
    """The health of delivery has changed."""
    log.event(
        "usage_delivery",
        level="info" if health == "ok" else "error",
        message=f"Delivery of usage events: {health}",
        standing=health,
    )


def note_dead(log: AccessLog, event_id: str, reason: str) -> None:
    """The sink will never take an event."""
    log.event("usage_dead_letter", level="error", message=f"Usage event {event_id}: {reason}", id=event_id)
