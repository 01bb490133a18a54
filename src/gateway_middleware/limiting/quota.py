"""Which limits a call has to pass: those of its tenant, its group, its key, its end user, its model and its route."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway_middleware.core.domain import Dialect, LimitOverrides, ModelRequest, Route, Surface, Tenant
from gateway_middleware.limiting.end_users import EndUserLimits, EndUsers
from gateway_middleware.limiting.estimate import Estimate
from gateway_middleware.limiting.limit import Claim, Limit, OutagePolicy, Unit, limit_key
from gateway_middleware.limiting.notation import concurrency, parse_limits, parse_spend

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

_MAX_PLANS = 65_536
_LEASE_SECONDS = 60.0
"""An end user whose slots alone are limited is remembered so long at least."""
_MIN_SPEND = 1
"""Micro-dollars of a call whose price is not known: an empty budget still refuses it."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one tenant: together, for each of its keys and of its end users, and by patterns over models.

    A pattern of `per_model` is compared, without regard to case, with the name asked for, that of the route, and every
    model that the route may lead to. `allows_unpriced`: what has no known price passes limits on spend.
    """

    limits: tuple[Limit, ...] = ()
    per_key: tuple[Limit, ...] = ()
    per_model: tuple[tuple[str, tuple[Limit, ...]], ...] = ()
    per_end_user: tuple[Limit, ...] = ()
    priority: int = 0
    allows_unpriced: bool = False


class Group(msgspec.Struct, frozen=True):
    """What several tenants may take together."""

    name: str
    limits: tuple[Limit, ...]


class _Place(NamedTuple):
    """Under which hash tag the limits of a tenant are counted: its own, or its group's, so that one node has all."""

    tag: str
    scope: tuple[str, ...] = ()


def overridden(quota: Quota, overrides: LimitOverrides) -> Quota:
    """The quota with other limits for the tenant as a whole. Raises `ValueError` for what is no limit."""
    limits: tuple[Limit, ...] = quota.limits
    for unit, made in _override_limits(overrides):
        outage = next((limit.on_outage for limit in quota.limits if limit.unit is unit), OutagePolicy.SHARE)
        kept = tuple(limit for limit in limits if limit.unit is not unit)
        limits = kept + tuple(msgspec.structs.replace(limit, on_outage=outage) for limit in made)
    return msgspec.structs.replace(quota, limits=limits)


def _override_limits(overrides: LimitOverrides) -> Iterable[tuple[Unit, tuple[Limit, ...]]]:
    for unit, text in ((Unit.REQUESTS, overrides.requests), (Unit.TOKENS, overrides.tokens)):
        if text is not None:
            yield unit, parse_limits(text, unit)
    if overrides.spend is not None:
        yield Unit.SPEND, (parse_spend(overrides.spend),)
    if overrides.concurrency is not None:
        yield Unit.CONCURRENCY, (concurrency(overrides.concurrency),)


class StoredQuotas(msgspec.Struct):
    """Quotas of what was made at run time; whoever changes them calls `Quotas.forget`.

    `tenants` are by name, for those that are not among the configured ones; `keys` are by tenant and key id: the limits
    of that key in place of its tenant's `per_key` of the same unit.
    """

    tenants: dict[str, Quota] = msgspec.field(default_factory=dict)
    keys: dict[tuple[str, str | None], tuple[Limit, ...]] = msgspec.field(default_factory=dict)

    def of_key(self, tenant: str, key_id: str, quota: Quota) -> tuple[Limit, ...]:
        """The limits of one key."""
        own = self.keys.get((tenant, key_id), ())
        units = {limit.unit for limit in own}
        return own + tuple(limit for limit in quota.per_key if limit.unit not in units)


