"""What finance is told of each day: charges by tenant, key, model and kind of token, which add up to its totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal
from typing import Any

import msgspec

from gateway_middleware.core.price import plain_digits
from gateway_middleware.metering.journal.daily_line import DailyLine, LineKey, merged
from gateway_middleware.metering.journal.daily_total import DailyTotal
from gateway_middleware.metering.journal.daily_total import merged as merged_totals
from gateway_middleware.metering.prices.parts import REQUEST, Part, parts_of, read_prices

_EXACT = Context(prec=100)
NOT_SPLIT = "not_split"
"""The kind of what is in a total and in no line: calls from before there were lines, or of too many kinds."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """Part of what a tenant has used on a day (UTC), of one kind, at one price.

    `kind` is one of those of `metering.prices.parts`, `request`, whose quantity are calls, or `NOT_SPLIT`. Costs are
    exact, in US dollars; `unit_price` is for one token, or call. `unpriced` calls are in no cost. `tags` are a JSON
    object.
    """

    day: str
    tenant: str
    kind: str
    quantity: int
    cost: str
    unit_price: str | None = None
    deployment: str | None = None
    key_id: str | None = None
    paid_by: str | None = None
    tags: str | None = None
    price_version: str | None = None
    unpriced: int = 0

    @property
    def provider(self) -> str | None:
        """Who was asked."""
        return None if self.deployment is None else self.deployment.partition("/")[0]


def charges_of(totals: Iterable[DailyTotal], lines: Iterable[DailyLine]) -> list[Charge]:
    """All of what the totals tell, split as far as there are lines for it."""
    of_day: dict[tuple[str, str], list[DailyLine]] = defaultdict(list)
    for line in lines:
        of_day[line.key.day, line.key.tenant].append(line)
    return [charge for total in totals for charge in _charges(total, of_day[total.day, total.tenant])]


def charges_together(totals: Sequence[DailyTotal], lines: Iterable[DailyLine]) -> list[Charge]:
    """The same for all days together: each charge has the first day."""
    if not totals:
        return []
    day = totals[0].day
    summed: dict[str, DailyTotal] = {}
    for total in totals:
        own = msgspec.structs.replace(total, day=day)
        summed[total.tenant] = merged_totals(summed[total.tenant], own) if total.tenant in summed else own
    together = merged(DailyLine(line.key._replace(day=day), line.used) for line in lines)
    return charges_of(summed.values(), together)


def charge_row(charge: Charge) -> dict[str, Any]:
    """What a tenant is shown of a charge of its own."""
    row = msgspec.structs.asdict(charge)
    del row["day"], row["tenant"]
    return row


def _charges(total: DailyTotal, lines: Sequence[DailyLine]) -> Iterator[Charge]:
    split = [_charge(key, part) for key, used in lines for part in parts_of(read_prices(key.unit_prices), used)]
    yield from split
    cost = Decimal(total.cost)
    for charge in split:
        cost = _EXACT.subtract(cost, Decimal(charge.cost))
    tokens = total.input_tokens + total.output_tokens - sum(c.quantity for c in split if c.kind != REQUEST)
    unpriced = total.unpriced - sum(charge.unpriced for charge in split)
    if cost or tokens > 0 or unpriced > 0:
        yield Charge(
            day=total.day, tenant=total.tenant, kind=NOT_SPLIT, quantity=max(tokens, 0), cost=plain_digits(cost),
            unpriced=max(unpriced, 0),
        )  # fmt: skip


def _charge(key: LineKey, part: Part) -> Charge:
    is_unpriced = part.kind == REQUEST and part.unit_price is None
    return Charge(
        day=key.day,
        tenant=key.tenant,
        kind=part.kind,
        quantity=part.quantity,
        cost=plain_digits(part.cost),
        unit_price=None if part.unit_price is None else plain_digits(part.unit_price),
        deployment=key.deployment,
        key_id=key.key_id or None,
        paid_by=key.paid_by,
        tags=key.tags or None,
        price_version=key.price_version or None,
        unpriced=part.quantity if is_unpriced else 0,
    )
