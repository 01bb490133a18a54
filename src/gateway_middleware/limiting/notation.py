"""Limits as text, in the notation of `limits`: `600/minute`, `100 per 5 minutes`, several by `;`."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from limits import RateLimitItem, parse, parse_many

from gateway_middleware.limiting.limit import Alignment, Limit, OutagePolicy, Unit

MICRODOLLARS = 1_000_000
_DAYS = 86_400
_MAX_TEXTS = 1024
"""A hundred thousand tenants have few different limits."""
_LETTERS = {Unit.REQUESTS: "rp", Unit.TOKENS: "tp", Unit.SPEND: "sp"}
_MONTHS = {"month": 1, "year": 12}


@lru_cache(_MAX_TEXTS)
def parse_limits(
    text: str,
    unit: Unit = Unit.REQUESTS,
    *,
    is_shadow: bool = False,
    on_outage: OutagePolicy = OutagePolicy.SHARE,
) -> tuple[Limit, ...]:
    """All limits of a text. Of two with the same unit and length the smaller one stays. Raises `ValueError`."""
    made = [_limit(item, unit, is_shadow, on_outage) for item in parse_many(text)]
    return _distinct(made)


def limits_of(limits: str | RateLimitItem | Iterable[RateLimitItem]) -> tuple[Limit, ...]:
    """Limits on requests, from text or items of `limits`; none from nothing. Raises `ValueError`, `TypeError`."""
    if isinstance(limits, str):
        return parse_limits(limits) if limits else ()
    items = [limits] if isinstance(limits, RateLimitItem) else list(limits)
    if not all(isinstance(item, RateLimitItem) for item in items):
        raise TypeError("limits: expected text, or items of the library limits")
    return _distinct([_limit(item, Unit.REQUESTS, False, OutagePolicy.SHARE) for item in items])


def parse_limit(text: str, unit: Unit = Unit.REQUESTS) -> Limit:
    """A single limit. Raises `ValueError`."""
    return _limit(parse(text), unit, False, OutagePolicy.SHARE)


def parse_spend(
    text: str, *, is_shadow: bool = False, on_outage: OutagePolicy = OutagePolicy.SHARE
) -> Limit:  # fmt: skip
    """Dollars per period: `100/month`, `2.50 per day`. Days, months and years are those of the calendar, in UTC.

    Raises `ValueError`.
    """
    amount, separator, period = text.partition("per" if "per" in text else "/")
    try:
        micro = int(Decimal(amount.strip()) * MICRODOLLARS)
    except ArithmeticError:
        raise ValueError(f"{amount.strip()!r} is no amount of dollars") from None
    return _limit(parse(f"{micro} {separator} {period}"), Unit.SPEND, is_shadow, on_outage)


def concurrency(amount: int, *, is_shadow: bool = False, on_outage: OutagePolicy = OutagePolicy.SHARE) -> Limit:
    """So many calls at a time."""
    unit = Unit.CONCURRENCY
    return Limit(name="concurrency", amount=amount, unit=unit, is_shadow=is_shadow, on_outage=on_outage)


def _limit(item: RateLimitItem, unit: Unit, is_shadow: bool, on_outage: OutagePolicy) -> Limit:  # noqa: FBT001
    word, multiples = item.GRANULARITY.name, item.multiples
    alignment, length = Alignment.SLIDING, item.get_expiry()
    if unit is Unit.SPEND and word in _MONTHS:
        alignment, length = Alignment.MONTHS, multiples * _MONTHS[word]
    elif unit is Unit.SPEND and word == "day":
        alignment, length = Alignment.DAYS, multiples
    count = "" if multiples == 1 else str(multiples)
    return Limit(
        name=f"{_LETTERS[unit]}{count}{word[:2] if word == 'month' else word[0]}",
        amount=item.amount,
        unit=unit,
        length=length,
        alignment=alignment,
        is_shadow=is_shadow,
        on_outage=on_outage,
    )


def _distinct(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    smallest: dict[tuple[int, Alignment], Limit] = {}
    for limit in limits:
        key = limit.length, limit.alignment
        if key not in smallest or limit.amount < smallest[key].amount:
            smallest[key] = limit
    return tuple(smallest.values())
