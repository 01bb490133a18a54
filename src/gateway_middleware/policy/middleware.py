"""The layer that asks whether a tenant may call, and sets the terms on which it may."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.endpoints import Access
from gateway_middleware.core.errors import GatewayError, PermissionDeniedError, UnknownModelError
from gateway_middleware.core.plan import CallPlan, PlanPart
from gateway_middleware.core.scope import ENDPOINT, RECORD, REQUEST, TENANT
from gateway_middleware.policy.decision import Decision, Question

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway_middleware.core.asgi import ASGIApp, Receive, Scope, Send
    from gateway_middleware.core.domain import BudgetStep, ModelRequest, PolicyTerms, Tenant
    from gateway_middleware.core.endpoints import Endpoint

POLICY = "policy"
"""What the log names as having refused a call."""
_MAX_GENERATIONS = 16


class PolicyMiddleware:
    """Lets a tenant's call pass if `decide` allows it, with the terms of the decision as part of TENANT.

    Model calls are asked about once intake has read them; what a tenant may look up, too. Calls on other terms have
    other plans. Raises `PermissionDeniedError`, `UnknownModelError` for a model that is not among those of the terms,
    and what `decide` raises.
    """

    def __init__(self, app: ASGIApp, *, decide: Callable[[Question], Decision | Awaitable[Decision]]) -> None:
        self.app = app
        self._decide = decide
        self._plans = PlanPart(_no_plans)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINT.peek(scope) if scope["type"] == "http" else None
        if endpoint is not None and endpoint.access is Access.TENANT:
            tenant, request = TENANT.get(scope), REQUEST.peek(scope)
            decision = self._decide(_question(tenant, request, endpoint))
            decision = decision if isinstance(decision, Decision) else await decision
            terms = _allowed(scope, decision)
            if request is not None and request.route.on_budget is not None:
                request = await self._with_permitted_step(request, request.route.on_budget, tenant, endpoint)
                scope = REQUEST.child(scope, request)
            scope = self._on_terms(scope, tenant, request, terms)
        await self.app(scope, receive, send)

    async def _with_permitted_step(
        self, request: ModelRequest, step: BudgetStep, tenant: Tenant, endpoint: Endpoint
    ) -> ModelRequest:
        """The request without the cheaper route, where the tenant may not call that one."""
        cheaper = msgspec.structs.replace(request, model=step.route.name, route=step.route)
        with suppress(GatewayError):
            decision = self._decide(_question(tenant, cheaper, endpoint))
            decision = decision if isinstance(decision, Decision) else await decision
            if decision.is_allowed and (decision.terms is None or _has_model(step.route.name, decision.terms)):
                return request
        route = msgspec.structs.replace(request.route, on_budget=None)
        return msgspec.structs.replace(request, route=route, plan=CallPlan())

    def _on_terms(self, scope: Scope, tenant: Tenant, request: ModelRequest | None, terms: PolicyTerms | None) -> Scope:
        if terms is None:
            return scope
        if request is not None:
            if request.stored is None:
                _check_model(request.model, terms)
            scope = REQUEST.child(scope, msgspec.structs.replace(request, plan=self._plan(request, terms)))
        RECORD.get(scope).labels = terms.labels
        return TENANT.child(scope, msgspec.structs.replace(tenant, terms=terms))

    def _plan(self, request: ModelRequest, terms: PolicyTerms) -> CallPlan:
        """The plan of such calls on these terms."""
        plans = self._plans.of(request.plan)
        plan = plans.get(terms.generation)
        if plan is None:
            if len(plans) >= _MAX_GENERATIONS:
                plans.clear()
            plan = plans[terms.generation] = CallPlan()
        return plan


def _no_plans() -> dict[str, CallPlan]:
    return {}


def _question(tenant: Tenant, request: ModelRequest | None, endpoint: Endpoint) -> Question:
    if request is None:
        return Question(tenant=tenant.name, key_id=tenant.key_id, action="read", endpoint=endpoint.label)
    return Question(
        tenant=tenant.name,
        key_id=tenant.key_id,
        action="call" if request.stored is None or request.stored.method != "GET" else "read",
        endpoint=endpoint.label,
        surface=request.surface.label,
        model=request.model if request.stored is None else None,
        route=request.route.name if request.route.is_configured else None,
    )


def _allowed(scope: Scope, decision: Decision) -> PolicyTerms | None:
    """The terms of a yes. Raises `PermissionDeniedError`."""
    record = RECORD.get(scope)
    record.decision_id = decision.decision_id
    if decision.is_allowed:
        return decision.terms
    record.refused_by = POLICY
    if decision.is_suspended:
        message, code = "This tenant is suspended.", "tenant_suspended"
    else:
        message, code = "This call is not allowed by policy.", "policy_denied"
    raise PermissionDeniedError(f"{message} {decision.reason}" if decision.reason else message, code=code)


def _has_model(model: str, terms: PolicyTerms) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in terms.models)


def _check_model(model: str, terms: PolicyTerms) -> None:
    if not _has_model(model, terms):
        raise UnknownModelError(f"The model `{model}` does not exist or you do not have access to it.", param="model")
