"""What a call costs, in US dollars, exactly.

Two sources of prices: those an operator writes for a deployment, and a list (`listed_prices`). A price that is not
known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Context, Decimal, Inexact
from typing import NamedTuple, NotRequired, Protocol, TypeAlias, TypedDict, Unpack

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import NOT_STATED, Cost, Price
from gateway_middleware.metering.prices.parts import stated

EXACT = Context(prec=60, traps=[Inexact])
ZERO = Decimal(0)
_PER_MILLION = -6

STANDARD = frozenset({None, "", "auto", "default", "standard"})
"""How OpenAI and Anthropic name the tier at list price; `auto` stands there before it is decided."""


Schedule: TypeAlias = "tuple[tuple[int, Rates], ...]"
"""Rates for calls of more input tokens than the number beside them, highest number first. Empty: not known."""


class Tariff(NamedTuple):
    """Rates, and the name of the price list that they come from."""

    schedule: Schedule
    version: str


class PricedCall(TypedDict):
    """What decides on a price, beside the usage.

    `vendor` is the id of the provider's vendor in the price list, None for one that is not in it. `model` is
    the provider's name of the model that was asked for, `model_served` the one in its answer. `at` is when the call was
    made: seconds since the epoch, or a datetime, UTC where it has no zone. `tier` is what the answer says of how it was
    served (OpenAI's `service_tier`, Anthropic's `usage.service_tier`).
    """

    vendor: str | None
    deployment_key: str
    model: str
    model_served: NotRequired[str | None]
    at: datetime | float
    tier: NotRequired[str | None]


class PriceBook(Protocol):
    """A source of prices."""

    def load(self) -> None:
        """Have at hand what prices are looked up in. May block."""

    def tariffs(self, **call: Unpack[PricedCall]) -> tuple[Tariff, ...]:
        """What may apply to such a call within the same minute: the first that knows the cost counts."""

    def cost(self, usage: Usage, **call: Unpack[PricedCall]) -> Cost | None:
        """What this usage costs, or None where that is not known.

        Both input and output must be known: half a cost is none. Only where output has no price, or costs nothing
        (embeddings), may it be None. Cached and cache-write tokens that are None are priced as plain input.
        Counts that contradict each other (more cached than input) have no cost. Fees of tools (a web search) are not
        in it. The tiers `batch`, `flex`, `priority` and the like have a price only where the source states one.
        """


class Rates(msgspec.Struct, frozen=True, gc=False):
    """Dollars per million tokens of each kind, `written_1h` for cache writes that are kept for an hour.

    `reasoning` None: the same as `output`. `fee` is per million calls.
    """

    input: Decimal
    cached: Decimal
    written: Decimal
    written_1h: Decimal
    output: Decimal | None
    reasoning: Decimal | None
    fee: Decimal = ZERO
    stated: msgspec.Raw = NOT_STATED
    """The same as `UnitPrices` in JSON. Made of the rest."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "stated", _stated(self))


def _stated(rates: Rates) -> msgspec.Raw:
    return stated(
        input=rates.input,
        cached_input=rates.cached,
        cache_write=rates.written,
        cache_write_1h=rates.written_1h,
        output=rates.output,
        reasoning=None if rates.output is None else rates.reasoning,
        request=EXACT.scaleb(rates.fee, _PER_MILLION),
    )


def _at_rates(rates: Rates, taken: int, usage: Usage) -> Decimal | None:
    cached, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
    written_1h = usage.cache_write_1h_tokens or 0
    given, fresh = usage.output_tokens, taken - cached - written
    if given is not None and rates.output is not None and rates.reasoning is None:
        output: Decimal | None = EXACT.fma(rates.output, given, rates.fee)
    else:
        output = _output(rates, usage)
    if fresh < 0 or written_1h > written or output is None:
        return None
    fma = EXACT.fma
    total = fma(rates.input, fresh, output)
    if cached:
        total = fma(rates.cached, cached, total)
    if written:
        total = fma(rates.written, written - written_1h, fma(rates.written_1h, written_1h, total))
    return EXACT.scaleb(total, _PER_MILLION)


def _output(rates: Rates, usage: Usage) -> Decimal | None:
    """The output and the fee, in millionths of a dollar."""
    given = usage.output_tokens
    if rates.output is None:
        return None if given else rates.fee
    if given is None:
        return None if rates.output or rates.reasoning else rates.fee
    if rates.reasoning is None:  # pragma: no cover  # whoever asks has worked that out
        return EXACT.fma(rates.output, given, rates.fee)
    thought = usage.reasoning_tokens or 0
    if thought > given:
        return None
    return EXACT.fma(rates.output, given - thought, EXACT.fma(rates.reasoning, thought, rates.fee))


class OverridePrices:
    """Prices that an operator has set, by the key of the deployment (`provider/model`)."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._tariffs = {
            (key, tier): (Tariff(((-1, _rates_of(price, factor)),), price.version),)
            for key, price in prices.items()
            for tier, factor in _factors(price)
        }

    def load(self) -> None:
        """It is at hand."""

    def tariffs(self, **call: Unpack[PricedCall]) -> tuple[Tariff, ...]:
        tier = call.get("tier")
        return self._tariffs.get((call["deployment_key"], None if tier in STANDARD else tier), ())

    def cost(self, usage: Usage, **call: Unpack[PricedCall]) -> Cost | None:
        return cost_by(self.tariffs(**call), usage)


def cost_by(tariffs: Iterable[Tariff], usage: Usage) -> Cost | None:
    """What this usage costs by the first tariff that knows it."""
    taken = usage.input_tokens
    if taken is None:
        return None
    for schedule, version in tariffs:
        for start, rates in schedule:
            if taken > start:
                amount = _at_rates(rates, taken, usage)
                if amount is not None:
                    return Cost(amount, version, unit_prices=rates.stated)
                break  # the next list may know it
    return None


def _is_complete(tariff: Tariff) -> bool:
    """Whether it has a price for all that can be used."""
    return bool(tariff.schedule) and all(rates.output is not None for _, rates in tariff.schedule)


def _factors(price: Price) -> Iterable[tuple[str | None, Decimal]]:
    yield None, Decimal(1)
    yield from price.tiers.items()


def _rates_of(price: Price, factor: Decimal) -> Rates:
    def times(amount: Decimal) -> Decimal:
        return EXACT.multiply(amount, factor)

    written = price.input if price.cache_write is None else price.cache_write
    return Rates(
        input=times(price.input),
        cached=times(price.input if price.cached_input is None else price.cached_input),
        written=times(written),
        written_1h=times(written if price.cache_write_1h is None else price.cache_write_1h),
        output=None if price.output is None else times(price.output),
        reasoning=None if price.reasoning is None else times(price.reasoning),
    )


def first_of(*books: PriceBook) -> PriceBook:
    """The first of these books that knows the cost."""
    return _FirstOf(books)


class _FirstOf:
    def __init__(self, books: tuple[PriceBook, ...]) -> None:
        self._books = books

    def load(self) -> None:
        for book in self._books:
            book.load()

    def tariffs(self, **call: Unpack[PricedCall]) -> tuple[Tariff, ...]:
        tariffs: list[Tariff] = []
        for book in self._books:
            tariffs += book.tariffs(**call)
            if any(map(_is_complete, tariffs)):
                break  # no other book is asked, nor read for it
        return tuple(tariffs)

    def cost(self, usage: Usage, **call: Unpack[PricedCall]) -> Cost | None:
        return cost_by(self.tariffs(**call), usage)
