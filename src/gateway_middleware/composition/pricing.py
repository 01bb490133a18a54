"""What calls cost: the price books of `metering`, asked in the words of the other rooms."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from decimal import ROUND_CEILING
from typing import TYPE_CHECKING, TypeAlias

from gateway_middleware.composition.config import LiveConfig, deployments_of
from gateway_middleware.composition.part import Commit
from gateway_middleware.core.clocks import Clocks
from gateway_middleware.core.domain import Usage
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.metering.prices.installed_table import table_path
from gateway_middleware.metering.prices.prices import OverridePrices, PriceBook, cost_by, first_of
from gateway_middleware.metering.prices.unit_prices import UnitPrices
from gateway_middleware.metering.usage_event import consistent
from gateway_middleware.providers import KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from gateway_middleware.core.domain import Clock, Deployment
    from gateway_middleware.core.price import Cost
    from gateway_middleware.core.provider_api import ProviderKind
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.metering.prices.prices import Rates, Tariff
    from gateway_middleware.settings import Settings

_log = logging.getLogger("gateway_middleware")
_MICRO = 1_000_000
_MINUTE = 60
_MAX_TARIFFS = 4096
_LOAD_AFTER_SECONDS = 0.1

_Priced: TypeAlias = "tuple[str | None, str, str | None, str | None, int]"
"""What decides on a tariff: vendor, deployment, model served, tier, and the minute; prices change at whole minutes."""


class CallPricing:
    """Prices calls by their deployment. The price list is read in a thread soon after the start, or when it is needed.

    `price_id_of` gives, by a provider's name, its vendor's id in the price list; `wall` is the time of day.
    """

    takes = frozenset({"prices"})

    def __init__(self, book: PriceBook, *, price_id_of: Callable[[str], str | None], wall: Clock) -> None:
        self._book = book
        self._price_id_of = price_id_of
        self._wall = wall
        self._tariffs: dict[_Priced, tuple[Tariff, ...]] = {}
        self._of_minute: dict[tuple[str, str, str | None, str | None], tuple[int, tuple[Tariff, ...]]] = {}
        self._unit_prices: dict[str, UnitPrices] = {}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Has the price list read in the background: calls are taken meanwhile."""
        loading = asyncio.create_task(_load_soon(self._book))
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    def prepare(self, new: Settings) -> Commit:
        """Other prices, for calls that end from now on."""
        book = make_book(new)

        def commit() -> None:
            self._book, self._tariffs, self._of_minute, self._unit_prices = book, {}, {}, {}

        return commit

    def price_of(
        self, *, provider: str, key: str, usage: Usage, at: float, served: str | None = None, tier: str | None = None
    ) -> Cost | None:
        """The exact cost at a deployment, None where no price is known.

        `served` is the model that the provider names in its answer, `tier` what it says of how it served the call.
        """
        minute = int(at // _MINUTE)
        known = self._of_minute.get((provider, key, served, tier))
        if known is None or known[0] != minute:
            known = self._look_up_minute(minute, (provider, key, served, tier))
        return cost_by(known[1], usage)

    def _look_up_minute(
        self, minute: int, call: tuple[str, str, str | None, str | None]
    ) -> tuple[int, tuple[Tariff, ...]]:
        """The tariffs of this minute; they change at whole ones."""
        provider, key, served, tier = call
        if len(self._of_minute) >= _MAX_TARIFFS:
            self._of_minute.clear()
        known = self._of_minute[call] = (minute, self._tariffs_of(provider, key, minute * _MINUTE, served, tier))
        return known

    def _tariffs_of(
        self, provider: str, key: str, at: float, served: str | None = None, tier: str | None = None
    ) -> tuple[Tariff, ...]:
        try:
            vendor = self._price_id_of(provider)
        except KeyError:
            return ()
        priced = (vendor, key, served, tier, int(at // _MINUTE))
        tariffs = self._tariffs.get(priced)
        return self._look_up(priced) if tariffs is None else tariffs

    def _look_up(self, priced: _Priced) -> tuple[Tariff, ...]:
        vendor, key, served, tier, minute = priced
        if len(self._tariffs) >= _MAX_TARIFFS:
            self._tariffs.clear()
        tariffs = self._tariffs[priced] = self._book.tariffs(
            vendor=vendor,
            deployment_key=key,
            model=key.partition("/")[2],
            model_served=served,
            at=minute * _MINUTE,
            tier=tier,
        )
        return tariffs

    def of_attempt(self, attempt: Attempt, usage: Usage, *, at: float) -> Cost | None:
        """What an attempt costs that has used so much: worked out once, whoever asks again gets the same figure."""
        if attempt.priced is not None and attempt.priced[0] is usage:
            return attempt.priced[1]
        deployment = attempt.deployment
        cost = self.price_of(
            provider=deployment.provider,
            key=deployment.key,
            usage=consistent(usage),
            at=at,
            served=attempt.response_model,
            tier=attempt.service_tier,
        )
        attempt.priced = (usage, cost)
        return cost

    def of_answer(self, record: CallRecord) -> Cost | None:
        """What an answer costs that begins now; None where more of it is to come, or its price or use is not known."""
        attempt = record.answered_by
        if attempt is None or not attempt.is_complete or attempt.usage is None or attempt.usage.input_tokens is None:
            return None
        if attempt.usage.output_tokens is None and record.surface is not None and record.surface.writes_text:
            return None
        return self.of_attempt(attempt, attempt.usage, at=record.received_at)

    def estimate(self, deployment: Deployment, *, input_tokens: int, output_tokens: int) -> int | None:
        """Micro-dollars of a call that is expected to use so much at this deployment."""
        now = self._wall()
        prices = self._unit_prices.get(deployment.key)
        if prices is None or not prices.begins <= now < prices.begins + _MINUTE:
            prices = self._look_up_units(deployment, now)
        return prices.cost(input_tokens, output_tokens)

    def _look_up_units(self, deployment: Deployment, now: float) -> UnitPrices:
        """The prices of this minute; they change at whole ones."""
        if len(self._unit_prices) >= _MAX_TARIFFS:
            self._unit_prices.clear()
        begins = now // _MINUTE * _MINUTE
        tariffs = self._tariffs_of(deployment.provider, deployment.key, begins)
        prices = self._unit_prices[deployment.key] = UnitPrices(begins, tariffs)
        return prices

    def rates_of(self, deployment: Deployment) -> Rates | None:
        """Dollars per million tokens of a short call that is made now; None where no price is known."""
        tariffs = self._tariffs_of(deployment.provider, deployment.key, self._wall() // _MINUTE * _MINUTE)
        schedule = next((tariff.schedule for tariff in tariffs if tariff.schedule), None)
        return None if schedule is None else schedule[-1][1]

    def unpriced(self, deployments: Iterable[Deployment]) -> list[str]:
        """The keys of those that have no known price, each once, in their order."""
        keys = {d.key: None for d in deployments if self.estimate(d, input_tokens=1, output_tokens=0) is None}
        return list(keys)

    def cost(self, record: CallRecord, usage: Usage) -> int | None:
        """Micro-dollars of a call that was answered with this usage, rounded up."""
        attempt = record.answered_by
        if attempt is None or usage.input_tokens == usage.output_tokens == 0:
            return 0
        return _micro(self.of_attempt(attempt, usage, at=record.received_at))


async def _load_soon(book: PriceBook) -> None:
    await asyncio.sleep(_LOAD_AFTER_SECONDS)  # after the first calls
    try:
        await asyncio.to_thread(book.load)
    except (ImportError, ValueError) as error:
        _log.error("the list of prices cannot be read, only configured prices are known: %s", error)


def _micro(cost: Cost | None) -> int | None:
    return None if cost is None else int((cost.amount * _MICRO).to_integral_value(ROUND_CEILING))


def build_pricing(settings: Settings, config: LiveConfig, clocks: Clocks) -> CallPricing:
    """Prices as configured. Raises `SettingsError`."""
    return CallPricing(make_book(settings), price_id_of=lambda name: config.providers[name].price_id, wall=clocks.wall)


def price_warnings(settings: Settings, kinds: Mapping[str, ProviderKind] = KINDS) -> list[str]:
    """What a limit on spend makes of deployments whose price is not known, in lines."""
    if not settings.limits_spend:
        return []
    pricing = build_pricing(settings, LiveConfig(settings, kinds), Clocks())
    return [
        f"GATEWAY_PRICES: no price is known for {key}: tenants with a limit on spend cannot call it, unless they have "
        "on_unpriced: allow"
        for key in pricing.unpriced(deployments_of(settings))
    ]


def make_book(settings: Settings) -> PriceBook:
    """Configured prices first, then the list of `genai-prices` where it is installed; its table lies by the journal.

    Raises `SettingsError` when a limit on spend would have no price to go by.
    """
    own = OverridePrices(dict(settings.prices))
    try:
        from gateway_middleware.metering.prices.listed_prices import listed_prices

        return first_of(own, listed_prices(None if settings.journal == "off" else table_path(settings.journal)))
    except ValueError as error:
        if settings.limits_spend and not settings.prices:
            raise SettingsError([f"a limit on spend needs prices: {error}, or set GATEWAY_PRICES"]) from None
        return own
