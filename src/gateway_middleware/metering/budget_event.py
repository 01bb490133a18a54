"""The event that a budget is half spent, nearly spent or spent: kept and delivered with the usage events."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256

import msgspec

from gateway_middleware.metering.usage_event import EVENT_TYPE, sibling_type

BUDGET_EVENT_TYPE = sibling_type(EVENT_TYPE, "budget")
"""The CloudEvents `type` of it, where usage events have theirs."""
_MICRO = 1_000_000
_PREFIX = b'{"event":"budget"'


class BudgetEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="budget"):
    """`threshold` per cent of a budget are spent. `amount` is in micro-dollars, moments in seconds since the epoch.

    `owner` is a tenant or `group/<name>`. `time` is when this process has seen it, and is not told: the event says the
    same in every process, under the same `id`.
    """

    id: str
    time: float
    owner: str
    limit: str
    threshold: int
    amount: int
    period_start: float
    period_end: float

    @classmethod
    def of(
        cls, key: str, *, time: float, owner: str, limit: str, threshold: int, amount: int, period: tuple[float, float]
    ) -> BudgetEvent:
        """`key` names the budget in all processes; `period` is when it began and will end."""
        start, end = period
        fact = sha256(f"{key}|{start:.0f}|{threshold}".encode()).hexdigest()[:32]
        return cls(
            id=f"budget-{fact}",
            time=time,
            owner=owner,
            limit=limit,
            threshold=threshold,
            amount=amount,
            period_start=start,
            period_end=end,
        )


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    limit: str
    threshold_percent: int
    amount: str
    currency: str = "USD"
    period_start: str
    period_end: str


class _CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    datacontenttype: str = "application/json"
    data: _Data


def is_budget_event(body: bytes) -> bool:
    """Whether a body in the spool is one."""
    return body.startswith(_PREFIX)


decode_budget_event = msgspec.json.Decoder(BudgetEvent).decode


def cloud_event(event: BudgetEvent, *, source: str, event_type: str = BUDGET_EVENT_TYPE) -> bytes:
    """As `usage-metering` gets it."""
    data = _Data(
        limit=event.limit,
        threshold_percent=event.threshold,
        amount=f"{Decimal(event.amount) / _MICRO:f}",
        period_start=_rfc3339(event.period_start),
        period_end=_rfc3339(event.period_end),
    )
    told = _CloudEvent(id=event.id, source=source, type=event_type, subject=event.owner, data=data)
    return msgspec.json.encode(told)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
