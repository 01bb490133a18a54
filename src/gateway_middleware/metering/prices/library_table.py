"""Compiles the list inside the package `genai-prices`. As a program it writes the table to its standard output.

The table in this package is made anew by `python -m gateway_middleware.metering.prices.library_table FILE`, which
compresses it.

A process of its own does it, since the library takes 13 MB that would not be given back.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.metering.prices.price_table import (
    Amounts,
    Dated,
    ListedModel,
    NameTest,
    PriceTable,
    Variant,
    Vendor,
    When,
    utc,
)

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_encode = msgspec.msgpack.Encoder(decimal_format="string").encode


def library_table() -> PriceTable:
    """The table of the library that is installed. Raises `ImportError`."""
    import genai_prices
    from genai_prices.data import providers

    return compile_table(providers, f"genai-prices/{genai_prices.__version__}")


def compile_table(providers: Iterable[Provider], version: str) -> PriceTable:
    """The same prices in our form. Raises `ValueError` for what has no place in it."""
    return PriceTable(version, {provider.id: _encode(_vendor(provider)) for provider in providers})


def _vendor(provider: Provider) -> Vendor:
    return Vendor(tuple(map(_model, provider.models)), tuple(provider.fallback_model_providers or ()))


def _model(model: ModelInfo) -> ListedModel:
    prices = model.prices if isinstance(model.prices, list) else [_Always(model.prices)]
    return ListedModel(
        _name_test(model.match),
        tuple(Dated(_amounts(dated.prices), _when(dated.constraint)) for dated in prices),
        tuple(
            Variant(dict(variant.when), _amounts(variant.prices), _when(variant.constraint))
            for variant in model.price_variants or ()
        ),
    )


class _Always:
    """Prices without a condition, in the shape of the library's conditional ones."""

    constraint = None

    def __init__(self, prices: ModelPrice) -> None:
        self.prices = prices


def _amounts(price: ModelPrice) -> Amounts:
    return {
        name: ((-1, getattr(value, "base", value)), *((tier.start, tier.price) for tier in getattr(value, "tiers", ())))
        for name, value in vars(price).items()
        if value is not None
    }


def _when(constraint: Any) -> When:
    if constraint is None:
        return When()
    match type(constraint).__name__:
        case "StartDateConstraint":
            return When(begins=constraint.start_date)
        case "TimeOfDateConstraint":
            return When(hours=(utc(constraint.start_time), utc(constraint.end_time)))
    raise ValueError(f"the price list has an unknown condition: {constraint!r}")


def _name_test(clause: Any) -> NameTest:
    match vars(clause):
        case {"equals": text}:
            return NameTest("equals", text.lower())
        case {"starts_with": text}:
            return NameTest("starts_with", text.lower())
        case {"ends_with": text}:
            return NameTest("ends_with", text.lower())
        case {"contains": text}:
            return NameTest("contains", text.lower())
        case {"regex": text}:
            return NameTest("regex", text)
        case {"or_": parts}:
            return NameTest("or", parts=tuple(map(_name_test, parts)))
        case {"and_": parts}:
            return NameTest("and", parts=tuple(map(_name_test, parts)))
    raise ValueError(f"the price list has an unknown way to name models: {clause!r}")


def main(arguments: Sequence[str]) -> None:
    """Write the table: to the standard output, or compressed to a file."""
    content = msgspec.msgpack.encode(library_table())
    if arguments:
        Path(arguments[0]).write_bytes(zlib.compress(content, 9))
    else:
        sys.stdout.buffer.write(content)


if __name__ == "__main__":  # pragma: no cover  # in a process of its own
    main(sys.argv[1:])
