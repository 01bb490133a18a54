"""The configuration of the moment: providers and routes, which a reload swaps while calls are in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from time import time
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.composition.accounts import payers_by_tenant, provider_configs
from gateway_middleware.composition.part import Commit, Lifeless
from gateway_middleware.core.domain import Dialect, Surface
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.core.models import KnownModels
from gateway_middleware.core.secret import redact
from gateway_middleware.intake.routing import RouteTable
from gateway_middleware.intake.step_downs import StepDowns
from gateway_middleware.translation.provider import TranslatingProvider

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Deployment
    from gateway_middleware.core.provider_api import Provider, ProviderConfig, ProviderKind
    from gateway_middleware.core.secret import Secret
    from gateway_middleware.intake.step_downs import Step
    from gateway_middleware.settings import Settings

_MAX_TOKENS = 64
_OPENAI_HOST = "api.openai.com"
_AZURE_VERSIONS = frozenset({None, "v1", "preview", "latest"})
"""Those of Azure's v1 API."""


class LiveConfig(Lifeless):
    """What calls look at: `settings`, `providers`, the route `table`, what is known of `models`.

    `providers` is one dictionary for as long as the gateway lives: a provider that is gone can still be reached by the
    calls that began with it. `table` is another value after each reload.
    """

    takes = frozenset({"providers", "routes", "max_event_bytes", "translation", "models"})

    def __init__(self, settings: Settings, kinds: Mapping[str, ProviderKind]) -> None:
        self._kinds = kinds
        self.providers = make_providers(settings, kinds)
        self.scrub = Scrubber(self.providers.values())
        self.made_steps: dict[str, Step] = {}
        """Where calls of tenants that were made at run time go on when a budget is spent: `RuntimeKeys` keeps it."""
        self._take(settings, make_route_table(settings, self.providers, self.made_steps))

    def is_native(self, provider: str, surface: Surface) -> bool:
        """Whether a provider speaks a surface itself, without translation."""
        return self.providers[provider].is_native(surface)

    def _take(self, settings: Settings, table: RouteTable) -> None:
        self.settings = settings
        self._config_hash: str | None = None
        self.models = KnownModels(dict(settings.models))
        self.table = table
        self.deployments = deployments_of(settings)
        self.deployment_keys = frozenset(deployment.key for deployment in self.deployments)
        self.route_names = frozenset(route.name for route in settings.routes)
        self.provider_names = tuple(p.name for p in settings.providers)
        self._labels = {p.name: p.labels for p in settings.providers}

    def labels_of(self, provider: str) -> tuple[tuple[str, str], ...]:
        """The operator's labels of a provider."""
        return self._labels.get(provider, ())

    def prepare(self, new: Settings) -> Commit:
        """Other providers and routes."""
        providers = make_providers(new, self._kinds)
        table = make_route_table(new, providers, self.made_steps)

        def commit() -> None:
            self.providers.update(providers)
            self.scrub.add(providers.values())
            self._take(new, table)

        return commit

    @property
    def config_hash(self) -> str:
        """Of the settings of the moment; worked out once for each."""
        if self._config_hash is None:
            self._config_hash = self.settings.config_hash
        return self._config_hash

    def sunsets(self) -> dict[str, float]:
        """When routes end, by their names, as far as that is known: seconds since the epoch."""
        ends = {route.name: route.retirement.sunset for route in self.settings.routes if route.retirement is not None}
        return {name: end for name, end in ends.items() if end is not None}

    def configured(self) -> dict[str, Provider]:
        """The providers of the configuration of the moment."""
        return {name: self.providers[name] for name in self.provider_names}


class Scrubber:
    """Replaces the credentials of providers in texts. It remembers those that were replaced by a reload."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._tokens: deque[str] = deque(maxlen=_MAX_TOKENS)
        self.add(providers)

    def add(self, providers: Iterable[Provider]) -> None:
        """Know the credentials of these as well."""
        self._secrets |= {secret for provider in providers for secret in provider.secrets}

    def hide(self, token: str) -> None:
        """Know this token as well; the oldest of many is forgotten, for it has long expired."""
        self._tokens.append(token)

    def __call__(self, text: str) -> str:
        return redact(text, self._secrets.union(self._tokens))


def revealed(secret: Secret | None) -> str | None:
    """The secret itself, where there is one."""
    return None if secret is None else secret.reveal()


def make_providers(settings: Settings, kinds: Mapping[str, ProviderKind]) -> dict[str, TranslatingProvider]:
    """The adapters of all accounts at providers, by name. Raises `SettingsError` for a kind that is not among these."""
    unknown = [
        f"provider {p.name}: no kind {p.kind!r}; expected one of {', '.join(kinds)}"
        for p in settings.providers
        if p.kind not in kinds
    ]
    if unknown:
        raise SettingsError(unknown)
    limit, models = settings.max_event_bytes, KnownModels(dict(settings.models))
    return {
        account: _translating(p, kinds[p.kind](msgspec.structs.replace(p, max_event_bytes=limit)), models)
        for account, p in provider_configs(settings).items()
    }


def _translating(config: ProviderConfig, adapter: Provider, models: KnownModels) -> TranslatingProvider:
    """The adapter for clients of every dialect. Responses are sure at the vendor, and where the operator names them."""
    surfaces = config.surfaces
    is_at_vendor = adapter.origin.host == _OPENAI_HOST or (
        adapter.dialect is Dialect.AZURE and config.api_version in _AZURE_VERSIONS
    )
    has_responses = is_at_vendor if surfaces is None else Surface.RESPONSES in surfaces
    return TranslatingProvider(adapter, now=time, native=surfaces, has_responses=has_responses, models=models)


def make_route_table(
    settings: Settings, providers: Mapping[str, TranslatingProvider], made_steps: Mapping[str, Step]
) -> RouteTable:
    """The routes of the configuration. `made_steps` may change as long as the table is used."""
    return RouteTable(
        {route.name: route.route for route in settings.routes},
        {provider.name: providers[provider.name] for provider in settings.providers},
        accounts=payers_by_tenant(settings),
        keys={provider.name: frozenset(key.name for key in provider.keys) for provider in settings.providers},
        is_native=lambda name, surface: providers[name].is_native(surface),
        translation=settings.translation,
        labels={provider.name: dict(provider.labels) for provider in settings.providers},
        steps=step_downs(settings, made_steps),
    )


def step_downs(settings: Settings, made: Mapping[str, Step]) -> StepDowns:
    """Where calls go on when a budget is spent; what a tenant says is stronger than what its group does."""
    groups = {tenant: group.on_budget for group in settings.groups for tenant in group.tenants if group.on_budget}
    tenants = {tenant.name: tenant.on_budget for tenant in settings.tenants if tenant.on_budget}
    routes = {route.name: route.on_budget for route in settings.routes if route.on_budget}
    return StepDowns(routes, tenants, made, groups)


def deployments_of(settings: Settings) -> list[Deployment]:
    """Every deployment that a route names."""
    return [target.deployment for route in settings.routes for target in route.everything]
