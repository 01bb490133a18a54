"""What an operator says that a deployment costs, and what a call has cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

_MAX_DOLLARS = Decimal(1_000_000)
_MAX_PLACES = 12


NOT_STATED = msgspec.Raw(b"null")
"""In place of prices that are not known."""


class Cost(msgspec.Struct, frozen=True):
    """An amount in US dollars and the price list it follows from.

    `unit_prices` is what each kind of token was charged at, as JSON: see `metering.prices.parts`.
    """

    amount: Decimal
    version: str
    text: str = ""
    """The amount in plain digits: `0.00000015`, never `1.5E-7`. Made from it: header and event tell the same."""
    unit_prices: msgspec.Raw = NOT_STATED

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "text", plain_digits(self.amount))


def plain_digits(amount: Decimal) -> str:
    """A decimal without an exponent and without zeros at its end."""
    digits = f"{amount:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment costs, in US dollars per million tokens.

    `output` None: there is none to pay (embeddings). `cached_input` and `cache_write` default to `input`,
    `cache_write_1h` (writes that are kept for an hour) to `cache_write`, `reasoning` to `output`. `tiers` holds the
    factor for a tier that is not the standard one, for instance `{"batch": 0.5}`.
    Raises `ValueError` for what is negative, not finite, above a million or finer than 12 decimal places.
    """

    input: Decimal
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    tiers: Mapping[str, Decimal] = {}
    version: str = "configured"

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "cache_write", "cache_write_1h", "reasoning"):
            _check(name, getattr(self, name))
        for tier, factor in self.tiers.items():
            _check(f"tiers.{tier}", factor)


def parse_price(fields: Mapping[str, object]) -> Price:
    """A `Price` from configuration: amounts are numbers or strings, and mean exactly the digits that are written.

    Raises `ValueError`, which names the field.
    """
    return msgspec.convert(dict(fields), Price)


def _check(name: str, amount: Decimal | None) -> None:
    if amount is None:
        return
    if not amount.is_finite() or amount.is_signed() or amount > _MAX_DOLLARS:
        raise ValueError(f"{name} must be from 0 to {_MAX_DOLLARS}, not {amount}")
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_PLACES:
        raise ValueError(f"{name} must have at most {_MAX_PLACES} decimal places")
