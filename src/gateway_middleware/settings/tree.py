"""The values that `Settings` is made of: providers, routes, tenants and their limits. Frozen and checked."""

from __future__ import annotations

import msgspec

from gateway_middleware.core.domain import (
    Affinity,
    Balance,
    Deployment,
    Requirements,
    Retirement,
    Route,
    Surface,
    Tenant,
    Timeouts,
    Translate,
)
from gateway_middleware.core.provider_api import ProviderConfig
from gateway_middleware.core.secret import Secret
from gateway_middleware.tenancy.keys import TenantKey


class BreakerNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's circuit breakers do otherwise than by default; None: by default. Durations are seconds."""

    consecutive: int | None = None
    window: float | None = None
    min_calls: int | None = None
    failure_ratio: float | None = None
    slow_ttft: float | None = None
    slow_ratio: float | None = None
    open_base: float | None = None
    open_cap: float | None = None
    probe_successes: int | None = None

    @property
    def given(self) -> dict[str, float]:
        """Those that were set."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


class ProviderKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of several keys of a provider. `name` may be shown; a key without `weight` serves when no other one can."""

    name: str
    secret: Secret
    weight: float = 1.0


class ProviderSettings(ProviderConfig, frozen=True, kw_only=True):
    """What the adapter of a provider is made of, and what the rest of the gateway must know of it.

    `base_url` has no slash at its end. `is_insecure`: plain `http://` to another machine was asked for. `labels` are
    the operator's own words, which tenants may require. `keys` are all that it has, where these are several: `api_key`
    is the first of them.
    """

    is_insecure: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    keys: tuple[ProviderKey, ...] = ()
    breaker: BreakerNumbers = BreakerNumbers()


GUARD_STAGES = ("request", "answer", "stream")
"""What a guard may be shown."""


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A guard behind HTTP. `deadline` is in seconds, `window` and `overlap` in characters of a stream."""

    name: str
    url: str
    token: Secret | None = None
    stages: tuple[str, ...] = GUARD_STAGES
    deadline: float = 1.0
    fails_open: bool = False
    is_shadow: bool = False
    window: int = 200
    overlap: int = 64


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in their written notation. `shadow` names the units whose limits only report."""

    requests: str | None = None
    tokens: str | None = None
    concurrency: int | None = None
    spend: str | None = None
    shadow: tuple[str, ...] = ()
    on_outage: str = "share"


class DeploymentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a route. `timeouts` are complete: those of provider, route and entry laid over each other.

    `speak`: the surface of an OpenAI or Azure provider that translated calls go to; None: as the model has it.
    `max_output`: the longest output of the model, in tokens; None: as is known of its name.
    """

    provider: str
    model: str
    weight: int = 1
    priority: int = 0
    timeouts: Timeouts | None = None
    speak: Surface | None = None
    max_output: int | None = None

    @property
    def deployment(self) -> Deployment:
        """The noun that travels with a call."""
        return Deployment(
            provider=self.provider,
            model=self.model,
            priority=self.priority,
            weight=self.weight,
            timeouts=self.timeouts,
            speak=self.speak,
            max_output=self.max_output,
        )


class OnBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The route that calls go on with when `percent` of a limit on spend are used."""

    route: str
    percent: int = 100


class RouteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A model name and its targets: by priority, lowest number first, then as they are written."""

    name: str
    deployments: tuple[DeploymentSettings, ...]
    balance: Balance = Balance.ORDER
    affinity: Affinity = Affinity()
    max_attempts: int | None = None
    on_context_window: tuple[DeploymentSettings, ...] = ()
    on_content_policy: tuple[DeploymentSettings, ...] = ()
    hedge_after: float | None = None
    translate: Translate | None = None
    retirement: Retirement | None = None
    limits: LimitSettings = LimitSettings()
    on_budget: OnBudget | None = None

    @property
    def everything(self) -> tuple[DeploymentSettings, ...]:
        """All deployments that the route names, those for special failures too."""
        return self.deployments + self.on_context_window + self.on_content_policy

    @property
    def route(self) -> Route:
        """The noun that travels with a call."""
        return Route(
            name=self.name,
            deployments=_nouns(self.deployments),
            balance=self.balance,
            affinity=self.affinity,
            max_attempts=self.max_attempts,
            on_context_window=_nouns(self.on_context_window),
            on_content_policy=_nouns(self.on_content_policy),
            hedge_after=self.hedge_after,
            translate=self.translate,
            retirement=self.retirement,
        )


def _nouns(listed: tuple[DeploymentSettings, ...]) -> tuple[Deployment, ...]:
    return tuple(d.deployment for d in listed)


class GroupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits that some tenants have together."""

    name: str
    tenants: tuple[str, ...] = ()
    limits: LimitSettings = LimitSettings()
    on_budget: OnBudget | None = None


class TenantSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays. `models` are shell patterns; without `keys` it is known by header or token alone.

    `on_unpriced`: what becomes of a call without a known price under a limit on spend, `refuse` or `allow`.
    `on_policy_outage`: what becomes of its calls while the policy-adapter does not answer; None: what of all others.
    """

    name: str
    keys: tuple[TenantKey, ...]
    limits: LimitSettings = LimitSettings()
    per_key: LimitSettings = LimitSettings()
    per_model: tuple[tuple[str, LimitSettings], ...] = ()
    per_end_user: LimitSettings = LimitSettings()
    priority: int = 0
    models: tuple[str, ...] = ("*",)
    on_unpriced: str = "refuse"
    on_budget: OnBudget | None = None
    require: Requirements = ()
    on_policy_outage: str | None = None
    credentials: tuple[tuple[str, Secret], ...] = ()
    """Keys of the tenant's own, by provider, that its calls carry instead of the provider's."""
    client_provider: str | None = None
    """The one provider that is asked with a credential of the caller's own, which comes with the call."""

    @property
    def tenant(self) -> Tenant:
        """The noun that travels with a call."""
        return Tenant(name=self.name, models=self.models, require=self.require)

    @property
    def limits_spend(self) -> bool:
        """Whether any limit of its own is one of spend."""
        listed = (self.limits, self.per_key, self.per_end_user, *(limits for _, limits in self.per_model))
        return any(limits.spend is not None for limits in listed)
