"""Tells when a budget is half spent, nearly spent and spent: each once in a period, in each process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gateway_middleware.limiting.limit import LimitStatus
from gateway_middleware.limiting.period import MICROSECONDS

THRESHOLDS = (50, 80, 100)
"""In per cent."""
_NEARLY_ALL = 95
_MAX_BUDGETS = 100_000


class BudgetReached(msgspec.Struct, frozen=True, kw_only=True):
    """A limit on spend of which `threshold` per cent are spent, with what calls under way have reserved.

    `owner` is the tenant, or `group/<name>`. `key` names the budget, whatever its amount, which is in micro-dollars.
    Moments are in seconds since the epoch. Whoever tells of the same key, threshold and period tells of the same fact.
    """

    owner: str
    limit: str
    key: str
    threshold: int
    amount: int
    period_start: float
    period_end: float


class _Reached(NamedTuple):
    """How far one budget is in the period that ends at `until`."""

    owner: str
    limit: str
    threshold: int
    until: float


class Budgets:
    """Follows decisions about limits on spend, and calls `tell` for each threshold that is new in its period.

    End users have no budgets here: there may be any number of them.
    """

    def __init__(self, tell: Callable[[BudgetReached], None]) -> None:
        self._tell = tell
        self._reached: dict[str, _Reached] = {}

    def note(self, tenant: str, status: LimitStatus, *, weight: int = 1) -> None:
        """A decision about a limit on spend. `weight` is how many units this process takes for one."""
        limit, key = status.claim.limit, status.claim.key
        period = limit.period
        if period is None or not limit.is_calendar or limit.name.startswith("user-"):
            return
        reached = _reached(status, weight)
        index = period.index(status.now)
        until = period.expires(index) / MICROSECONDS
        before = self._reached.get(key)
        known = before.threshold if before is not None and before.until == until else 0
        if reached <= known:
            return
        owner = f"group/{_group_of(key)}" if limit.name.startswith("group-") else tenant
        if len(self._reached) >= _MAX_BUDGETS:
            self._reached.clear()
        self._reached[key] = _Reached(owner, limit.name, reached, until)
        for threshold in THRESHOLDS:
            if known < threshold <= reached:
                self._tell(
                    BudgetReached(
                        owner=owner,
                        limit=limit.name,
                        key=key,
                        threshold=threshold,
                        amount=limit.amount,
                        period_start=period.start(index) / MICROSECONDS,
                        period_end=until,
                    )
                )

    def quiet_above(self, status: LimitStatus, *, weight: int = 1) -> int:
        """While more than this remains of that limit, in the same period, `note` would tell of nothing new."""
        limit = status.claim.limit
        period, before = limit.period, self._reached.get(status.claim.key)
        if period is None or before is None or before.until != period.expires(period.index(status.now)) / MICROSECONDS:
            known = 0
        else:
            known = before.threshold
        following = next((threshold for threshold in THRESHOLDS if threshold > known), None)
        share = _share(status, weight)
        return -1 if following is None else share - -(-following * share // 100)

    def standing(self, now: float) -> dict[tuple[str, str], int]:
        """The threshold that each budget has reached in the period of `now`, by owner and limit."""
        return {(r.owner, r.limit): r.threshold for r in self._reached.values() if now < r.until}


def _reached(status: LimitStatus, weight: int) -> int:
    """The highest threshold that is reached; 0: none. What the call itself has only reserved is not spent yet.

    A budget of which less is left than the next call needs is spent, if that is little.
    """
    share = _share(status, weight)
    used = share - status.remaining + status.excess
    if status.is_taken:
        used -= status.claim.cost
    percent = used * 100 // share
    if status.wait and percent >= _NEARLY_ALL:
        percent = 100
    return max((threshold for threshold in THRESHOLDS if percent >= threshold), default=0)


def _share(status: LimitStatus, weight: int) -> int:
    """What this process counts of the budget."""
    return status.claim.limit.amount // weight or 1


def _group_of(key: str) -> str:
    """The name in a key such as `{group%2Fresearch}:group/research:spend/months/1`."""
    return key.partition("}:group/")[2].partition(":")[0]
