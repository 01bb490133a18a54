"""Whatever waits in the spool for delivery: usage events, and those about budgets and about keys."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gateway_middleware.metering.audit_event import AuditEvent, decode_audit_event, is_audit_event
from gateway_middleware.metering.budget_event import BudgetEvent, decode_budget_event, is_budget_event
from gateway_middleware.metering.usage_event import UsageEvent

OtherEvent: TypeAlias = BudgetEvent | AuditEvent
"""An event that is no call's."""
KeptEvent: TypeAlias = UsageEvent | OtherEvent
_decode_usage = msgspec.json.Decoder(UsageEvent).decode


def decode_kept(body: bytes) -> KeptEvent:
    """The event of a body in the spool. Raises `msgspec.MsgspecError` or `UnicodeDecodeError`."""
    if is_budget_event(body):
        return decode_budget_event(body)
    return decode_audit_event(body) if is_audit_event(body) else _decode_usage(body)
