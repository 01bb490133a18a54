"""Delivers usage events to `usage-metering`: at least once, in batches, for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random as chance
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import httpx
import msgspec

from gateway_middleware.core.domain import Clock
from gateway_middleware.metering.delivery import cloudevents
from gateway_middleware.metering.delivery.backoff import Backoff, BatchSize
from gateway_middleware.metering.delivery.responses import Verdict
from gateway_middleware.metering.delivery.sink_client import Consumer
from gateway_middleware.metering.usage_event import UsageEvent

_log = logging.getLogger("gateway_middleware")
Standing: TypeAlias = Literal["ok", "failing", "misconfigured"]
_SAID: dict[Standing, tuple[int, str]] = {
    "ok": (logging.WARNING, "Usage events are delivered again"),
    "failing": (logging.WARNING, "Usage events cannot be delivered (%s): they are kept, and sent again"),
    "misconfigured": (logging.ERROR, "Usage events are not taken from this gateway (%s): check address and token"),
}


class Spool(Protocol):
    """Where events wait. Its calls may block: each is made in a thread, and several may be made at a time."""

    def pending(self, limit: int, *, exclude: frozenset[str]) -> list[UsageEvent]:
        """The oldest that are neither delivered nor dead, without those whose id is in `exclude`."""
        ...

    def delivered(self, ids: Sequence[str], /) -> None:
        """They need not be kept any more."""
        ...

    def dead(self, event_id: str, reason: str, /) -> None:
        """It will never be taken: keep it apart, with the reason."""
        ...


class DeliveryState(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery stands. `last_success` and `retry_at` are seconds since the epoch, `batch` the events of one batch.

    `misconfigured`: usage-metering answers, but not to us. `lag` is how many seconds lay between the time of the oldest
    event of the last batch that was taken and that moment.
    """

    standing: Standing
    last_success: float | None
    consecutive_failures: int
    delivered: int
    dead: int
    in_flight: int
    last_error: str | None
    retry_at: float | None
    lag: float | None
    batch: int


class _Letter(msgspec.Struct, frozen=True):
    id: str
    time: float
    encoded: bytes


def _unheard(*_: object) -> None:
    pass


