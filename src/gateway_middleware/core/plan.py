"""What is the same for many calls, worked out at the first of them: each layer keeps its own part of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MAX_PLANS = 4096

CallKind: TypeAlias = "tuple[object, ...]"
"""What calls of one plan have in common: the tenant with its key, the path of the endpoint, model, strictness."""


class CallPlan:
    """What does not vary between calls of one tenant's key to one model at one endpoint, under one configuration.

    Never anything of a single call: no body, no end user, no session. And it says nothing of who may call: the tenant
    is found out for each call, before its plan is.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: dict[object, Any] = {}
        """What each layer has worked out, by the layer's own `PlanPart`."""


class PlanPart(Generic[P, T]):
    """One layer's part of all plans: made by `make` at the first call of a plan, then found.

    A layer that wants one says `self._constants = PlanPart(self._make_constants)` and, for each call,
    `constants = self._constants.of(request.plan, ...)`. What `make` is given beside the plan must be the same for all
    calls of the plan.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[P, T]) -> None:
        self._make = make

    def of(self, plan: CallPlan, *args: P.args, **kwargs: P.kwargs) -> T:
        """The part of this plan."""
        part: T | None = plan.parts.get(self)
        if part is None:
            part = plan.parts[self] = self._make(*args, **kwargs)
        return part


class Plans:
    """The plans of one gateway, by the kind of call. A full table starts again: clients may invent names of models.

    `generation` counts how often everything was dropped.
    """

    __slots__ = ("_max_plans", "_plans", "generation")

    def __init__(self, *, max_plans: int = _MAX_PLANS) -> None:
        self._max_plans = max_plans
        self._plans: dict[CallKind, CallPlan] = {}
        self.generation = 0

    def __len__(self) -> int:
        return len(self._plans)

    def find(self, kind: CallKind) -> CallPlan | None:
        """The plan of such calls, if there is one."""
        return self._plans.get(kind)

    def add(self, kind: CallKind, plan: CallPlan) -> None:
        """Keep a plan for the calls to come."""
        if len(self._plans) >= self._max_plans:
            self._plans = {}
        self._plans[kind] = plan

    def drop(self) -> None:
        """Something has changed that plans go by. Calls under way keep the plan that they began with."""
        self._plans = {}
        self.generation += 1
