"""From a model name to the deployments behind it. A table is one immutable value that can be swapped whole."""

from __future__ import annotations

from collections import OrderedDict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Deployment, Dialect, ProviderKind, Route, Surface
from gateway_middleware.core.errors import InvalidRequestError, UnknownModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway_middleware.core.domain import Tenant

_MOST_RESOLVED = 1024
_EVERYTHING = ("*",)


class ProviderEntry(msgspec.Struct, frozen=True):
    """A configured provider as the table needs to know it."""

    name: str
    kind: ProviderKind
    supports: Callable[[Surface], bool]


class RouteTable:
    """Explicit routes first, then `provider/model`, then plain names by provider.

    A plain name goes to the first configured provider that speaks the surface; names that begin with `claude` prefer
    Anthropic, clients of the Azure dialect prefer Azure, others prefer OpenAI.
    """

    def __init__(self, routes: Mapping[str, Route], providers: Iterable[ProviderEntry]) -> None:
        self._routes = dict(routes)
        self._providers = {entry.name: entry for entry in providers}
        self._by_surface = {
            (name, surface): found
            for name, route in self._routes.items()
            for surface in Surface
            if (found := self._serving(route, surface)) is not None
        }
        self._resolved: OrderedDict[tuple[str, Surface, Dialect], Route] = OrderedDict()
        self._allowed: dict[tuple[tuple[str, ...], str], bool] = {}

    def resolve(self, model: str, *, surface: Surface, dialect: Dialect, tenant: Tenant) -> Route:
        """The route of a model that this tenant may call on this surface.

        Raises `UnknownModelError`, the same for a model that is not there and one that is not allowed, and
        `InvalidRequestError` for one that is there but not on this surface.
        """
        if not self._may(tenant, model):
            raise unknown(model)
        route = self._by_surface.get((model, surface))
        if route is not None:
            return route
        if model in self._routes:
            raise self._not_here(model, surface, self._routes[model])
        key = (model, surface, dialect)
        route = self._resolved.get(key)
        if route is None:
            return self._remember(key, self._derive(model, surface, dialect))
        self._resolved.move_to_end(key)
        return route

    def visible(self, tenant: Tenant) -> tuple[Route, ...]:
        """The explicit routes this tenant may call, in their written order."""
        return tuple(route for name, route in self._routes.items() if self._may(tenant, name))

    def find(self, model: str, tenant: Tenant) -> Route | None:
        """The route of a name on whatever surface, or None when it does not exist for this tenant."""
        if not self._may(tenant, model):
            return None
        if model in self._routes:
            return self._routes[model]
        provider, _, name = model.partition("/")
        if provider in self._providers and name:
            return _single(model, provider, name)
        return None

    def _may(self, tenant: Tenant, model: str) -> bool:
        if tenant.models == _EVERYTHING:
            return True
        key = (tenant.models, model)
        may = self._allowed.get(key)
        if may is None:
            may = any(fnmatchcase(model, pattern) for pattern in tenant.models)
            if len(self._allowed) >= _MOST_RESOLVED:
                self._allowed.clear()
            self._allowed[key] = may
        return may

    def _serving(self, route: Route, surface: Surface) -> Route | None:
        lists = (route.deployments, route.on_context_window, route.on_content_policy)
        kept = [tuple(d for d in listed if self._providers[d.provider].supports(surface)) for listed in lists]
        if kept == list(lists):
            return route
        if not kept[0]:
            return None
        return msgspec.structs.replace(route, deployments=kept[0], on_context_window=kept[1], on_content_policy=kept[2])

    def _derive(self, model: str, surface: Surface, dialect: Dialect) -> Route:
        provider, _, name = model.partition("/")
        if provider in self._providers and name:
            route = _single(model, provider, name)
            if not self._providers[provider].supports(surface):
                raise self._not_here(model, surface, route)
            return route
        entry = self._by_preference(model, surface, dialect)
        if entry is None:
            raise unknown(model)
        return _single(model, entry.name, model)

    def _by_preference(self, model: str, surface: Surface, dialect: Dialect) -> ProviderEntry | None:
        able = [entry for entry in self._providers.values() if entry.supports(surface)]
        if model.startswith("claude"):
            preferred = ProviderKind.ANTHROPIC
            if all(entry.kind is not preferred for entry in able) and self._has(preferred):
                raise self._not_here(model, surface, None)
        else:
            preferred = ProviderKind.AZURE_OPENAI if dialect is Dialect.AZURE else ProviderKind.OPENAI
        return min(able, key=lambda entry: entry.kind is not preferred, default=None)

    def _has(self, kind: ProviderKind) -> bool:
        return any(entry.kind is kind for entry in self._providers.values())

    def _remember(self, key: tuple[str, Surface, Dialect], route: Route) -> Route:
        self._resolved[key] = route
        if len(self._resolved) > _MOST_RESOLVED:
            self._resolved.popitem(last=False)
        return route

    def _not_here(self, model: str, surface: Surface, route: Route | None) -> InvalidRequestError:
        names = [d.provider for d in route.deployments] if route is not None else []
        entries = [self._providers[n] for n in names] or [
            e for e in self._providers.values() if e.kind is ProviderKind.ANTHROPIC
        ]
        surfaces = [s.value for s in Surface if any(entry.supports(s) for entry in entries)]
        return InvalidRequestError(
            f"The model `{model}` is not available on {surface.value}; it is on {', '.join(surfaces)}.",
            param="model",
            code="unsupported_surface",
        )


def _single(name: str, provider: str, model: str) -> Route:
    return Route(name=name, deployments=(Deployment(provider=provider, model=model),), is_configured=False)


def unknown(model: str) -> UnknownModelError:
    """The one answer for a model that a tenant cannot call, whatever the reason."""
    return UnknownModelError(f"The model `{model}` does not exist or you do not have access to it.", param="model")
