"""The parts of the configuration: frozen, checked, references followed."""

from __future__ import annotations

import msgspec

from gateway_middleware.domain import Deployment, ProviderKind, Route, Timeouts
from gateway_middleware.settings.secret import Secret


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor's wire format, address and credential. `base_url` is what the vendor's SDK takes, no slash at its end.

    `api_version` None means the v1 API of Azure and the adapter's own default for Anthropic. `is_insecure`: plain
    `http://` to another machine was asked for.
    """

    name: str
    kind: ProviderKind
    base_url: str
    api_key: Secret
    api_version: str | None = None
    timeouts: Timeouts = Timeouts()
    is_insecure: bool = False
    organization: str | None = None
    project: str | None = None


class DeploymentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a route. `timeouts` are complete: those of provider, route and entry laid over each other."""

    provider: str
    model: str
    weight: int = 1
    priority: int = 0
    timeouts: Timeouts | None = None

    @property
    def deployment(self) -> Deployment:
        """The noun that travels with a call."""
        return Deployment(provider=self.provider, model=self.model, weight=self.weight, timeouts=self.timeouts)


class RouteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A model name and its targets: by priority, lowest number first, then as they are written."""

    name: str
    deployments: tuple[DeploymentSettings, ...]
    max_attempts: int | None = None

    @property
    def route(self) -> Route:
        """The noun that travels with a call."""
        return Route(name=self.name, deployments=tuple(d.deployment for d in self.deployments))


class TenantSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays. `keys` are `sha256:<hex>` or `hmac-sha256:<hex>` in lower case; `models` are shell patterns."""

    name: str
    keys: tuple[str, ...]
    requests: str | None = None
    tokens: str | None = None
    concurrency: int | None = None
    spend: str | None = None
    models: tuple[str, ...] = ("*",)
