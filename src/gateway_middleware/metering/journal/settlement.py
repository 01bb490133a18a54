"""How an admitted call came to its end, and what the ends of a day add up to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from enum import StrEnum
from typing import NamedTuple

import msgspec

from gateway_middleware.core.domain import Usage
from gateway_middleware.metering.usage_event import OpenCall, UsageEvent, UsageSource

CRASH = "gateway_crash"
"""The outcome of a call whose process died before it could tell."""

_EXACT = Context(prec=100)
_MOST = 2**63 - 1
_LAST_SECOND = 253_402_300_799.0

encode = msgspec.json.Encoder().encode
decode_open = msgspec.json.Decoder(OpenCall).decode
decode_event = msgspec.json.Decoder(UsageEvent).decode


class Ending(StrEnum):
    """CLOSED: with a usage event; ORPHANED: with one that was made up after a crash; VOIDED: nothing to bill."""

    CLOSED = "closed"
    ORPHANED = "orphaned"
    VOIDED = "voided"


class Settlement(NamedTuple):
    """The end of one call. `sequence` is that of its record, None where the record could not be written."""

    sequence: int | None
    ending: Ending
    id: str
    tenant: str
    time: float
    event: UsageEvent | None = None
    body: bytes = b""


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


def closed(sequence: int | None, event: UsageEvent, body: bytes) -> Settlement:
    """The end that a usage event tells of."""
    return Settlement(sequence, Ending.CLOSED, event.id, event.tenant, event.time, event, body)


def orphaned(event: UsageEvent) -> Settlement:
    """The end of a call whose process died."""
    return Settlement(None, Ending.ORPHANED, event.id, event.tenant, event.time, event, encode(event))


def voided(sequence: int | None, call: OpenCall) -> Settlement:
    """The end of a call that cost nothing."""
    return Settlement(sequence, Ending.VOIDED, call.id, call.tenant, call.time)


def crash_event(call: OpenCall) -> UsageEvent:
    """What is billed for a call that never ended: its input, as it was estimated."""
    return UsageEvent(
        id=call.id,
        time=call.time,
        tenant=call.tenant,
        provider=call.provider,
        deployment=call.deployment,
        model=call.model,
        surface=call.surface,
        request_id=call.request_id,
        attempt=call.attempt,
        key_id=call.key_id,
        route=call.route,
        is_stream=call.is_stream,
        outcome=CRASH,
        usage=Usage(input_tokens=call.input_tokens),
        usage_source=UsageSource.ESTIMATED,
    )


def one_line(body: bytes) -> bytes:
    """The same JSON without newlines, which a provider's raw object may hold between its values."""
    return body.replace(b"\n", b" ") if b"\n" in body else body


def day_of(time: float) -> str:
    """The day in UTC, as `2026-01-31`."""
    return datetime.fromtimestamp(min(max(0.0, time), _LAST_SECOND), UTC).date().isoformat()


def summed(settlements: Iterable[Settlement]) -> list[DailyTotal]:
    """One total for each tenant and day."""
    groups: dict[tuple[str, str], list[Settlement]] = defaultdict(list)
    for settlement in settlements:
        groups[day_of(settlement.time), settlement.tenant].append(settlement)
    return [_total(day, tenant, group) for (day, tenant), group in groups.items()]


def merged(one: DailyTotal, other: DailyTotal) -> DailyTotal:
    """Two totals of the same tenant and day."""
    counts = {name: _capped(getattr(one, name) + getattr(other, name)) for name in _COUNTS}
    return DailyTotal(day=one.day, tenant=one.tenant, cost=_plus(one.cost, other.cost), **counts)


_COUNTS = tuple(name for name in DailyTotal.__struct_fields__ if name not in {"day", "tenant", "cost"})


def _total(day: str, tenant: str, group: list[Settlement]) -> DailyTotal:
    total = DailyTotal(day=day, tenant=tenant)
    cost = Decimal(0)
    for _, ending, _, _, _, event, _ in group:
        if ending is Ending.VOIDED or event is None:
            total.voided += 1
            continue
        if ending is Ending.CLOSED:
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
    return min(max(count, -_MOST), _MOST)
