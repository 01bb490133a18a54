"""Waiting for a slot instead of a refusal: the fair queue with clocks and futures around it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from gateway_middleware.core.errors import RateLimitedError, UnavailableError
from gateway_middleware.limiting.limit import NEVER, Claim, Decision, Unit
from gateway_middleware.limiting.period import MICROSECONDS
from gateway_middleware.limiting.queue.fair_queue import QUEUE_PER_TENANT, QUEUE_TOTAL, Entry, FairQueue
from gateway_middleware.limiting.reservation import LimitReachedError, Reservation, Reservations

MAX_WAIT = 2.0
_POLL_SECONDS = 0.1
"""How soon to look again for what another replica may have given back."""


class _Call:
    """What a waiting call wants, and why it does not have it yet."""

    __slots__ = ("blocked_on", "claims", "future", "refusal", "retry_at")

    def __init__(self, claims: Sequence[Claim], future: asyncio.Future[Reservation]) -> None:
        self.claims = claims
        self.future = future
        self.refusal: Decision | None = None
        self.blocked_on = ""
        self.retry_at = 0.0


class WaitingRoom:
    """Reserves at once where that is possible, else in turn.

    Refuses at once with `LimitReachedError` or `RateLimitedError` what cannot fit into `max_wait` seconds or is over
    the tenant's share of the queue, and with `UnavailableError` when the queue is full. `on_wait` is told of each call
    that had to wait, however that ended: seconds.
    """

    def __init__(
        self,
        reservations: Reservations,
        *,
        max_wait: float = MAX_WAIT,
        per_tenant: int = QUEUE_PER_TENANT,
        total: int = QUEUE_TOTAL,
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._on_wait = on_wait
        self._limiter = reservations
        self._max_wait = max_wait
        self.queue: FairQueue[_Call] = FairQueue(per_tenant=per_tenant, total=total)
        self._released: set[str] = set()
        self._contended: Counter[str] = Counter()
        self._has_news = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        reservations.on_release(self._note_release)

    @property
    def is_busy(self) -> bool:
        """Whether anybody waits. While nobody does, whoever finds room may take it without asking here."""
        return bool(self.queue) or bool(self._contended)

    async def reserve(self, claims: Sequence[Claim], tenant: str, *, priority: int = 0) -> Reservation:
        """Take all claims, waiting at most `max_wait` seconds for it. Leaves the queue when it is cancelled."""
        patience = self._max_wait
        loop = asyncio.get_running_loop()
        call = _Call(claims, loop.create_future())
        if not self._has_to_queue(tenant, claims):
            decision = await self._limiter.decide(claims)
            if decision.is_admitted or not _may_fit(decision, patience):
                return self._limiter.accept(decision)
            self._note_refusal(call, decision)
        try:
            return await self._wait(call, tenant, priority, patience)
        finally:
            self._block(call, "")

    def _has_to_queue(self, tenant: str, claims: Sequence[Claim]) -> bool:
        """Whether somebody waits for what this call wants: it must not slip in before them."""
        return bool(self.queue.waiting(tenant)) or any(claim.key in self._contended for claim in claims)

    async def _wait(self, call: _Call, tenant: str, priority: int, patience: float) -> Reservation:
        loop = asyncio.get_running_loop()
        self._check_room(call, tenant, patience)
        entry = Entry(call, tenant, priority=priority)
        self.queue.put(entry)
        self._start()
        timer, began = loop.call_later(patience, _give_up, entry), loop.time()
        try:
            return await call.future
        except asyncio.CancelledError:
            if call.future.done() and not call.future.cancelled() and call.future.exception() is None:
                await call.future.result().cancel()
            raise
        finally:
            timer.cancel()
            self.queue.remove(entry)
            self._on_wait(loop.time() - began)

    def _note_refusal(self, call: _Call, decision: Decision) -> None:
        call.refusal, refused = decision, decision.refused
        if refused is None:
            return
        self._block(call, refused.claim.key)
        wait = _POLL_SECONDS if refused.wait == NEVER else refused.wait / MICROSECONDS
        call.retry_at = asyncio.get_running_loop().time() + min(wait, _POLL_SECONDS)

    def _block(self, call: _Call, key: str) -> None:
        """Note on which limit a call waits; the empty key stands for none."""
        if call.blocked_on:
            self._contended[call.blocked_on] -= 1
            if not self._contended[call.blocked_on]:
                del self._contended[call.blocked_on]
        call.blocked_on = key
        if key:
            self._contended[key] += 1

    def _check_room(self, call: _Call, tenant: str, patience: float) -> None:
        if self.queue.is_full:
            raise UnavailableError("The gateway's queue is full.", code="queue_full", retry_after=max(patience, 1.0))
        expected = self.queue.expected_wait(tenant)
        if self.queue.is_full_for(tenant) or expected > patience:
            raise _refusal(call, max(expected, _POLL_SECONDS))

    def _start(self) -> None:
        self._has_news.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._serve())

    def _note_release(self, keys: Sequence[str]) -> None:
        if self.queue:
            self._released.update(keys)
            self._has_news.set()

    async def _serve(self) -> None:
        """Runs as long as somebody waits."""
        loop = asyncio.get_running_loop()
        while True:
            self._has_news.clear()
            released, self._released = self._released, set()
            for entry in self.queue.turns():
                call = entry.content
                is_blocked = call.retry_at > loop.time() and call.blocked_on not in released
                if not is_blocked:
                    await self._try(entry)
            if not self.queue:
                return
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._has_news.wait()
            except TimeoutError:
                continue

    async def _try(self, entry: Entry[_Call]) -> None:
        call = entry.content
        if call.future.done():
            self.queue.remove(entry)
            return
        try:
            decision = await self._limiter.decide(call.claims)
        except Exception as error:  # noqa: BLE001  # belongs to the call, not to the pump
            self.queue.remove(entry)
            if not call.future.done():
                call.future.set_exception(error)
            return
        now = asyncio.get_running_loop().time()
        if not decision.is_admitted:
            self._note_refusal(call, decision)
            return
        reservation = self._limiter.accept(decision)
        if call.future.done():
            self.queue.remove(entry)
            await reservation.cancel()
            return
        self.queue.serve(entry, now)
        call.future.set_result(reservation)

    async def aclose(self) -> None:
        """Send everybody who waits away."""
        if self._pump is not None:
            self._pump.cancel()
        for entry in self.queue.turns():
            self.queue.remove(entry)
            if not entry.content.future.done():
                entry.content.future.set_exception(UnavailableError("The gateway is stopping.", retry_after=1.0))


def _may_fit(decision: Decision, patience: float) -> bool:
    """Whether every limit that refuses may have room in time; nobody knows when a slot is free."""
    return all(
        s.wait != NEVER and (s.claim.limit.unit is Unit.CONCURRENCY or s.wait / MICROSECONDS <= patience)
        for s in decision.statuses
        if s.wait and not s.claim.limit.is_shadow
    )


def _give_up(entry: Entry[_Call]) -> None:
    call = entry.content
    if not call.future.done():
        call.future.set_exception(_refusal(call, 1.0))


def _refusal(call: _Call, retry_after: float) -> RateLimitedError:
    refused = call.refusal.refused if call.refusal is not None else None
    if call.refusal is None or refused is None:
        return RateLimitedError("Too many calls of this tenant are waiting.", retry_after=retry_after)
    return LimitReachedError(call.refusal, refused)
