"""One key's window: what was taken, bucket by bucket. O(1) amortised in time, bounded in memory.

The Lua scripts of `lua.py` follow the same rules, line by line.
"""

from __future__ import annotations

from array import array
from typing import ClassVar

import msgspec

from gateway_middleware.limiting.limit import MAX_AMOUNT, NEVER, Change, Claim, LimitStatus
from gateway_middleware.limiting.period import MICROSECONDS, Period

LEASE_SECONDS = 30.0
LEASE = int(LEASE_SECONDS * MICROSECONDS)
_LEASE_WAIT = MICROSECONDS
"""When to ask for a slot again: nobody knows when a call ends."""
_NO_PAST: array[int] = array("q")
"""Shared by all windows with one bucket; never written."""


class Window(msgspec.Struct, gc=False, weakref=False):
    """Amounts in buckets. Times are microseconds on one clock, which may step.

    Not tracked by the garbage collector: 100,000 of them would make it stop the world, and they hold no cycles.
    Call `advance` (or `probe`) before reading anything. `past` holds index and amount of the older buckets in turn.
    The newest bucket lasts from `since` to `until` and counts until `ends`, the oldest until `eases`.
    """

    period: Period
    is_calendar: bool
    past: array[int] = _NO_PAST
    newest: int = 0
    since: int = 0
    until: int = 0
    eases: int = 0
    ends: int = 0
    amount: int = 0
    total: int = 0

    @property
    def oldest(self) -> int:
        """The oldest bucket that counts."""
        return self.past[0] if self.past else self.newest

    def advance(self, now: int) -> None:
        """Move to `now`: what has left the window is forgotten."""
        if not self.since <= now < self.until:
            self.turn(now)

    def turn(self, now: int) -> None:
        """What `advance` does outside of the newest bucket."""
        if now < self.since:
            if self.since - now <= self.period.patience:
                return  # a clock that stepped back a little: go on counting in the newest bucket
            self.clear()
        period = self.period
        index = period.index(now)
        if self.amount:
            self._shelve()
        self.newest, self.amount = index, 0
        self.since, self.until, self.ends = period.start(index), period.start(index + 1), period.expires(index)
        self._drop(index - period.count)
        self._ease()

    def _shelve(self) -> None:
        if self.past is _NO_PAST:
            self.past = array("q")
        self.past.append(self.newest)
        self.past.append(self.amount)

    def _drop(self, oldest: int) -> None:
        past, gone = self.past, 0
        while gone < len(past) and past[gone] < oldest:
            self.total -= past[gone + 1]
            gone += 2
        if gone:
            self.past = past[gone:] if gone < len(past) else _NO_PAST

    def _ease(self) -> None:
        self.eases = self.period.expires(self.oldest) if self.past else self.ends

    def probe(self, claim: Claim, now: int, owner: bytes, weight: int) -> int:
        """Microseconds until the claim fits: 0 if it does, `NEVER` if it cannot."""
        if not self.since <= now < self.until:
            self.turn(now)
        amount = claim.limit.amount
        cost = claim.cost if weight == 1 else weighed(claim.cost, amount, weight)
        return 0 if self.total + cost <= amount else self.wait(cost, amount, now)

    def stand(self, claim: Claim, now: int, owner: bytes, weight: int, wait: int, takes: bool) -> LimitStatus:  # noqa: FBT001, PLR0917
        """Take the claim, if so decided, and say how things stand."""
        if takes:
            cost = claim.cost if weight == 1 else weighed(claim.cost, claim.limit.amount, weight)
            self.amount += cost
            self.total += cost
        left = claim.limit.amount - self.total
        excess = 0 if left >= 0 else -left // weight
        left = 0 if left < 0 else left if weight == 1 else left // weight
        return LimitStatus(claim, left, wait, takes, self.oldest, self.newest, now, excess)

    def wait(self, cost: int, limit: int, now: int) -> int:
        """Microseconds until `cost`, which is too much now, fits below `limit`; `NEVER` if it cannot."""
        if cost > limit:
            return NEVER
        return max(self.period.expires(self._freeing(self.total + cost - limit)) - now, 1)

    def _freeing(self, excess: int) -> int:
        """The bucket that takes the excess with it."""
        past = self.past
        for i in range(0, len(past), 2):
            excess -= past[i + 1]
            if excess <= 0:
                return past[i]
        return self.newest

    def add(self, amount: int) -> None:
        """Count in the current bucket, whether it fits or not."""
        self.amount += amount
        self.total += amount

    def correct(self, change: Change, weight: int) -> None:
        """Count more, or give back, so that what was really used is counted."""
        claim, delta = change.claim, change.delta
        if delta >= 0:
            self.amount += delta * weight
            self.total += delta * weight
            return
        actual = min((claim.cost + delta) * weight, claim.limit.amount)
        self.refund(
            weighed(claim.cost, claim.limit.amount, weight) - actual,
            self.newest if change.bucket is None else change.bucket,
        )

    def settle(self, cost: int, used: int, limit: int, now: int, bucket: int, weight: int) -> None:  # noqa: PLR0917
        """Count what was really used in the place of a cost that was taken, and fitted, in `bucket`."""
        if not self.since <= now < self.until:
            self.turn(now)
        if used > cost:
            cost = (cost - min(used, MAX_AMOUNT)) * weight
        else:
            cost = min(cost * weight, limit) - min(max(used, 0) * weight, limit)
            if bucket != self.newest:
                self.refund(cost, bucket)
                return
            cost = min(cost, self.amount)
        self.amount -= cost
        self.total -= cost

    def refund(self, amount: int, bucket: int) -> None:
        """Give back into the bucket it was taken from; what has left the window is gone."""
        if bucket == self.newest:
            amount = min(amount, self.amount)
            self.amount -= amount
            self.total -= amount
            return
        past = self.past
        for i in range(len(past) - 2, -1, -2):
            if past[i] == bucket:
                amount = min(amount, past[i + 1])
                past[i + 1] -= amount
                self.total -= amount
                if not past[i + 1]:
                    del past[i : i + 2]  # an empty bucket is no longer the oldest one
                    self._ease()
                return

    def adopt(self, total: int) -> None:
        """Replace everything by a total that somebody else has counted."""
        self.past = _NO_PAST
        self.amount = self.total = total
        self._ease()

    def clear(self) -> None:
        """Forget everything."""
        self.past = _NO_PAST
        self.amount = self.total = 0
        self._ease()

    def is_idle(self, now: int) -> bool:
        """Whether nothing in it counts any more, so that it can be dropped."""
        return now >= self.period.expires(self.newest) or self.since - now > self.period.patience