class Delivery:
    """Sends what is pending in a spool, oldest first, and takes it off once the consumer has it.

    `source` names the gateway and never changes. Up to `parallel` batches of up to `batch` events are in flight, one
    while delivery fails. A batch that is not full waits until `linger` seconds after the batch before it. Without
    `notify` the spool is read each `poll` seconds. `deadline`: seconds that one batch may take. `clock` is monotonic,
    `wall` seconds since the epoch, `random` in [0, 1). Callbacks run in the event loop and must not raise:
    `on_delivered(count, lag)`, `on_dead(id, reason)`, `on_failure(reason)`, `on_standing(standing)`.
    """

    def __init__(
        self,
        spool: Spool,
        client: httpx.AsyncClient,
        *,
        url: str,
        source: str,
        token: str | None = None,
        batch: int = 100,
        parallel: int = 4,
        linger: float = 0.1,
        poll: float = 1.0,
        deadline: float = 10.0,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = chance.random,
        on_delivered: Callable[[int, float], None] = _unheard,
        on_dead: Callable[[str, str], None] = _unheard,
        on_failure: Callable[[str], None] = _unheard,
        on_standing: Callable[[Standing], None] = _unheard,
    ) -> None:
        self._spool, self._source = spool, source
        self._consumer = Consumer(client, url=url, token=token, wall=wall, deadline=deadline)
        self._parallel, self._linger, self._poll = parallel, linger, poll
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._backoff = Backoff(clock=clock, random=random)
        self._batch = BatchSize(batch)
        self._on_delivered, self._on_dead, self._on_failure = on_delivered, on_dead, on_failure
        self._on_standing = on_standing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_notified = False
        self._news, self._settled, self._closing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._closes_at = math.inf
        self._taking = asyncio.Lock()
        self._in_flight: set[str] = set()
        self._not_before = 0.0
        self._standing: Standing = "ok"
        self._delivered = self._dead = 0
        self._last_success: float | None = None
        self._lag: float | None = None
        self._last_error: str | None = None

    @property
    def state(self) -> DeliveryState:
        """Of this moment."""
        wait = self._backoff.until - self._clock()
        return DeliveryState(
            standing=self._standing,
            last_success=self._last_success,
            consecutive_failures=self._backoff.failures,
            delivered=self._delivered,
            dead=self._dead,
            in_flight=len(self._in_flight),
            last_error=self._last_error,
            retry_at=self._wall() + wait if wait > 0 else None,
            lag=self._lag,
            batch=self._batch.size,
        )

    def notify(self) -> None:
        """New events are in the spool. From any thread, at any time."""
        if self._is_notified or self._loop is None:
            return
        self._is_notified = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: the next process reads the spool
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Deliver until cancelled, or until a `flush` is through. What is cut off is sent again another time."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._parallel):
                workers.create_task(self._work())

    async def flush(self, deadline: float) -> bool:
        """Deliver all that is pending, for at most `deadline` seconds, and then no more: a running `run` ends as well.

        One more attempt is made at once, but a `Retry-After` is kept. Says whether nothing is left.
        """
        self._closes_at = self._clock() + deadline
        self._backoff.hurry()
        self._closing.set()
        self._news.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self.run()
                return not self._in_flight and not await asyncio.to_thread(self._spool.pending, 1, exclude=frozenset())
        return False

    async def _work(self) -> None:
        while events := await self._take():
            try:
                await self._deliver(events)
            except Exception as error:  # noqa: BLE001  # a spool that fails must not end delivery
                self._fail(self._backoff.round, f"spool: {type(error).__name__}")
            finally:
                self._in_flight.difference_update(event.id for event in events)
                self._settled.set()

    async def _take(self) -> list[UsageEvent]:
        """The next batch, now in flight; nothing when it is time to end. One worker waits here, the others for it."""
        async with self._taking:
            while await self._may_send():
                events = await self._read()
                if events:
                    self._in_flight.update(event.id for event in events)
                    return events
                is_closing = self._closing.is_set()
                if is_closing and not self._in_flight:
                    break
                await self._first_of(self._settled if is_closing else self._news, self._poll)
            return []

    async def _may_send(self) -> bool:
        """Wait until a batch may be sent. False when that is too late."""
        while True:
            is_closing = self._closing.is_set()
            until = max(self._backoff.until, 0.0 if is_closing else self._not_before)
            now = self._clock()
            if is_closing and max(until, now) >= self._closes_at:
                return False
            if until > now:
                await (self._sleep(until - now) if is_closing else self._first_of(self._closing, until - now))
            elif self._backoff.failures and self._in_flight:
                self._settled.clear()
                await self._settled.wait()
            else:
                return True

    async def _read(self) -> list[UsageEvent]:
        self._is_notified = False
        self._news.clear()
        self._settled.clear()
        limit = self._batch.size
        try:
            events = await asyncio.to_thread(self._spool.pending, limit, exclude=frozenset(self._in_flight))
        except Exception as error:  # noqa: BLE001  # as above
            self._fail(self._backoff.round, f"spool: {type(error).__name__}")
            return []
        self._not_before = self._clock() + self._linger if 0 < len(events) < limit else 0.0
        return events

    async def _first_of(self, event: asyncio.Event, seconds: float) -> None:
        ends = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._sleep(seconds))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _deliver(self, events: Sequence[UsageEvent]) -> None:
        letters = []
        for event in events:
            try:
                letters.append(_Letter(event.id, event.time, cloudevents.encode(event, source=self._source)))
            except (ValueError, OverflowError, OSError, TypeError) as error:
                await self._bury(event.id, f"cannot be encoded ({type(error).__name__})")
        if letters:
            await self._send(letters)

    async def _send(self, letters: Sequence[_Letter]) -> bool:
        """Send a batch, in parts where need be. False when the rest has to wait."""
        began_in = self._backoff.round
        reply = await self._consumer.post(cloudevents.join(letter.encoded for letter in letters))
        verdict, is_one = reply.verdict, len(letters) == 1
        if verdict in {Verdict.LATER, Verdict.UNWELCOME}:
            self._fail(began_in, reply.reason, told=reply.told, is_unwelcome=verdict is Verdict.UNWELCOME)
            return False
        if verdict is Verdict.TAKEN or (is_one and verdict is Verdict.KNOWN):
            await self._settle(letters, began_in)
            return True
        if verdict is Verdict.TOO_LARGE:
            self._batch.too_large(len(letters))
        if is_one:
            await self._bury(letters[0].id, f"{reply.reason}: {reply.said}" if reply.said else reply.reason)
            self._recover(began_in)
            return True
        half = len(letters) // 2
        return await self._send(letters[:half]) and await self._send(letters[half:])

    async def _settle(self, letters: Sequence[_Letter], began_in: int) -> None:
        await asyncio.to_thread(self._spool.delivered, [letter.id for letter in letters])
        self._batch.taken(len(letters))
        self._delivered += len(letters)
        self._last_success = self._wall()
        self._lag = self._last_success - min(letter.time for letter in letters)
        self._recover(began_in)
        self._on_delivered(len(letters), self._lag)

    async def _bury(self, event_id: str, reason: str) -> None:
        await asyncio.to_thread(self._spool.dead, event_id, reason)
        self._dead += 1
        if self._dead & (self._dead - 1) == 0:  # each time they have doubled
            _log.error("Usage events were refused for good and are kept apart: %d so far", self._dead)
        self._on_dead(event_id, reason)

    def _fail(self, began_in: int, reason: str, *, told: float = 0.0, is_unwelcome: bool = False) -> None:
        self._backoff.failed(began_in, told=told)
        self._last_error = reason
        self._stand("misconfigured" if is_unwelcome else "failing", reason)
        self._on_failure(reason)

    def _recover(self, began_in: int) -> None:
        if self._backoff.succeeded(began_in):
            self._stand("ok", "")

    def _stand(self, standing: Standing, reason: str) -> None:
        if standing != self._standing:
            self._standing = standing
            level, message = _SAID[standing]
            _log.log(level, message, *[reason] if reason else [])
            self._on_standing(standing)
