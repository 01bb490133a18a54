"""Finds the deployments behind a model name. A table never changes: a reload makes another one."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import (
    MODEL_SURFACES,
    BudgetStep,
    Deployment,
    Dialect,
    Route,
    Surface,
    Translate,
    parts_of_place,
)
from gateway_middleware.core.errors import InvalidRequestError, PermissionDeniedError, UnknownModelError
from gateway_middleware.core.models import facts_of
from gateway_middleware.intake.accounts import Accounts
from gateway_middleware.intake.residency import Residency, refusal
from gateway_middleware.intake.step_downs import StepDowns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from gateway_middleware.core.domain import Payer, Requirements, Tenant
    from gateway_middleware.core.provider_api import Provider

_MAX_RESOLVED = 1024
_EVERYTHING = ("*",)
_COUNTING = frozenset({Surface.COUNT_TOKENS, Surface.INPUT_TOKENS})
_WILDCARDS = frozenset("*?[")
_MIN_SUGGESTED = 4
"""Two edits of a shorter name may be another name altogether."""
_PUBLISHERS = frozenset({
    "ai21", "amazon", "anthropic", "azure", "bigcode", "cohere", "deepseek", "deepseek-ai", "google", "meta",
    "meta-llama", "microsoft", "minimax", "mistral", "mistralai", "moonshotai", "nvidia", "openai", "perplexity",
    "qwen", "stabilityai", "x-ai", "xai", "z-ai", "zai-org",
})  # fmt: skip  # one a line would hide the class
"""Who publishes models under names such as `Qwen/Qwen3`: the first part of these is no misspelt provider."""


class RouteTable:
    """Explicit routes first, then `provider/model`, then plain names by provider.

    A plain name goes to the first configured provider that speaks the surface; before others come those to whom names
    with this beginning belong (`claude`), else those whose own dialect is the client's. OpenAI's model names do not
    go to a provider of the Anthropic dialect while there is another.

    `is_native` says whether a provider (by name) speaks a surface without translation; None: all that it supports.
    `translation` is for routes that say nothing of it. `labels` are those of each provider.
    `accounts` says, by tenant and provider, who brings the credential, where that is not the gateway; `keys` are the
    names of each provider's several keys; `steps` say where calls go on when a budget is spent: it is what the tenant
    may call as well, or there is no step.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        providers: Mapping[str, Provider],
        *,
        is_native: Callable[[str, Surface], bool] | None = None,
        translation: Translate = Translate.ALLOW,
        labels: Mapping[str, Mapping[str, str]] | None = None,
        accounts: Mapping[str, Mapping[str, Payer]] | None = None,
        keys: Mapping[str, Collection[str]] | None = None,
        steps: StepDowns | None = None,
    ) -> None:
        self._accounts = Accounts(accounts or {}, keys or {})
        self._residency = Residency(labels or {})
        self._steps = steps or StepDowns()
        self._is_native = is_native
        self._translation = translation
        self._routes = {name: self._with_translation(route) for name, route in routes.items()}
        self._providers = dict(providers)
        self._by_surface = {
            (name, surface): able
            for name, route in self._routes.items()
            for surface in MODEL_SURFACES
            if (able := self._serving(route, surface)) is not None
        }
        self._resolved: OrderedDict[tuple[str, Surface, Dialect, Requirements], Route] = OrderedDict()
        self._allowed: dict[tuple[tuple[str, ...], str], bool] = {}

    def resolve(self, model: str, *, surface: Surface, dialect: Dialect, tenant: Tenant) -> Route:
        """The route of a model that this tenant may call on this surface.

        Raises `UnknownModelError`, the same for a model that is not there and one that is not allowed, and
        `InvalidRequestError` for one that is there but not on this surface, `PermissionDeniedError` for one that leads
        to no provider as the tenant requires it.
        """
        route = self._permitted(model, surface, dialect, tenant)
        step = self._steps.of(route, tenant.name)
        if step is None:
            return route
        with suppress(InvalidRequestError, PermissionDeniedError, UnknownModelError):  # then there is no step
            cheaper = self._permitted(step.route, surface, dialect, tenant)
            return msgspec.structs.replace(
                route,
                on_budget=BudgetStep(route=cheaper, percent=step.percent),
                takes_client_credential=route.takes_client_credential or cheaper.takes_client_credential,
            )
        return route

    def _permitted(self, model: str, surface: Surface, dialect: Dialect, tenant: Tenant) -> Route:
        if not self._may(tenant, model):
            raise unknown(model)
        route = self._resolve(model, surface, dialect, tenant.require)
        if tenant.require:
            route = self._residency.narrowed(route, tenant.require)
        return self._accounts.charged(route, tenant.name)

    def _resolve(self, model: str, surface: Surface, dialect: Dialect, require: Requirements) -> Route:
        route = self._by_surface.get((model, surface))
        if route is not None:
            return route
        if model in self._routes:
            raise self._not_here(model, surface, [d.provider for d in self._routes[model].deployments])
        key = (model, surface, dialect, require)
        route = self._resolved.get(key)
        if route is None:
            return self._remember(key, self._derive(*key))
        self._resolved.move_to_end(key)
        return route

    def holding(self, place: str | None, *, dialect: Dialect, tenant: Tenant) -> Route | None:
        """The way to a response that is stored at this place; None: no provider there stores any.

        Of a response whose place is not known (None) it is that to the first provider that stores responses,
        before others to those of the client's own dialect. Raises `PermissionDeniedError` where a provider is not as
        the tenant requires it.
        """
        if place is None:
            provider, key, model = self._first_with_responses(dialect, tenant.require), None, "responses"
        else:
            provider, key, model = parts_of_place(place)
        if provider not in self._providers or not self._has_responses(provider):
            return None
        route = _single(f"{provider}/{model}", provider, model)
        if tenant.require:
            route = self._residency.narrowed(route, tenant.require)
        charged = self._accounts.charged(route, tenant.name)
        return self._narrowed(charged, charged.deployments, key)

    def narrowed(self, route: Route, place: str) -> Route:
        """The route with the one deployment and key that hold something; itself where it has no such deployment."""
        provider, key, model = parts_of_place(place)
        holders = tuple(d for d in route.deployments if d.provider == provider and d.model == model)
        return self._narrowed(route, holders, key) if holders else route

    def _narrowed(self, route: Route, holders: Iterable[Deployment], key: str | None) -> Route:
        by_key = tuple(self._accounts.by_key(deployment, key) for deployment in holders)
        return msgspec.structs.replace(route, deployments=by_key, on_budget=None)

    def _has_responses(self, provider: str) -> bool:
        """Whether it has the API itself, so that it may have stored something."""
        return self._supports(provider, Surface.RESPONSES, Translate.OFF)

    def _first_with_responses(self, dialect: Dialect, require: Requirements) -> str:
        """Empty where there is none."""
        able = [p for p in self._providers if self._has_responses(p) and self._residency.permits(p, require)]
        return min(able, key=lambda name: self._providers[name].dialect is not dialect, default="")

    def visible(self, tenant: Tenant, dialect: Dialect) -> tuple[Route, ...]:
        """What this tenant may call, as far as it has names: explicit routes, then models that its `models` spell out.

        Each can be called on some surface, as `find` finds it.
        """
        of_terms = () if tenant.terms is None else tenant.terms.models
        patterns = (*tenant.models, *tenant.key_models, *of_terms)
        named = [pattern for pattern in patterns if not _WILDCARDS.intersection(pattern)]
        found = (self.find(name, tenant, dialect) for name in dict.fromkeys([*self._routes, *named]))
        return tuple(route for route in found if route is not None)

    def find(self, model: str, tenant: Tenant, dialect: Dialect) -> Route | None:
        """What a call of this name leads to on the first surface that has it; None where none has."""
        for surface in MODEL_SURFACES:
            with suppress(InvalidRequestError, PermissionDeniedError, UnknownModelError):
                return self.resolve(model, surface=surface, dialect=dialect, tenant=tenant)
        return None

    def _with_translation(self, route: Route) -> Route:
        if route.translate is not None or self._translation is Translate.ALLOW:
            return route
        return msgspec.structs.replace(route, translate=self._translation)

    def _supports(self, provider: str, surface: Surface, translate: Translate | None) -> bool:
        if translate is Translate.OFF and self._is_native is not None:
            return self._is_native(provider, surface)
        return self._providers[provider].supports(surface)

    def _may(self, tenant: Tenant, model: str) -> bool:
        terms = tenant.terms
        of_key = self._matches(tenant.key_models, model)
        return of_key and self._matches(tenant.models, model) and (terms is None or self._matches(terms.models, model))

    def _matches(self, patterns: tuple[str, ...], model: str) -> bool:
        if patterns == _EVERYTHING:
            return True
        key = (patterns, model)
        may = self._allowed.get(key)
        if may is None:
            may = model in patterns or any(fnmatchcase(model, pattern) for pattern in patterns)
            if len(self._allowed) >= _MAX_RESOLVED:
                self._allowed.clear()
            self._allowed[key] = may
        return may

    def _serving(self, route: Route, surface: Surface) -> Route | None:
        lists = (route.deployments, route.on_context_window, route.on_content_policy)
        able = [tuple(d for d in listed if self._supports(d.provider, surface, route.translate)) for listed in lists]
        if surface in _COUNTING and self._is_native is not None:
            counting = tuple(d for d in able[0] if self._is_native(d.provider, surface))
            able[0] = counting or able[0]
        if able == list(lists):
            return route
        if not able[0]:
            return None
        return msgspec.structs.replace(route, deployments=able[0], on_context_window=able[1], on_content_policy=able[2])

    def _derive(self, model: str, surface: Surface, dialect: Dialect, require: Requirements) -> Route:
        provider, _, name = model.partition("/")
        if provider in self._providers and name:
            if not self._supports(provider, surface, self._translation):
                raise self._not_here(model, surface, [provider])
            return self._with_translation(_single(model, provider, name))
        if name and provider[:1].isalnum() and provider.casefold() not in _PUBLISHERS:
            self._complain_about_misspelling(model, provider, name)
        chosen = self._by_preference(model, surface, dialect, require)
        if chosen is None:
            raise unknown(model)
        return self._with_translation(_single(model, chosen, model))

    def _complain_about_misspelling(self, model: str, provider: str, name: str) -> None:
        """Raises `UnknownModelError` with a suggestion where the provider's name is nearly a configured one."""
        for known in self._providers:
            if len(known) >= _MIN_SUGGESTED and is_within(2, provider.casefold(), known.casefold()):
                message = f"The model `{model}` does not exist: no provider is named `{provider}`."
                raise UnknownModelError(f"{message} Did you mean `{known}/{name}`?", param="model")

    def _by_preference(self, model: str, surface: Surface, dialect: Dialect, require: Requirements) -> str | None:
        """The name of the provider for a model without a route."""
        owners = self._owners(model)
        able = [name for name in owners or self._providers if self._supports(name, surface, self._translation)]
        if facts_of(model).is_openai:
            able = [name for name in able if self._providers[name].dialect is not Dialect.ANTHROPIC] or able
        if owners and not able:
            raise self._not_here(model, surface, owners)
        permitted = [name for name in able if self._residency.permits(name, require)]
        if able and not permitted:
            raise refusal(model, require)
        return min(permitted, key=lambda name: self._providers[name].dialect is not dialect, default=None)

    def _owners(self, model: str) -> list[str]:
        """The configured providers to whom names with this beginning belong."""
        return [name for name, provider in self._providers.items() if model.startswith(provider.model_prefixes)]

    def _remember(self, key: tuple[str, Surface, Dialect, Requirements], route: Route) -> Route:
        self._resolved[key] = route
        if len(self._resolved) > _MAX_RESOLVED:
            self._resolved.popitem(last=False)
        return route

    def _not_here(self, model: str, surface: Surface, names: list[str]) -> InvalidRequestError:
        """`names` are those of the providers that have the model."""
        able = [s for s in MODEL_SURFACES if any(self._supports(name, s, self._translation) for name in names)]
        return InvalidRequestError(
            f"The model `{model}` is not available on {surface.value}; it is on {', '.join(able)}.",
            param="model",
            code="unsupported_surface",
        )


def _single(name: str, provider: str, model: str) -> Route:
    return Route(name=name, deployments=(Deployment(provider=provider, model=model),), is_configured=False)


def unknown(model: str) -> UnknownModelError:
    """The one answer for a model that a tenant cannot call, whatever the reason."""
    return UnknownModelError(f"The model `{model}` does not exist or you do not have access to it.", param="model")


def is_within(edits: int, one: str, other: str) -> bool:
    """Whether so many letters put in, left out or exchanged make one text of the other."""
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    if not one or not other:
        return len(one) + len(other) <= edits
    changes = ((one[1:], other), (one, other[1:]), (one[1:], other[1:]))
    return edits > 0 and any(is_within(edits - 1, *pair) for pair in changes)
