"""Counts what limits decided, for metrics and the log, and lists how they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from gateway_middleware.core.bounded import MAX_TENANTS, BoundedNames
from gateway_middleware.limiting.budgets import Budgets
from gateway_middleware.limiting.limit import Decision, Limit, LimitStatus, Unit

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Tenant
    from gateway_middleware.limiting.quota import Quotas
    from gateway_middleware.limiting.reservation import Reservation, Reservations

_BATCH = 64
_DOLLAR = 1e6


class Counts(msgspec.Struct, gc=False):
    """Of one limit of one tenant. `remaining` and `amount` are as last seen."""

    admitted: int = 0
    refused: int = 0
    shadowed: int = 0
    remaining: int = 0
    amount: int = 0


class Tally:
    """Calls of one tenant with the same limits, all of them admitted: counted by the last of them.

    For reservations that are not degraded, and limits of which none is a shadow.
    """

    __slots__ = ("_budgets", "_follows", "_on_first", "admitted", "last", "tenant")

    def __init__(
        self, tenant: str, on_first: Callable[[Tally], None], budgets: Budgets | None, limits: Sequence[Limit]
    ) -> None:
        self.tenant = tenant
        self.admitted = 0
        self.last: Reservation | None = None
        self._on_first = on_first
        self._budgets = budgets
        spend = [index for index, limit in enumerate(limits) if limit.unit is Unit.SPEND]
        self._follows = {} if budgets is None else dict.fromkeys(spend, (-1, 0))
        """For each limit on spend its period at the last look, and above what its budget need not be looked at."""

    def note(self, reservation: Reservation) -> None:
        """Take a call that was admitted."""
        if not self.admitted:
            self._on_first(self)
        self.admitted += 1
        self.last = reservation
        for index, (period, quiet_above) in self._follows.items():
            remaining, _, _, bucket = reservation.standing[index]
            if remaining <= quiet_above or bucket != period:
                self._follow(index, reservation.decision)

    def _follow(self, index: int, decision: Decision) -> None:
        if self._budgets is not None:  # pragma: no branch  # nothing is followed without
            status = decision.statuses[index]
            self._budgets.note(self.tenant, status, weight=decision.weight)
            self._follows[index] = (status.newest, self._budgets.quiet_above(status, weight=decision.weight))


class DecisionCounters:
    """Counts decisions in batches: a scrape brings it up to date first. `budgets` are told of those about spend.

    `on_news` is called when there is something to be counted by `refresh` that was up to date, and perhaps oftener.
    Tenants beyond `max_tenants` are counted together as `other`.
    """

    def __init__(
        self,
        *,
        max_tenants: int = MAX_TENANTS,
        on_shadow: Callable[[str, LimitStatus], None] | None = None,
        budgets: Budgets | None = None,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._name = BoundedNames(max_tenants)
        self._new: list[tuple[str, Decision]] = []
        self._unread: list[Tally] = []
        self._on_shadow = on_shadow
        self._budgets = budgets
        self._on_news = on_news
        self.degraded_decisions = 0
        self.steps: dict[tuple[str, ...], float] = {}
        """Calls that went on with a cheaper route, by tenant and that route."""

    def note_step(self, tenant: str, route: str) -> None:
        """A call goes on with a cheaper route, for a budget is spent."""
        names = self._name(tenant), route
        self.steps[names] = self.steps.get(names, 0) + 1

    def note(self, tenant: str, decision: Decision) -> None:
        """Take a decision."""
        self._new.append((tenant, decision))
        if len(self._new) == 1:
            self._on_news()
        if len(self._new) >= _BATCH:
            self.refresh()

    def tally(self, tenant: str, limits: Sequence[Limit]) -> Tally:
        """Counts calls of a tenant for which always these limits are claimed, in this order."""
        return Tally(tenant, self._note_unread, self._budgets, limits)

    def _note_unread(self, tally: Tally) -> None:
        self._unread.append(tally)
        if len(self._unread) == 1:
            self._on_news()

    def refresh(self) -> None:
        """Count what has not been counted yet."""
        self._read_tallies()
        decisions, self._new = self._new, []
        for tenant, decision in decisions:
            self._count(self._name(tenant), decision)
            if self._budgets is not None:
                self._follow(self._budgets, tenant, decision)

    def _read_tallies(self) -> None:
        for tally in self._unread:
            admitted, tally.admitted = tally.admitted, 0
            last, tally.last = tally.last, None
            if last is not None:  # pragma: no branch  # a tally that is unread has one
                self._count(self._name(tally.tenant), last.decision, admitted)
        self._unread.clear()

    def _follow(self, budgets: Budgets, tenant: str, decision: Decision) -> None:
        for status in decision.statuses:
            if status.claim.limit.unit is Unit.SPEND:
                budgets.note(tenant, status, weight=decision.weight)

    def counts(self) -> dict[tuple[str, str], Counts]:
        """By tenant and limit."""
        self.refresh()
        return self._counts

    def _count(self, tenant: str, decision: Decision, times: int = 1) -> None:
        self.degraded_decisions += decision.is_degraded
        for status in decision.statuses:
            limit = status.claim.limit
            counts = self._counts.get((tenant, limit.name))
            if counts is None:
                counts = self._counts[tenant, limit.name] = Counts()
            counts.remaining, counts.amount = status.remaining, limit.amount
            if not status.wait:
                counts.admitted += times if decision.is_admitted else 0
            elif limit.is_shadow:
                counts.shadowed += 1
                if self._on_shadow is not None:
                    self._on_shadow(tenant, status)
            else:
                counts.refused += 1


async def limit_rows(
    quotas: Quotas, reservations: Reservations, tenant: Tenant, end_user: str | None = None
) -> list[dict[str, Any]]:
    """How all limits of a tenant and its group stand, and those of an end user: a row for each, for `GET /v1/usage`.

    Nothing is taken. Spend is in dollars, times are seconds. `share` is what this process may let through by itself:
    the whole limit, where one store counts for all.
    """
    claims = quotas.all_claims(tenant, end_user)
    if not claims:
        return []
    decision = await reservations.decide(claims, is_dry=True)
    return [_row(status, decision.weight) for status in decision.statuses]


def _row(status: LimitStatus, weight: int) -> dict[str, Any]:
    limit = status.claim.limit
    share = limit.amount // weight or 1
    scale = _DOLLAR if limit.unit is Unit.SPEND else 1
    return {
        "name": limit.name,
        "unit": limit.unit.value,
        "limit": limit.amount / scale,
        "remaining": status.remaining / scale,
        "used": (share - status.remaining + status.excess) / scale,
        "share": share / scale,
        "period": limit.period_name or None,
        "reset_after": round(status.reset_after, 3),
        "is_shadow": limit.is_shadow,
        "scope": _scope(status.claim.key),
    }


def _scope(key: str) -> str:
    """To what a limit belongs: `tenant`, `group/research`, `key/k1`, `model/gpt-*`, `user/alice`."""
    parts = key.partition("}")[2].strip(":").split(":")[:-1]
    return ":".join([unquote(part) for part in parts if not part.startswith("tenant/")]) or "tenant"
