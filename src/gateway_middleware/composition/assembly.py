"""Parts of the gateway, made from settings."""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.breaker.budget import RetryBudget
from gateway_middleware.breaker.cooldown import Cooldowns
from gateway_middleware.breaker.failover import Failover
from gateway_middleware.breaker.selection import Latencies
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.registry import BreakerRegistry
from gateway_middleware.core.domain import Tenant
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.intake.routing import RouteTable
from gateway_middleware.limiting.limit import Limit, OutagePolicy, Unit
from gateway_middleware.limiting.notation import concurrency, parse_limits, parse_spend
from gateway_middleware.limiting.quota import Quota
from gateway_middleware.providers import KINDS
from gateway_middleware.settings.tree import LimitSettings
from gateway_middleware.tenancy.resolvers import ApiKeyResolver, OpenResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway_middleware.breaker.peers.probes import ProbeGate
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.domain import Clock, Deployment, Timeouts
    from gateway_middleware.core.provider_api import Origin, Provider, ProviderKind
    from gateway_middleware.core.secret import Secret
    from gateway_middleware.settings import Settings
    from gateway_middleware.settings.tree import ProviderSettings, TenantSettings


_UNITS = ("requests", "tokens", "concurrency", "spend")


def revealed(secret: Secret | None) -> str | None:
    """The secret itself, where there is one."""
    return None if secret is None else secret.reveal()


def make_providers(settings: Settings, kinds: Mapping[str, ProviderKind] = KINDS) -> dict[str, Provider]:
    """The adapters of all configured providers, by name. Raises `SettingsError` for a kind that is not among these."""
    unknown = [f"provider {p.name}: no kind {p.kind!r}; expected one of {', '.join(kinds)}"
               for p in settings.providers if p.kind not in kinds]  # fmt: skip
    if unknown:
        raise SettingsError(unknown)
    return {p.name: kinds[p.kind](p) for p in settings.providers}


def make_route_table(settings: Settings, providers: Mapping[str, Provider]) -> RouteTable:
    """The routes of the configuration."""
    return RouteTable({route.name: route.route for route in settings.routes}, providers)


def deployments_of(settings: Settings) -> list[Deployment]:
    """Every deployment that a route names."""
    return [target.deployment for route in settings.routes for target in route.everything]


def listed_tenants(settings: Settings) -> list[tuple[Tenant, Sequence[str]]]:
    """Every tenant with the digests of its keys."""
    return [(Tenant(name=t.name, models=t.models), t.keys) for t in settings.tenants]


def key_secret_of(settings: Settings) -> bytes | None:
    """The secret of `hmac-sha256:` digests."""
    secret = revealed(settings.key_secret)
    return None if secret is None else secret.encode()


def make_resolver(settings: Settings) -> ApiKeyResolver | OpenResolver:
    """Who is calling: by key, or everybody."""
    if not settings.tenants:
        return OpenResolver()
    return ApiKeyResolver(listed_tenants(settings), key_secret=key_secret_of(settings))


class Scrubber:
    """Replaces the credentials of providers in texts. It remembers those that were replaced by a reload."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._secrets: list[str] = []
        self.add(providers)

    def add(self, providers: Iterable[Provider]) -> None:
        """Know the credentials of these as well."""
        found = {secret for provider in providers for secret in provider.secrets}
        self._secrets = sorted({*self._secrets, *found}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return text


def make_failover(
    settings: Settings,
    providers: Mapping[str, Provider],
    *,
    clock: Clock,
    wall: Clock,
    on_transition: Callable[[Transition], None],
    on_cooldown: Callable[[str | None, str, float], None],
    gate: ProbeGate | None = None,
) -> Failover:
    """Circuit breaking as configured. `providers` is looked at for each attempt: it may change."""
    mode = Mode(settings.breaker)
    registry = BreakerRegistry(
        BreakerPolicy(mode=mode),
        clock=clock,
        wall=wall,
        random=random,
        policies=policies_of(settings),
        on_transition=on_transition,
        gate=gate,
    )

    def origin_of(deployment: Deployment) -> Origin:
        return providers[deployment.provider].origin

    def timeouts_of(deployment: Deployment) -> Timeouts:
        return providers[deployment.provider].timeouts

    for deployment in deployments_of(settings):
        registry.register(deployment, origin_of(deployment))
    return Failover(
        registry=registry,
        cooldowns=Cooldowns(clock),
        budget=RetryBudget(clock),
        latencies=Latencies(clock),
        origin_of=origin_of,
        timeouts_of=timeouts_of,
        clock=clock,
        wall=wall,
        random=random,
        mode=mode,
        max_attempts=settings.max_attempts,
        on_cooldown=on_cooldown,
    )


def policies_of(settings: Settings) -> dict[str, BreakerPolicy]:
    """The numbers of each provider's breakers."""
    mode = Mode(settings.breaker)
    return {p.name: _policy(p, mode) for p in settings.providers}


