"""What calls cost: the price books of `metering`, asked in the words of the other rooms."""

from __future__ import annotations

from decimal import ROUND_CEILING
from typing import TYPE_CHECKING

from gateway_middleware.composition.part import Commit, Lifeless
from gateway_middleware.core.domain import Usage
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.metering.prices.prices import OverridePrices, PriceBook, first_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Clock, Deployment, ModelRequest
    from gateway_middleware.core.record import CallRecord
    from gateway_middleware.metering.prices.prices import Cost
    from gateway_middleware.settings import Settings

_MICRO = 1_000_000


class CallPricing(Lifeless):
    """Prices calls by their deployment.

    `price_id_of` gives, by a provider's name, its vendor's id in the price list; `wall` is the time of day.
    """

    takes = frozenset({"prices"})

    def __init__(self, book: PriceBook, *, price_id_of: Callable[[str], str | None], wall: Clock) -> None:
        self._book = book
        self._price_id_of = price_id_of
        self._wall = wall

    def prepare(self, new: Settings) -> Commit:
        """Other prices, for calls that end from now on."""
        book = make_book(new)

        def commit() -> None:
            self._book = book

        return commit

    def price(self, deployment: Deployment, usage: Usage, *, at: float, served: str | None = None) -> Cost | None:
        """The exact cost; None where no price is known."""
        return self.price_of(provider=deployment.provider, key=deployment.key, usage=usage, at=at, served=served)

    def price_of(
        self, *, provider: str, key: str, usage: Usage, at: float, served: str | None = None, tier: str | None = None
    ) -> Cost | None:
        """The same for a deployment by name; `tier` is what the provider says of how it served the call."""
        try:
            vendor = self._price_id_of(provider)
        except KeyError:
            return None
        return self._book.cost(
            usage,
            vendor=vendor,
            deployment_key=key,
            model=key.partition("/")[2],
            model_served=served,
            at=at,
            tier=tier,
        )

    def estimate(self, request: ModelRequest, *, input_tokens: int, output_tokens: int) -> int | None:
        """Micro-dollars of a call that is expected to use so much, at the first deployment of its route."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return _micro(self.price(request.route.deployments[0], usage, at=self._wall()))

    def cost(self, record: CallRecord, usage: Usage) -> int | None:
        """Micro-dollars of a call that was answered with this usage, rounded up."""
        deployment = record.deployment
        if deployment is None or usage.input_tokens == usage.output_tokens == 0:
            return 0
        return _micro(self.price(deployment, usage, at=record.received_at, served=record.response_model))


def _micro(cost: Cost | None) -> int | None:
    return None if cost is None else int((cost.amount * _MICRO).to_integral_value(ROUND_CEILING))


def build_pricing(settings: Settings, config: LiveConfig, clocks: Clocks) -> CallPricing:
    """Prices as configured. Raises `SettingsError`."""
    return CallPricing(make_book(settings), price_id_of=lambda name: config.providers[name].price_id, wall=clocks.wall)


def make_book(settings: Settings) -> PriceBook:
    """Configured prices first, then the list of `genai-prices` where it is installed.

    Raises `SettingsError` when a limit on spend would have no price to go by.
    """
    own = OverridePrices(dict(settings.prices))
    try:
        from gateway_middleware.metering.prices.library_prices import library_prices

        return first_of(own, library_prices())
    except ValueError as error:
        if settings.limits_spend and not settings.prices:
            raise SettingsError([f"a limit on spend needs prices: {error}, or set GATEWAY_PRICES"]) from None
        return own
