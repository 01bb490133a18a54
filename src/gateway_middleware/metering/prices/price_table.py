"""A price list in a compact form: how models are named, and what they cost at which time.

The library `genai-prices` says the same in 13 MB of objects; what is kept of it here are a few hundred kilobytes, of
which the vendors that are asked for are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from re import compile as pattern
from re import search
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from re import Match

Amounts: TypeAlias = "dict[str, tuple[tuple[int, Decimal], ...]]"
"""Dollars by the library's name of what they are paid for: each from a number of input tokens on, -1 first."""

_COMPACT_DATE = pattern(r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
_DECODED_VENDORS = 16


class NameTest(msgspec.Struct, frozen=True, array_like=True):
    """Whether a name in lower case is meant; `text` is in lower case, but where it is a regular expression."""

    how: Literal["equals", "starts_with", "ends_with", "contains", "regex", "or", "and"]
    text: str = ""
    parts: tuple[NameTest, ...] = ()

    def fits(self, name: str) -> bool:
        """Whether it is."""
        match self.how:
            case "equals":
                return name == self.text
            case "starts_with":
                return name.startswith(self.text)
            case "ends_with":
                return name.endswith(self.text)
            case "contains":
                return self.text in name
            case "regex":
                return search(self.text, name) is not None
            case "or":
                return any(part.fits(name) for part in self.parts)
            case "and":
                return all(part.fits(name) for part in self.parts)


class When(msgspec.Struct, frozen=True, array_like=True):
    """From a day on, or in some hours of each day, the second exclusive, perhaps over midnight; else always. In UTC."""

    begins: date | None = None
    hours: tuple[time, time] | None = None

    def includes(self, at: datetime) -> bool:
        """Whether a moment, in UTC, is in it."""
        if self.hours is not None:
            first, last = self.hours
            now = at.timetz()
            return (first <= now or now < last) if last < first else first <= now < last
        return self.begins is None or at.date() >= self.begins


class Dated(msgspec.Struct, frozen=True, array_like=True):
    """What holds at a time."""

    amounts: Amounts
    when: When = When()


class Variant(msgspec.Struct, frozen=True, array_like=True):
    """What another tier changes: `context` says which, in the library's words."""

    context: dict[str, str]
    amounts: Amounts
    when: When = When()

    def applies(self, context: Mapping[str, str], at: datetime) -> bool:
        """Whether it is that tier, at this time."""
        return self.when.includes(at) and all(context.get(key) == value for key, value in self.context.items())


class ListedModel(msgspec.Struct, frozen=True, array_like=True):
    """A model and its prices; of those that hold at a time the last one counts."""

    test: NameTest
    prices: tuple[Dated, ...]
    variants: tuple[Variant, ...] = ()

    def amounts(self, at: datetime) -> Amounts:
        """What it costs then; the first where none holds."""
        held = (dated.amounts for dated in reversed(self.prices) if dated.when.includes(at))
        return next(held, self.prices[0].amounts)

    def amounts_of_tier(self, context: Mapping[str, str], at: datetime) -> Amounts | None:
        """The same at another tier; None where no price is stated for it."""
        applying = [variant.amounts for variant in self.variants if variant.applies(context, at)]
        if not applying:
            return None
        merged = dict(self.amounts(at))
        for amounts in reversed(applying):  # the first one wins
            merged.update(amounts)
        return merged


class Vendor(msgspec.Struct, frozen=True, array_like=True):
    """A vendor's models, and the vendors whose models it offers as well."""

    models: tuple[ListedModel, ...]
    others: tuple[str, ...] = ()


class Offer(msgspec.Struct, frozen=True):
    """A model as it is offered by a vendor. `is_own`: it is on the vendor's own list."""

    model: ListedModel
    is_own: bool


_decode = msgspec.msgpack.Decoder(Vendor).decode


class PriceTable(msgspec.Struct, frozen=True):
    """The list: `version` names it, `vendors` holds each `Vendor` by its id, encoded."""

    version: str
    vendors: dict[str, bytes]

    def offer(self, vendor: str | None, name: str) -> Offer | None:
        """The model that is meant by a name at a vendor; None where there is none."""
        name = name.lower()
        dashed = _with_dashes(name)
        return self._offer(vendor, name) or (None if dashed == name else self._offer(vendor, dashed))

    def _offer(self, vendor: str | None, name: str) -> Offer | None:
        first = self._vendor(vendor)
        if first is None:
            return None
        for number, listed in enumerate((first, *self._others(first))):
            for model in listed.models:
                if model.test.fits(name):
                    return Offer(model, is_own=number == 0)
        return None

    def _others(self, vendor: Vendor) -> Iterator[Vendor]:
        return filter(None, map(self._vendor, vendor.others))

    def _vendor(self, name: str | None) -> Vendor | None:
        encoded = self.vendors.get(name or "")
        return None if encoded is None else _vendor(encoded)


@lru_cache(_DECODED_VENDORS)
def _vendor(encoded: bytes) -> Vendor:
    return _decode(encoded)


def _with_dashes(name: str) -> str:
    """`model-20251211` as `model-2025-12-11`, which is how the list writes dates."""
    return _COMPACT_DATE.sub(_dashed, name)


def _dashed(found: Match[str]) -> str:
    year, month, day = (int(found[index]) for index in (2, 3, 4))
    try:
        return f"{found[1]}{date(year, month, day).isoformat()}"
    except ValueError:
        return found[0]


def utc(value: time) -> time:
    """A time of day, in UTC: those that name no zone are."""
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return datetime.combine(date(1970, 1, 1), value).astimezone(UTC).timetz()
