"""The price list inside the package `genai-prices`: never fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Unpack

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import Cost
from gateway_middleware.metering.prices.installed_table import installed_table
from gateway_middleware.metering.prices.price_table import Amounts, Offer, PriceTable
from gateway_middleware.metering.prices.prices import STANDARD, ZERO, PricedCall, Rates, Schedule, Tariff, cost_by

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


class ListedPrices:
    """The price list of `genai-prices`. Prices are compiled once, so that a call costs a look-up and few products.

    The model that was served is looked up first, then the one asked for. Models priced by modality (audio, images) or
    by anything but tokens are unknown: `Usage` does not tell which tokens were which. At Azure, `model` is a name the
    operator made up: without `model_served` it is taken at its word.

    `table` gives the list, when the first price is looked up.
    """

    def __init__(self, table: Callable[[], PriceTable]) -> None:
        self._table = cache(table)
        self._offer = lru_cache(_CACHED_SCHEDULES)(self._find)
        self._schedule = lru_cache(_CACHED_SCHEDULES)(self._look_up)

    def load(self) -> None:
        """Have the list at hand. Blocks, for a third of a second where it was never read on this machine."""
        self._table()

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
                return (Tariff(schedule, self._table().version),)
        return ()

    def _look_up(self, vendor: str | None, name: str, tier: str | None, slot: int) -> Schedule | None:
        """None: no such model. Empty: its price at this tier is not known."""
        offer = self._offer(vendor, name)
        if offer is None:
            return None
        at = datetime.fromtimestamp(slot * _SLOT_SECONDS, UTC)
        if tier in STANDARD:
            return _compiled(offer.model.amounts(at))
        # an offer of another vendor's model does not take over that vendor's tiers
        context = dict.fromkeys(_VARIANT_KEYS, tier or "")
        amounts = offer.model.amounts_of_tier(context, at) if offer.is_own else None
        return () if amounts is None else _compiled(amounts)

    def _find(self, vendor: str | None, name: str) -> Offer | None:
        return self._table().offer(vendor, name)


def listed_prices(kept: Path | None = None) -> ListedPrices:
    """The list that was installed with `genai-prices`; nothing is fetched. Raises `ValueError` where it is absent.

    What is made of it is kept in the file `kept`, so that the next start has it at once.
    """
    if find_spec("genai_prices") is None:
        raise ValueError("The price list needs genai-prices: pip install 'gateway-middleware[prices]'")
    return ListedPrices(lambda: installed_table(kept))


def _seconds(at: datetime) -> float:
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _compiled(amounts: Amounts) -> Schedule:
    """The rates, one set for each threshold of input tokens."""
    if "input_mtok" not in amounts or not amounts.keys() <= _PRICED | _NOT_COUNTED:
        return ()
    starts = {start for steps in amounts.values() for start, _ in steps}
    return tuple((start, _rates_above(amounts, start)) for start in sorted(starts, reverse=True))


def _rates_above(stated: Amounts, start: int) -> Rates:
    amounts: Mapping[str, Decimal] = {
        key: [amount for begins, amount in steps if begins <= start][-1] for key, steps in stated.items()
    }
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