def _policy(provider: ProviderSettings, mode: Mode) -> BreakerPolicy:
    policy = BreakerPolicy(mode=mode, probe_expiry=provider.timeouts.first_byte + 1.0)
    return msgspec.structs.replace(policy, **provider.breaker.given)


def make_quotas(settings: Settings) -> dict[str, Any]:
    """What `Quotas` is made of: `tenants`, `default` and `routes`. Raises `SettingsError`."""
    defaults = LimitSettings(
        requests=settings.default_requests,
        tokens=settings.default_tokens,
        concurrency=settings.default_concurrency,
        spend=settings.default_spend,
    )
    found = {
        "tenants": {tenant.name: _quota(tenant, defaults) for tenant in settings.tenants},
        "default": Quota(limits=_limits(defaults)),
        "routes": {route.name: _limits(route.limits) for route in settings.routes},
    }
    if settings.storage_uri.reveal() == "memory://" and settings.workers > 1:
        _check_divisible(found, settings.workers)
    return found


def _quota(tenant: TenantSettings, defaults: LimitSettings) -> Quota:
    own = tenant.limits
    missing = {unit: getattr(defaults, unit) for unit in _UNITS if getattr(own, unit) is None}
    return Quota(
        limits=_limits(msgspec.structs.replace(own, **missing)),
        per_key=_limits(tenant.per_key),
        per_model=tuple((pattern, _limits(limits)) for pattern, limits in tenant.per_model),
        priority=tenant.priority,
    )


def _limits(written: LimitSettings) -> tuple[Limit, ...]:
    found: list[Limit] = []
    outage = OutagePolicy(written.on_outage)
    for unit, text in ((Unit.REQUESTS, written.requests), (Unit.TOKENS, written.tokens)):
        if text is not None:
            found += parse_limits(text, unit, is_shadow=unit in written.shadow, on_outage=outage)
    if written.spend is not None:
        found.append(parse_spend(written.spend, is_shadow=Unit.SPEND in written.shadow, on_outage=outage))
    if written.concurrency is not None:
        is_shadow = Unit.CONCURRENCY in written.shadow
        found.append(concurrency(written.concurrency, is_shadow=is_shadow, on_outage=outage))
    return tuple(found)


def _check_divisible(found: dict[str, Any], workers: int) -> None:
    """A limit that cannot be divided would admit nothing."""
    quotas: list[Quota] = [*found["tenants"].values(), found["default"]]
    limits = [limit for quota in quotas for limit in quota.limits + quota.per_key]
    limits += [limit for quota in quotas for _, listed in quota.per_model for limit in listed]
    limits += [limit for listed in found["routes"].values() for limit in listed]
    small = sorted({limit.phrase for limit in limits if limit.amount < workers})
    if small:
        listed = "; ".join(small)
        complaint = f"GATEWAY_WORKERS={workers}: workers share nothing on memory://, and cannot divide {listed}"
        raise SettingsError([f"{complaint}; expected fewer workers, or GATEWAY_STORAGE_URI=redis://..."])
