"""Quotas from settings: which limits each tenant, key, model and route has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.errors import InvalidRequestError, SettingsError
from gateway_middleware.limiting.limit import Limit, OutagePolicy, Unit
from gateway_middleware.limiting.notation import concurrency, parse_limits, parse_spend
from gateway_middleware.limiting.quota import Group, Quota
from gateway_middleware.settings.faults import Faults
from gateway_middleware.settings.limits import read_limits
from gateway_middleware.settings.node import Node
from gateway_middleware.settings.tree import LimitSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway_middleware.settings import Settings
    from gateway_middleware.settings.tree import GroupSettings, TenantSettings

_UNITS = ("requests", "tokens", "concurrency", "spend")


class QuotaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `Quotas` holds: quotas of listed tenants, that of all others, limits of routes, the groups of tenants."""

    tenants: dict[str, Quota]
    default: Quota
    routes: dict[str, tuple[Limit, ...]]
    groups: dict[str, Group]

    def limits(self) -> Iterable[Limit]:
        """Every limit, wherever it is written."""
        for quota in (*self.tenants.values(), self.default):
            yield from quota.limits + quota.per_key + quota.per_end_user
            yield from (limit for _, limits in quota.per_model for limit in limits)
        yield from (limit for limits in self.routes.values() for limit in limits)
        yield from (limit for group in self.groups.values() for limit in group.limits)


def written_limits(written: Mapping[str, Any], settings: Settings | None = None) -> tuple[Limit, ...]:
    """Limits in the notation of `GATEWAY_TENANTS`, as JSON. Raises `InvalidRequestError` with every complaint.

    With `settings` also for limits that their workers could not divide.
    """
    faults = Faults()
    read = read_limits(Node(place="limits", raw=dict(written), faults=faults, environ={}))
    if faults:
        raise InvalidRequestError("; ".join(faults.lines()), param="limits")
    try:
        limits = _limits(read)
    except ValueError as error:
        raise InvalidRequestError(f"limits: {error}", param="limits") from None
    if settings is not None and settings.storage_uri.reveal() == "memory://":
        small = [limit.phrase for limit in limits if limit.amount < settings.workers]
        if small:
            raise InvalidRequestError(f"{settings.workers} workers cannot divide {', '.join(small)}.", param="limits")
    return limits


def quota_of_stored(limits: Mapping[str, Any], per_key: Mapping[str, Any], settings: Settings) -> Quota:
    """The quota of a tenant that was made at run time: what it does not name is as for tenants that are not listed."""
    own = written_limits(limits)
    units = {limit.unit for limit in own}
    defaults = tuple(limit for limit in _limits(_defaults(settings)) if limit.unit not in units)
    return Quota(limits=own + defaults, per_key=written_limits(per_key))


def make_quotas(settings: Settings) -> QuotaSettings:
    """The limits of the configuration. Raises `SettingsError`."""
    defaults = _defaults(settings)
    alike: dict[object, Quota] = {}  # a hundred thousand tenants have few different limits
    quotas = QuotaSettings(
        tenants={tenant.name: _shared_quota(tenant, defaults, alike) for tenant in settings.tenants},
        default=Quota(limits=_limits(defaults)),
        routes={route.name: _limits(route.limits) for route in settings.routes},
        groups={tenant: made for group in settings.groups for made in [_group(group)] for tenant in group.tenants},
    )
    if settings.storage_uri.reveal() == "memory://" and settings.workers > 1:
        _check_divisible(quotas, settings.workers)
    return quotas


def _defaults(settings: Settings) -> LimitSettings:
    return LimitSettings(
        requests=settings.default_requests,
        tokens=settings.default_tokens,
        concurrency=settings.default_concurrency,
        spend=settings.default_spend,
    )


def _group(group: GroupSettings) -> Group:
    return Group(group.name, _limits(group.limits))


def _shared_quota(tenant: TenantSettings, defaults: LimitSettings, alike: dict[object, Quota]) -> Quota:
    """One for all tenants of which the same is written."""
    written = (
        tenant.limits,
        tenant.per_key,
        tenant.per_model,
        tenant.per_end_user,
        tenant.priority,
        tenant.on_unpriced,
    )
    quota = alike.get(written)
    if quota is None:
        quota = alike[written] = _quota(tenant, defaults)
    return quota


def _quota(tenant: TenantSettings, defaults: LimitSettings) -> Quota:
    own = tenant.limits
    missing = {unit: getattr(defaults, unit) for unit in _UNITS if getattr(own, unit) is None}
    return Quota(
        limits=_limits(msgspec.structs.replace(own, **missing)),
        per_key=_limits(tenant.per_key),
        per_model=tuple((pattern, _limits(limits)) for pattern, limits in tenant.per_model),
        per_end_user=_limits(tenant.per_end_user),
        priority=tenant.priority,
        allows_unpriced=tenant.on_unpriced == "allow",
    )


def _limits(written: LimitSettings) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    outage = OutagePolicy(written.on_outage)
    for unit, text in ((Unit.REQUESTS, written.requests), (Unit.TOKENS, written.tokens)):
        if text is not None:
            limits += parse_limits(text, unit, is_shadow=unit in written.shadow, on_outage=outage)
    if written.spend is not None:
        limits.append(parse_spend(written.spend, is_shadow=Unit.SPEND in written.shadow, on_outage=outage))
    if written.concurrency is not None:
        is_shadow = Unit.CONCURRENCY in written.shadow
        limits.append(concurrency(written.concurrency, is_shadow=is_shadow, on_outage=outage))
    return tuple(limits)


def _check_divisible(quotas: QuotaSettings, workers: int) -> None:
    """A limit that cannot be divided would admit nothing."""
    small = sorted({limit.phrase for limit in quotas.limits() if limit.amount < workers})
    if small:
        listed = "; ".join(small)
        complaint = f"GATEWAY_WORKERS={workers}: workers share nothing on memory://, and cannot divide {listed}"
        raise SettingsError([f"{complaint}; expected fewer workers, or GATEWAY_STORAGE_URI=redis://..."])