class Plan:
    """The limits of all calls of one tenant's key over one route, ready to be claimed."""

    __slots__ = (
        "_constant", "_end_users", "_requests", "_slots", "_smallest", "_spend", "_tokens",
        "allows_unpriced", "is_limited", "needs_estimate", "needs_price", "priority", "route",
    )  # fmt: skip

    def __init__(
        self, claims: Sequence[Claim], quota: Quota, route: Route, end_users: EndUserLimits | None = None
    ) -> None:
        limits = [*(c.limit for c in claims), *quota.per_end_user]
        self._requests = [c for c in claims if c.limit.unit is Unit.REQUESTS]
        self._slots = [c for c in claims if c.limit.unit is Unit.CONCURRENCY]
        self._constant = self._requests + self._slots
        self._tokens = [c for c in claims if c.limit.unit is Unit.TOKENS]
        self._spend = [c for c in claims if c.limit.unit is Unit.SPEND]
        self._end_users = end_users
        self._smallest = min((limit.amount for limit in limits if limit.unit is Unit.TOKENS), default=0)
        spend = [limit for limit in limits if limit.unit is Unit.SPEND]
        self.needs_price = bool(spend)
        self.needs_estimate = bool(spend or self._smallest)
        self.is_limited = bool(limits)
        self.priority = quota.priority
        self.allows_unpriced = quota.allows_unpriced or all(limit.is_shadow for limit in spend)
        self.route = route

    def __bool__(self) -> bool:
        return self.is_limited

    def claims(self, estimate: Estimate | None, micro_dollars: int | None, end_user: str | None = None) -> list[Claim]:
        """What a call takes that is estimated at so much: requests, tokens, spend, slots, and those of the end user."""
        claims = self._constant if estimate is None else self._costing(*self.costs(estimate, micro_dollars))
        if self._end_users is None:
            return claims
        costs = {Unit.REQUESTS: 1, Unit.CONCURRENCY: 1}
        if estimate is not None:
            costs[Unit.TOKENS], costs[Unit.SPEND] = self.costs(estimate, micro_dollars)
        return [*claims, *self._end_users.claims(end_user, costs)]

    def planned(self, *, is_estimated: bool) -> list[Claim] | None:
        """`claims` at a cost of 1 each; None where the limits differ from call to call."""
        if self._end_users is not None:
            return None
        return self._costing(1, 1) if is_estimated else self._constant

    def costs(self, estimate: Estimate | None, micro_dollars: int | None) -> tuple[int, int]:
        """The tokens and micro-dollars of `claims`."""
        return 0 if estimate is None else estimate.within(self._smallest), micro_dollars or _MIN_SPEND

    def _costing(self, tokens: int, spend: int) -> list[Claim]:
        return [
            *self._requests,
            *[Claim(claim.key, claim.limit, tokens) for claim in self._tokens],
            *[Claim(claim.key, claim.limit, spend) for claim in self._spend],
            *self._slots,
        ]


