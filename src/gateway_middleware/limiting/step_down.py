"""Going on with a cheaper route when a limit on spend is reached: when that is, and what the call becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Translate
from gateway_middleware.limiting.limit import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_middleware.core.domain import BudgetStep, ModelRequest
    from gateway_middleware.core.plan import CallPlan
    from gateway_middleware.limiting.limit import Decision, LimitStatus


def refuses_spend(decision: Decision) -> bool:
    """Whether a limit on spend has refused the call."""
    return any(status.wait for status in _budgets(decision))


def is_reached(decision: Decision, percent: int) -> bool:
    """Whether so much of a limit on spend was used, or reserved by other calls, before this one."""
    return any(_used(status, decision.weight) * 100 >= percent * _share(status, decision.weight)
               for status in _budgets(decision))  # fmt: skip


def lowered(request: ModelRequest, step: BudgetStep, plan: CallPlan) -> ModelRequest:
    """The request on the cheaper route, as limits and prices see it: under the name of that route."""
    route = step.route
    is_strict = request.is_strict or route.translate is Translate.STRICT
    return msgspec.structs.replace(request, model=route.name, route=route, is_strict=is_strict, plan=plan)


def _budgets(decision: Decision) -> Iterator[LimitStatus]:
    return (s for s in decision.statuses if s.claim.limit.unit is Unit.SPEND and not s.claim.limit.is_shadow)


def _share(status: LimitStatus, weight: int) -> int:
    return status.claim.limit.amount // weight or 1


def _used(status: LimitStatus, weight: int) -> int:
    used = _share(status, weight) - status.remaining + status.excess
    return used - status.claim.cost if status.is_taken else used
