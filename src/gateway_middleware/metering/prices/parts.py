"""What a cost is made of: how many tokens of each kind, at what price each.

An event states its unit prices as JSON, in US dollars per million tokens, under the names of `GATEWAY_PRICES`:
`{"input": "1.25", "output": "10", "cached_input": "0.125"}`. What is not named costs what it is a part of: cached
input, and what is written into a cache, as much as `input`, `cache_write_1h` as `cache_write`, `reasoning` as `output`.
`request` is for each call, in dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.core.price import plain_digits

_EXACT = Context(prec=100)
_ZERO = Decimal(0)
_DEFAULTS = {"cached_input": "input", "cache_write": "input", "cache_write_1h": "cache_write", "reasoning": "output"}
_PER_MILLION = -6
REQUEST = "request"
_encode = msgspec.json.Encoder().encode
_prices: msgspec.json.Decoder[dict[str, Decimal] | None] = msgspec.json.Decoder(dict[str, Decimal] | None)
_digits: msgspec.json.Decoder[dict[str, str] | None] = msgspec.json.Decoder(dict[str, str] | None)


class Quantities(NamedTuple):
    """Tokens of each kind, none of them counted twice, and calls. `reasoning` is beside the rest of the output."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    request: int = 0


class Part(NamedTuple):
    """A part of a cost. `unit_price` is in dollars for one token, or call; None: it is not known."""

    kind: str
    quantity: int
    unit_price: Decimal | None
    cost: Decimal


def stated(**prices: Decimal | None) -> msgspec.Raw:
    """Unit prices as an event states them. None: there is none to pay."""
    named = {
        kind: plain_digits(price)
        for kind, price in prices.items()
        if price is not None and price != _price_if_not_named(prices, kind)
    }
    return msgspec.Raw(_encode(named))


def _price_if_not_named(prices: Mapping[str, Decimal | None], kind: str) -> Decimal | None:
    return prices[_DEFAULTS[kind]] if kind in _DEFAULTS else None if kind != REQUEST else _ZERO


def stated_prices(unit_prices: msgspec.Raw) -> dict[str, str] | None:
    """The digits that an event states; None where it states none."""
    prices = _stated(bytes(unit_prices))
    return None if prices is None else dict(prices)


@lru_cache(1024)
def _stated(unit_prices: bytes) -> Mapping[str, str] | None:
    try:
        return _digits.decode(unit_prices)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


@lru_cache(1024)
def read_prices(unit_prices: str) -> Mapping[str, Decimal] | None:
    """The price of each kind that an event states; None where it states none, or nothing that can be read."""
    try:
        return _prices.decode(unit_prices)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None


def quantities(usage: Usage) -> Quantities:
    """What one call has used. What was not reported is none."""
    cached, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
    written_1h, thought = usage.cache_write_1h_tokens or 0, usage.reasoning_tokens or 0
    return Quantities(
        input=max((usage.input_tokens or 0) - cached - written, 0),
        cached_input=cached,
        cache_write=max(written - written_1h, 0),
        cache_write_1h=written_1h,
        output=max((usage.output_tokens or 0) - thought, 0),
        reasoning=thought,
        request=1,
    )


def parts_of(prices: Mapping[str, Decimal] | None, used: Quantities) -> list[Part]:
    """The parts of a cost, that of the calls first; their costs add up to it exactly. `prices` None: not known.

    What costs the same as what it is a part of is told with that.
    """
    if prices is None:
        return [Part(kind, count, None, _ZERO) for kind, count in _told(used, {}) if count or kind == REQUEST]
    return [_part(prices, kind, count) for kind, count in _told(used, prices) if count or kind == REQUEST]


def _told(used: Quantities, prices: Mapping[str, Decimal]) -> list[tuple[str, int]]:
    told = used if "reasoning" in prices else used._replace(output=used.output + used.reasoning, reasoning=0)
    kinds = list(told._asdict().items())
    return [kinds[-1], *kinds[:-1]]


def _part(prices: Mapping[str, Decimal], kind: str, count: int) -> Part:
    price = _price(prices, kind)
    if kind != REQUEST:
        price = _EXACT.scaleb(price, _PER_MILLION)
    return Part(kind, count, price, _EXACT.multiply(price, count))


def _price(prices: Mapping[str, Decimal], kind: str) -> Decimal:
    if kind in prices:
        return prices[kind]
    return _price(prices, _DEFAULTS[kind]) if kind in _DEFAULTS else _ZERO


def total_of(prices: Mapping[str, Decimal], used: Quantities) -> Decimal:
    """What it costs in all."""
    total = _ZERO
    for part in parts_of(prices, used):
        total = _EXACT.add(total, part.cost)
    return total