def weighed(cost: int, amount: int, weight: int) -> int:
    """What a cost takes where each unit counts `weight` times; one above its share of the limit takes all of it."""
    return cost if cost > amount else min(cost * weight, amount)


class Leases(msgspec.Struct, gc=False, weakref=False):
    """Slots of one key, each with an owner and an expiry; in the order of expiry, for all leases are of one length."""

    is_calendar: ClassVar[bool] = False
    expiries: dict[bytes, int]

    def advance(self, now: int) -> None:
        """Free what has expired."""
        expiries = self.expiries
        while expiries:
            owner = next(iter(expiries))
            if expiries[owner] > now:
                return
            del expiries[owner]

    def probe(self, claim: Claim, now: int, owner: bytes, weight: int) -> int:
        """Microseconds until a slot may be free: 0 if one is, or if the owner has one."""
        self.advance(now)
        expiries = self.expiries
        if len(expiries) < (claim.limit.amount // weight or 1) or owner in expiries:
            return 0
        return min(expiries[next(iter(expiries))] - now, _LEASE_WAIT)

    def stand(self, claim: Claim, now: int, owner: bytes, weight: int, wait: int, takes: bool) -> LimitStatus:  # noqa: FBT001, PLR0917
        """Take a slot, if so decided, and say how things stand."""
        if takes:
            self.hold(owner, now + LEASE)
        left = (claim.limit.amount // weight or 1) - len(self.expiries)
        return LimitStatus(claim, max(left, 0), wait, takes, 0, 0, now, max(-left, 0))

    def hold(self, owner: bytes, until: int) -> None:
        """Take a slot, or prolong it."""
        self.expiries.pop(owner, None)
        self.expiries[owner] = until

    def release(self, owner: bytes) -> None:
        """Give a slot back. Twice is once."""
        self.expiries.pop(owner, None)

    def is_idle(self, now: int) -> bool:
        self.advance(now)
        return not self.expiries
