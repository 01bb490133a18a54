"""How often each limit was asked, and what it said: for metrics and the log."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway_middleware.core.bounded import MAX_TENANTS, BoundedNames
from gateway_middleware.limiting.limit import Decision, Standing

_BATCH = 64


class Counts(msgspec.Struct, gc=False):
    """Of one limit of one tenant. `remaining` and `amount` are as last seen."""

    admitted: int = 0
    refused: int = 0
    shadowed: int = 0
    remaining: int = 0
    amount: int = 0


class Tally:
    """Counts decisions in batches: a scrape brings it up to date first.

    Tenants beyond `max_tenants` are counted together as `other`.
    """

    def __init__(
        self, *, max_tenants: int = MAX_TENANTS, on_shadow: Callable[[str, Standing], None] | None = None
    ) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._name = BoundedNames(max_tenants)
        self._new: list[tuple[str, Decision]] = []
        self._on_shadow = on_shadow
        self.degraded_decisions = 0

    def note(self, tenant: str, decision: Decision) -> None:
        """Take a decision."""
        self._new.append((tenant, decision))
        if len(self._new) >= _BATCH:
            self.refresh()

    def refresh(self) -> None:
        """Count what has not been counted yet."""
        found, self._new = self._new, []
        for tenant, decision in found:
            self._count(self._name(tenant), decision)

    def counts(self) -> dict[tuple[str, str], Counts]:
        """By tenant and limit."""
        self.refresh()
        return self._counts

    def _count(self, tenant: str, decision: Decision) -> None:
        self.degraded_decisions += decision.is_degraded
        for standing in decision.standings:
            limit = standing.claim.limit
            counts = self._counts.get((tenant, limit.name))
            if counts is None:
                counts = self._counts[tenant, limit.name] = Counts()
            counts.remaining, counts.amount = standing.remaining, limit.amount
            if not standing.wait:
                counts.admitted += decision.is_admitted
            elif limit.is_shadow:
                counts.shadowed += 1
                if self._on_shadow is not None:
                    self._on_shadow(tenant, standing)
            else:
                counts.refused += 1
