"""What the calls of one tenant on one day add up to: kept when the events themselves are long delivered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.journal.call_end import CallEnd, EndKind

_EXACT = Context(prec=100)
_MAX_COUNT = 2**63 - 1
"""The largest integer that SQLite stores."""
_LAST_SECOND = 253_402_300_799.0
"""9999-12-31T23:59:59Z."""


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
    return datetime.fromtimestamp(min(max(0.0, time), _LAST_SECOND), UTC).date().isoformat()


def summed(ends: Iterable[CallEnd]) -> list[DailyTotal]:
    """One total for each tenant and day."""
    groups: dict[tuple[str, str], list[CallEnd]] = defaultdict(list)
    for end in ends:
        groups[day_of(end.time), end.tenant].append(end)
    return [_total(day, tenant, group) for (day, tenant), group in groups.items()]


def merged(one: DailyTotal, other: DailyTotal) -> DailyTotal:
    """Two totals of the same tenant and day."""
    counts = {name: _capped(getattr(one, name) + getattr(other, name)) for name in _COUNTS}
    return DailyTotal(day=one.day, tenant=one.tenant, cost=_plus(one.cost, other.cost), **counts)


def _total(day: str, tenant: str, group: list[CallEnd]) -> DailyTotal:
    total = DailyTotal(day=day, tenant=tenant)
    cost = Decimal(0)
    for _, kind, _, _, _, event, _ in group:
        if kind is EndKind.VOIDED or event is None:
            total.voided += 1
            continue
        if kind is EndKind.CLOSED:
            total.closed += 1
        else:
            total.orphaned += 1
        price = _price(event.cost)
        total.unpriced += price is None
        cost = _EXACT.add(cost, price or Decimal(0))
        _add_tokens(total, event.usage)
    total.cost = f"{cost:f}"
    return total


def _add_tokens(total: DailyTotal, usage: Usage) -> None:
    total.input_tokens = _capped(total.input_tokens + (usage.input_tokens or 0))
    total.output_tokens = _capped(total.output_tokens + (usage.output_tokens or 0))
    total.cached_input_tokens = _capped(total.cached_input_tokens + (usage.cached_input_tokens or 0))


def _price(cost: str | None) -> Decimal | None:
    if cost is None:
        return None
    try:
        price = Decimal(cost)
    except InvalidOperation:
        return None
    return price if price.is_finite() else None


def _plus(one: str, other: str) -> str:
    return f"{_EXACT.add(Decimal(one), Decimal(other)):f}"


def _capped(count: int) -> int:
    return min(max(count, -_MAX_COUNT), _MAX_COUNT)