class Quotas:
    """Finds the plan of a call. `tenants` are by name, `default` is for those that are not listed.

    `routes` are limits of a route for all tenants together, `groups` the group of a tenant, by the tenant's name. Plans
    are made once; a full cache starts again.
    """

    def __init__(
        self,
        tenants: Mapping[str, Quota] | None = None,
        *,
        default: Quota = Quota(),  # noqa: B008  frozen
        routes: Mapping[str, tuple[Limit, ...]] | None = None,
        stored: StoredQuotas | None = None,
        groups: Mapping[str, Group] | None = None,
        max_plans: int = _MAX_PLANS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._max_plans = max_plans
        self._clock = clock
        self._stored = stored or StoredQuotas()
        self.replace(tenants or {}, default=default, routes=routes or {}, groups=groups or {})

    def replace(
        self,
        tenants: Mapping[str, Quota],
        *,
        default: Quota,
        routes: Mapping[str, tuple[Limit, ...]],
        groups: Mapping[str, Group],
    ) -> None:
        """Take other limits from now on. What was counted stays, where a limit has the same unit and window."""
        self._tenants = tenants
        self._default = default
        self._routes = routes
        self._groups = groups
        self._end_users: dict[str, EndUsers] = {}
        self.forget()

    def forget(self) -> None:
        """Work out every plan again."""
        self._plans: dict[tuple[str, str | None, str | None, str, str, Surface, Dialect], Plan] = {}

    def plan(self, tenant: Tenant, request: ModelRequest) -> Plan:
        """The limits of this call."""
        route = request.route
        terms = None if tenant.terms is None else tenant.terms.generation
        key = (tenant.name, tenant.key_id, terms, request.model, route.name, request.surface, request.dialect)
        plan = self._plans.get(key)
        if plan is None or (plan.route is not route and plan.route != route):
            if len(self._plans) >= self._max_plans:
                self._plans.clear()
            plan = self._plans[key] = self._make(tenant, request.model, route)
        return plan

    def all_claims(self, tenant: Tenant, end_user: str | None = None) -> list[Claim]:
        """All limits of a tenant, its group and this key, whatever the model; of an end user, if one is named."""
        quota, place = self._quota(tenant), self._place(tenant)
        claims = self._claims_of(tenant, quota, place)
        for pattern, limits in quota.per_model:
            claims += _claims(place, limits, "model", pattern)
        users = self._limits_of_end_users(tenant, quota, place)
        if users is None or end_user is None:
            return claims
        return claims + users.claims(end_user, dict.fromkeys(Unit, 1), is_call=False)

    def _place(self, tenant: Tenant) -> _Place:
        group = self._groups.get(tenant.name)
        return _Place(tenant.name) if group is None else _Place(f"group/{group.name}", (f"tenant/{tenant.name}",))

    def _claims_of(self, tenant: Tenant, quota: Quota, place: _Place) -> list[Claim]:
        """Those of its group, its own, and those of its key."""
        claims: list[Claim] = []
        group = self._groups.get(tenant.name)
        if group is not None:
            claims += _claims(_Place(place.tag), group.limits, "group", group.name)
        claims += _claims(place, quota.limits)
        if tenant.key_id is not None:
            limits = self._stored.of_key(tenant.name, tenant.key_id, quota)
            claims += _claims(place, limits, "key", tenant.key_id)
        return claims

    def _limits_of_end_users(self, tenant: Tenant, quota: Quota, place: _Place) -> EndUserLimits | None:
        if not quota.per_end_user:
            return None
        users = self._end_users.get(tenant.name)
        if users is None:
            idle = max(limit.seconds for limit in quota.per_end_user)
            users = self._end_users[tenant.name] = EndUsers(idle=max(idle, _LEASE_SECONDS), clock=self._clock)
        return EndUserLimits(place.tag, place.scope, [_named(limit, "user") for limit in quota.per_end_user], users)

    def _quota(self, tenant: Tenant) -> Quota:
        quota = self._tenants.get(tenant.name) or self._stored.tenants.get(tenant.name, self._default)
        return quota if tenant.terms is None else overridden(quota, tenant.terms.limits)

    def _make(self, tenant: Tenant, model: str, route: Route) -> Plan:
        quota, place = self._quota(tenant), self._place(tenant)
        claims = self._claims_of(tenant, quota, place)
        names = _names(model, route)
        for pattern, limits in quota.per_model:
            if any(fnmatchcase(name, pattern.casefold()) for name in names):
                claims += _claims(place, limits, "model", pattern)
        claims += _claims(_Place(f"route@{route.name}"), self._routes.get(route.name, ()), prefix="route")
        return Plan(claims, quota, route, self._limits_of_end_users(tenant, quota, place))


def _names(model: str, route: Route) -> set[str]:
    """All names by which a limit may mean this call: another name for a model is no way around its limit."""
    deployments = (*route.deployments, *route.on_context_window, *route.on_content_policy)
    names = {model, route.name, *(d.model for d in deployments), *(d.key for d in deployments)}
    return {name.casefold() for name in names}


def _claims(place: _Place, limits: Iterable[Limit], kind: str = "", name: str = "", *, prefix: str = "") -> list[Claim]:
    """Claims of one unit. The name of a limit says whose it is: `rpm`, `group-rpm`, `key-rpm`, `model-tpm`."""
    scope = (*place.scope, f"{kind}/{name}") if kind else place.scope
    prefix = prefix or kind
    return [Claim(limit_key(place.tag, limit, *scope), _named(limit, prefix)) for limit in limits]


def _named(limit: Limit, prefix: str) -> Limit:
    return msgspec.structs.replace(limit, name=f"{prefix}-{limit.name}") if prefix else limit
