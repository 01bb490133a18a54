"""The price list inside the package `genai-prices`: read once, never fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Unpack

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import Cost
from gateway_middleware.metering.prices.prices import STANDARD, ZERO, PricedCall, Rates, Schedule, Tariff, cost_by

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider, TieredPrices

_VARIANT_KEYS = ("service_tier", "processing", "speed")
"""The list says of a tier `service_tier: flex`, `processing: batch` or `speed: fast`."""
_PRICED = frozenset(
    {
        "input_mtok",
        "output_mtok",
        "cache_read_mtok",
        "cache_write_mtok",
        "cache_write_1h_mtok",
        "output_reasoning_mtok",
        "requests_kcount",
    }
)
_NOT_COUNTED = frozenset(
    {
        "web_searches_kcount",
        "storage_searches_kcount",
        "social_searches_kcount",
        "code_executions_kcount",
    }
)
"""Extras that `Usage` does not count."""
_CACHED_SCHEDULES = 4096
_MAX_NAME = 256
_SLOT_SECONDS = 60
"""Prices of the list begin and end at whole minutes."""


class LibraryPrices:
    """The price list of `genai-prices`. Prices are compiled once, so that a call costs a look-up and few products.

    The model that was served is looked up first, then the one asked for. Models priced by modality (audio, images) or
    by anything but tokens are unknown: `Usage` does not tell which tokens were which. At Azure, `model` is a name the
    operator made up: without `model_served` it is taken at its word.

    `load` gives the list and its version when the first price is looked up.
    """

    def __init__(self, load: Callable[[], tuple[Sequence[Provider], str]]) -> None:
        self._load = load
        self._model = lru_cache(_CACHED_SCHEDULES)(self._find)
        self._schedule = lru_cache(_CACHED_SCHEDULES)(self._look_up)

    def cost(self, usage: Usage, **call: Unpack[PricedCall]) -> Cost | None:
        return cost_by(self.tariffs(**call), usage)

    def tariffs(self, **call: Unpack[PricedCall]) -> tuple[Tariff, ...]:
        at = call["at"]
        slot = int((_seconds(at) if isinstance(at, datetime) else at) // _SLOT_SECONDS)
        for name in (call.get("model_served"), call["model"]):
            if not name or len(name) > _MAX_NAME:
                continue
            schedule = self._schedule(call["vendor"], name, call.get("tier"), slot)
            if schedule is not None:
                return (Tariff(schedule, self._load()[1]),)
        return ()

    def _look_up(self, vendor: str | None, name: str, tier: str | None, slot: int) -> Schedule | None:
        """None: no such model. Empty: its price at this tier is not known."""
        offer = self._model(vendor, name)
        if offer is None:
            return None
        provider, model = offer
        at = datetime.fromtimestamp(slot * _SLOT_SECONDS, UTC)
        if tier in STANDARD:
            return _compiled(model.get_prices(at))
        context = dict.fromkeys(_VARIANT_KEYS, tier or "")
        # an offer of another provider's model does not take over that provider's tiers
        is_own = any(model is own for own in provider.models)
        if not is_own or not any(_applies(variant, context, at) for variant in model.price_variants or ()):
            return ()
        return _compiled(model.get_prices(at, context))

    def _find(self, vendor: str | None, name: str) -> tuple[Provider, ModelInfo] | None:
        providers = list(self._load()[0])
        for provider in providers:
            if provider.id == vendor:
                model = provider.find_model(name, all_providers=providers)
                return None if model is None else (provider, model)
        return None


def library_prices() -> LibraryPrices:
    """The list that was installed with `genai-prices`; nothing is fetched. Raises `ValueError` where it is absent."""
    if find_spec("genai_prices") is None:
        raise ValueError("The price list needs genai-prices: pip install 'gateway-middleware[prices]'")
    return LibraryPrices(load_list)


@cache
def load_list() -> tuple[Sequence[Provider], str]:
    """Read the list, which takes about a quarter of a second the first time. Raises `ImportError`."""
    import genai_prices
    from genai_prices.data import providers

    return providers, f"genai-prices/{genai_prices.__version__}"


def _seconds(at: datetime) -> float:
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _applies(variant: PriceVariant, context: Mapping[str, str], at: datetime) -> bool:
    is_active = variant.constraint is None or variant.constraint.active(at)
    return is_active and all(context.get(key) == value for key, value in variant.when.items())


def _compiled(price: ModelPrice) -> Schedule:
    """The rates in a price of the library, one set for each threshold of input tokens."""
    stated = {key: value for key, value in vars(price).items() if value is not None}
    if "input_mtok" not in stated or not stated.keys() <= _PRICED | _NOT_COUNTED:
        return ()
    starts = {-1}.union(*({tier.start for tier in getattr(value, "tiers", ())} for value in stated.values()))
    return tuple((start, _rates_above(stated, start)) for start in sorted(starts, reverse=True))


def _rates_above(stated: Mapping[str, Decimal | TieredPrices], start: int) -> Rates:
    amounts = {key: _amount(value, start) for key, value in stated.items()}
    plain = amounts["input_mtok"]
    written = amounts.get("cache_write_mtok", plain)
    return Rates(
        input=plain,
        cached=amounts.get("cache_read_mtok", plain),
        written=written,
        written_1h=amounts.get("cache_write_1h_mtok", written),
        output=amounts.get("output_mtok"),
        reasoning=amounts.get("output_reasoning_mtok"),
        fee=amounts.get("requests_kcount", ZERO) * 1000,
    )


def _amount(value: Decimal | TieredPrices, start: int) -> Decimal:
    if isinstance(value, Decimal):
        return value
    reached = [tier.price for tier in value.tiers if tier.start <= start]
    return reached[-1] if reached else value.base
