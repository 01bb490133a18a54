"""Delivers usage events to `usage-metering`: at least once, in batches, for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from gateway_middleware.core.clocks import Clocks
from gateway_middleware.metering.delivery.backoff import Backoff, BatchSize
from gateway_middleware.metering.delivery.schedule import Schedule
from gateway_middleware.metering.delivery.sender import EventStore, Sender
from gateway_middleware.metering.delivery.sink_client import SinkClient
from gateway_middleware.metering.delivery.state import DeliveryHealth, DeliveryState
from gateway_middleware.metering.kept_event import KeptEvent
from gateway_middleware.metering.usage_event import EVENT_TYPE


class Delivery:
    """Sends what is pending in a store, oldest first, and takes it off once the sink has it.

    `source` names the gateway and never changes; `event_type` and `dataschema` are those of CloudEvents. Up to
    `parallel` batches of up to `batch` events are under way, one while delivery fails. A batch that is not full waits
    until `linger` seconds after the batch before it. Without `notify` the store is read each `poll` seconds. Callbacks
    run in the event loop and must not raise: `on_health` (`ok`, `failing`, `misconfigured`) when it changes, `on_dead`
    with id and reason.
    """

    def __init__(
        self,
        store: EventStore,
        sink: SinkClient,
        *,
        source: str,
        event_type: str = EVENT_TYPE,
        dataschema: str | None = None,
        batch: int = 100,
        parallel: int = 4,
        linger: float = 0.1,
        poll: float = 1.0,
        clocks: Clocks | None = None,
        on_health: Callable[[DeliveryHealth], None] = lambda _: None,
        on_dead: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        clocks = Clocks() if clocks is None else clocks
        self._store = store
        self._sink = sink
        self._parallel = parallel
        self._clocks = clocks
        self._backoff = Backoff(clock=clocks.monotonic, random=clocks.random)
        self._batch = BatchSize(batch, clock=clocks.monotonic)
        self._schedule = Schedule(backoff=self._backoff, linger=linger, poll=poll, clocks=clocks)
        self._sender = Sender(
            store,
            sink,
            source=source,
            event_type=event_type,
            dataschema=dataschema,
            backoff=self._backoff,
            batch=self._batch,
            wall=clocks.wall,
            on_health=on_health,
            on_dead=on_dead,
        )
        self._taking = asyncio.Lock()
        self._in_flight: set[str] = set()
        self._running: asyncio.Task[None] | None = None

    @property
    def state(self) -> DeliveryState:
        """Of this moment."""
        sender, wait = self._sender, self._backoff.until - self._clocks.monotonic()
        return DeliveryState(
            health=sender.health,
            last_success=sender.last_success,
            consecutive_failures=self._backoff.failures,
            delivered=sender.delivered,
            dead=sender.dead,
            in_flight=len(self._in_flight),
            last_error=sender.last_error,
            retry_at=self._clocks.wall() + wait if wait > 0 else None,
            lag=sender.lag,
            batch=self._batch.size,
        )

    def notify(self) -> None:
        """New events are in the store. From any thread, at any time."""
        self._schedule.notify()

    def start(self) -> None:
        """Deliver in the running event loop, until `aclose`."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self.run())

    async def aclose(self, flush_seconds: float = 0.0) -> None:
        """Deliver what is left, for at most so many seconds, and close the sink. Also without a start, or twice."""
        running, self._running = self._running, None
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._sink.aclose)
            if running is not None:
                stack.push_async_callback(asyncio.wait, [running])
                stack.callback(running.cancel)
                await self.flush(flush_seconds)

    async def run(self) -> None:
        """Deliver until cancelled, or until a `flush` is through. What is cut off is sent again another time."""
        self._schedule.begin()
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._parallel):
                workers.create_task(self._work())

    async def flush(self, deadline: float) -> bool:
        """Deliver all that is pending, for at most `deadline` seconds, and then no more: a running `run` ends as well.

        One more attempt is made at once, but a `Retry-After` is kept. Says whether nothing is left.
        """
        self._schedule.close(deadline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self.run()
                return not self._in_flight and await self._is_empty()
        return False

    async def _work(self) -> None:
        while events := await self._take():
            try:
                await self._sender.send(events)
            except Exception as error:  # noqa: BLE001  # a store that fails must not end delivery
                self._sender.store_failed(error)
            finally:
                self._in_flight.difference_update(event.id for event in events)
                self._schedule.settled()

    async def _take(self) -> Sequence[KeptEvent]:
        """The next batch, now in flight; nothing when it is time to end. One worker waits here, the others for it."""
        async with self._taking:
            while await self._schedule.may_send(self._in_flight):
                events = await self._read()
                if events:
                    self._in_flight.update(event.id for event in events)
                    return events
                if self._schedule.is_closing and not self._in_flight:
                    break
                await self._schedule.idle()
            return []

    async def _is_empty(self) -> bool:
        try:
            return not await asyncio.to_thread(self._store.pending, 1, exclude=frozenset())
        except Exception as error:  # noqa: BLE001  # as above
            self._sender.store_failed(error)
            return False

    async def _read(self) -> Sequence[KeptEvent]:
        self._schedule.reading()
        limit = self._batch.size
        try:
            events = await asyncio.to_thread(self._store.pending, limit, exclude=frozenset(self._in_flight))
        except Exception as error:  # noqa: BLE001  # as above
            self._sender.store_failed(error)
            return []
        self._schedule.has_read(len(events), limit)
        return events
