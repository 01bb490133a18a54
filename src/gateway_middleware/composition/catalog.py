"""What a tenant may call, with what is known of it: context window, longest output, price, end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.domain import Retirement
from gateway_middleware.operations.catalog import ModelEntry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.composition.model_lists import ModelLists
    from gateway_middleware.composition.pricing import CallPricing
    from gateway_middleware.core.domain import Deployment, Dialect, Route, Tenant
    from gateway_middleware.metering.prices.prices import Rates
    from gateway_middleware.providers.model_list import ListedModel

_PLAIN = Retirement()
_RATES = {"input": "input", "cached_input": "cached", "cache_write": "written", "output": "output"}
"""Names in a document, and what they are called in `Rates`."""


class ModelCatalog:
    """Entries of the routes; where there are none, of the models that providers list.

    A route promises what all of its deployments can do: of windows and outputs the smallest, of prices the highest;
    what is not known of one of them is not known of the route.
    """

    def __init__(self, config: LiveConfig, lists: ModelLists, pricing: CallPricing) -> None:
        self._config = config
        self._lists = lists
        self._pricing = pricing

    async def visible(self, tenant: Tenant, dialect: Dialect) -> list[ModelEntry]:
        """Every name that this tenant may call."""
        entries = {route.name: self._entry(route) for route in self._config.table.visible(tenant, dialect)}
        if not self._config.route_names:
            for provider, listed in (await self._lists.all()).items():
                for model in listed:
                    entry = self._listed(provider, model, tenant, dialect)
                    if entry is not None:
                        entries.setdefault(entry.id, entry)
        return list(entries.values())

    async def find(self, model: str, tenant: Tenant, dialect: Dialect) -> ModelEntry | None:
        """One of them, or None; a name that no list has may be called as well, and is found."""
        route = self._config.table.find(model, tenant, dialect)
        if route is None:
            return None
        deployment = route.deployments[0]
        if route.is_configured:
            return self._entry(route)
        listed = (await self._lists.all()).get(deployment.provider, ())
        return self._entry(route, next((entry for entry in listed if entry.id == deployment.model), None))

    def _listed(self, provider: str, model: ListedModel, tenant: Tenant, dialect: Dialect) -> ModelEntry | None:
        """Under its own name, where that leads to this provider, else with the provider's before it."""
        for name in (model.id, f"{provider}/{model.id}"):
            route = self._config.table.find(name, tenant, dialect)
            if route is not None and route.deployments[0].provider == provider:
                return self._entry(route, model)
        return None

    def _entry(self, route: Route, listed: ListedModel | None = None) -> ModelEntry:
        models = self._config.models
        override = models.override(route.name)
        first = route.deployments[0]
        own = models.override(first.key, first.model)
        facts = [models.facts(deployment) for deployment in route.deployments]
        window, output = _least(f.context_window for f in facts), _least(f.max_output for f in facts)
        entry = ModelEntry(
            id=route.name,
            owner=first.provider,
            display_name=override.display_name or own.display_name,
            context_window=override.context_window or window,
            max_output_tokens=override.max_output_tokens or output,
            pricing=self._pricing_of(route.deployments),
            retirement=route.retirement or _PLAIN,
        )
        return entry if listed is None else _with_listed(entry, listed)

    def _pricing_of(self, deployments: tuple[Deployment, ...]) -> dict[str, str] | None:
        rates = [self._pricing.rates_of(deployment) for deployment in deployments]
        known = [rate for rate in rates if rate is not None]
        return _dearest(known) if len(known) == len(rates) else None


def _with_listed(entry: ModelEntry, listed: ListedModel) -> ModelEntry:
    """What its provider says of a model is for what is not known of it otherwise."""
    return msgspec.structs.replace(
        entry,
        created=listed.created or 0,
        display_name=entry.display_name or listed.display_name,
        context_window=entry.context_window or listed.context_window,
        max_output_tokens=entry.max_output_tokens or listed.max_output_tokens,
    )


def _least(numbers: Iterable[int | None]) -> int | None:
    """The smallest, None where one is not known."""
    listed = list(numbers)
    return None if None in listed else min(number for number in listed if number is not None)


def _dearest(rates: list[Rates]) -> dict[str, str]:
    """Dollars per million tokens, the highest of each kind that one of them has."""
    highest = {}
    for name, field in _RATES.items():
        amounts = [amount for rate in rates if (amount := getattr(rate, field)) is not None]
        if amounts:
            highest[name] = _digits(max(amounts))
    return {"currency": "USD", "per_tokens": "1000000", **highest}


def _digits(amount: Decimal) -> str:
    """Plain digits: `0.15`, never `1.5E-1`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
