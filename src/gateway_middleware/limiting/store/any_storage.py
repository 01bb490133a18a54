"""Any asynchronous storage of `limits` as a `Store`, with the strategies of `limits`.

A moving window where the storage has one, else a fixed window. Exactness is that of the strategy and the storage: a
fixed window admits up to twice its limit around its edge, and of several limits those before the one that refuses may
have been charged when two calls come at the same moment. Nothing can be given back, and there are no slots.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import ClassVar

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MovingWindowSupport, Storage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter

from gateway_middleware.limiting.limit import Change, Claim, Decision, LimitStatus
from gateway_middleware.limiting.period import MICROSECONDS
from gateway_middleware.limiting.store.memory import MemoryStore
from gateway_middleware.limiting.store.window import LEASE_SECONDS

_NAMESPACE = "model-gateway"
_log = logging.getLogger("gateway_middleware")


class AnyStorageStore:
    """A `Store` on a storage of `limits`; for limits on requests over a length of time.

    While the storage raises, limits are counted in this process. The storage stays the host's: it is not closed.
    """

    lease_seconds: ClassVar[float] = LEASE_SECONDS

    def __init__(self, storage: Storage) -> None:
        has_moving_window = isinstance(storage, MovingWindowSupport)
        self._strategy: RateLimiter = (
            MovingWindowRateLimiter(storage) if has_moving_window else FixedWindowRateLimiter(storage)
        )
        self._local = MemoryStore()
        self._is_failing = False

    async def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Decision:
        """Take all claims or none, as well as the strategy can. Never fails."""
        try:
            decision = await self._admit(claims, owner, is_dry=is_dry)
        except Exception as error:  # noqa: BLE001  # no call fails because of the store
            if not self._is_failing:
                _log.error("The storage of limits fails; they are counted in this process", exc_info=error)
            self._is_failing = True
            return self._local.admit(claims, owner, is_dry=is_dry)
        self._is_failing = False
        return decision

    async def _admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        fits = [await self._strategy.test(_item(c), c.key, cost=c.cost) for c in claims]
        is_admitted = all(fit or claim.limit.is_shadow for fit, claim in zip(fits, claims, strict=True))
        if is_admitted and not is_dry:
            for index, claim in enumerate(claims):
                fits[index] = fits[index] and await self._strategy.hit(_item(claim), claim.key, cost=claim.cost)
                is_admitted = is_admitted and (fits[index] or claim.limit.is_shadow)
        takes = is_admitted and not is_dry
        statuses = [await self._status(c, fits=fit, takes=takes) for fit, c in zip(fits, claims, strict=True)]
        return Decision(is_admitted, tuple(statuses), owner)

    async def _status(self, claim: Claim, *, fits: bool, takes: bool) -> LimitStatus:
        stats = await self._strategy.get_window_stats(_item(claim), claim.key)
        now, reset = int(time.time() * MICROSECONDS), int(stats.reset_time * MICROSECONDS)
        wait = 0 if fits else max(reset - now, 1)
        bucket = _bucket(claim, reset)
        return LimitStatus(claim, max(stats.remaining, 0), wait, fits and takes, bucket, bucket, now)

    def settle(self, decision: Decision, changes: Sequence[Change]) -> None:
        """Nothing can be given back."""

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> None:
        """There are no slots."""

    def tick(self) -> None:
        """A slice of the housekeeping of this process."""
        self._local.tick()

    async def aclose(self) -> None:
        """The storage is the host's."""


def _item(claim: Claim) -> RateLimitItem:
    return RateLimitItemPerSecond(claim.limit.amount, claim.limit.length, _NAMESPACE)


def _bucket(claim: Claim, reset: int) -> int:
    """The bucket that no longer counts at that time."""
    period = claim.limit.period
    return 0 if period is None else -(-reset // period.step) - period.count - 1
