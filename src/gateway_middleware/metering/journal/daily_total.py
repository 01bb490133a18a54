"""What the calls of one tenant on one day add up to: kept when the events themselves are long delivered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache

import msgspec

from gateway_middleware.metering.journal.call_end import CallEnd, EndKind

_EXACT = Context(prec=100)
MAX_COUNT = 2**63 - 1
"""The largest integer that SQLite stores."""
_LAST_SECOND = 253_402_300_799.0
"""9999-12-31T23:59:59Z."""
_DAY_SECONDS = 86400


class DailyTotal(msgspec.Struct, kw_only=True):
    """What one tenant used on one day (UTC). `cost` is exact, in US dollars; `unpriced` events are not in it.

    Tokens are sums over what was reported or estimated; a count that was not reported adds nothing.
    """

    day: str
    tenant: str
    closed: int = 0
    orphaned: int = 0
    voided: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost: str = "0"


_COUNTS = tuple(name for name in DailyTotal.__struct_fields__ if name not in {"day", "tenant", "cost"})


def day_of(time: float) -> str:
    """The day in UTC, as `2026-01-31`."""
    return _day(int(min(max(0.0, time), _LAST_SECOND) // _DAY_SECONDS))


@lru_cache(16)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY_SECONDS, UTC).date().isoformat()


def summed(ends: Iterable[CallEnd]) -> list[DailyTotal]:
    """One total for each tenant and day."""
    groups: dict[tuple[str, str], list[CallEnd]] = defaultdict(list)
    for end in ends:
        groups[day_of(end.time), end.tenant].append(end)
    return [_total(day, tenant, group) for (day, tenant), group in groups.items()]


def merged(one: DailyTotal, other: DailyTotal) -> DailyTotal:
    """Two totals of the same tenant and day."""
    counts = {name: capped(getattr(one, name) + getattr(other, name)) for name in _COUNTS}
    return DailyTotal(day=one.day, tenant=one.tenant, cost=_plus(one.cost, other.cost), **counts)


def _total(day: str, tenant: str, group: list[CallEnd]) -> DailyTotal:
    total = DailyTotal(day=day, tenant=tenant)
    cost, taken, given, cached = Decimal(0), 0, 0, 0
    for _, kind, _, _, _, event, _ in group:
        if kind is EndKind.VOIDED or event is None:
            total.voided += 1
            continue
        if kind is EndKind.CLOSED:
            total.closed += 1
        else:
            total.orphaned += 1
        price = price_in(event.cost)
        if price is None:
            total.unpriced += 1
        else:
            cost = _EXACT.add(cost, price)
        usage = event.usage
        taken += usage.input_tokens or 0
        given += usage.output_tokens or 0
        cached += usage.cached_input_tokens or 0
    total.cost = f"{cost:f}"
    total.input_tokens, total.output_tokens = capped(taken), capped(given)
    total.cached_input_tokens = capped(cached)
    return total


def price_in(cost: str | None) -> Decimal | None:
    """The amount that an event tells; None where it tells none that makes sense."""
    if cost is None:
        return None
    try:
        price = Decimal(cost)
    except InvalidOperation:
        return None
    return price if price.is_finite() else None


def _plus(one: str, other: str) -> str:
    return f"{_EXACT.add(Decimal(one), Decimal(other)):f}"


def capped(count: int) -> int:
    """What SQLite can store."""
    return min(max(count, -MAX_COUNT), MAX_COUNT)
