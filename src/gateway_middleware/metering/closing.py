"""From an attempt that has ended to its usage event, or to none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway_middleware.core.domain import Outcome, Usage
from gateway_middleware.metering.usage_event import UsageEvent, UsageSource

if TYPE_CHECKING:
    from gateway_middleware.core.record import Attempt
    from gateway_middleware.metering.usage_event import OpenCall

Appraise: TypeAlias = "Callable[[UsageEvent, str | None], UsageEvent]"
"""Puts a price on an event; the text is the provider's service tier."""

SHUTDOWN = "shutdown"
_LEFT_ALONE = frozenset({Outcome.CLIENT_DISCONNECT, Outcome.ABANDONED})
"""The provider was at work on it, and nobody waited for the answer."""
_ODD = "usage_odd"
_SILENT = "usage_missing"


def event_of(call: OpenCall, attempt: Attempt, *, is_stopping: bool = False) -> UsageEvent | None:
    """What an attempt used. None: nothing that anybody will bill.

    `is_stopping`: the gateway itself has ended calls. The price is still to be put on it.
    """
    outcome = attempt.outcome or Outcome.CLIENT_DISCONNECT
    found = _measured(call, attempt, outcome)
    if found is None:
        return None
    usage, source = found
    ended = attempt.started if attempt.ended is None else attempt.ended
    return UsageEvent(
        id=call.id,
        time=call.time,
        tenant=call.tenant,
        provider=call.provider,
        deployment=call.deployment,
        model=call.model,
        surface=call.surface,
        request_id=call.request_id,
        outcome=SHUTDOWN if is_stopping and outcome is Outcome.CLIENT_DISCONNECT else outcome.value,
        usage=usage,
        usage_source=source,
        attempt=call.attempt,
        key_id=call.key_id,
        route=call.route,
        model_served=attempt.response_model,
        is_stream=call.is_stream,
        status=attempt.status,
        raw_usage=msgspec.Raw(attempt.raw_usage or b"null"),
        ttft=None if attempt.first_content is None else round(attempt.first_content - attempt.started, 6),
        duration=round(ended - attempt.started, 6),
        flags=_flags(attempt, outcome),
    )


def _measured(call: OpenCall, attempt: Attempt, outcome: Outcome) -> tuple[Usage, UsageSource] | None:
    """The provider's count; what is known of it with estimates for the rest; estimates alone; None for nothing."""
    usage, delivered = attempt.usage, attempt.delivered_tokens
    if usage is not None:
        if attempt.is_complete:
            return usage, UsageSource.PROVIDER
        return _filled(usage, call, delivered), UsageSource.PARTIAL
    if delivered is not None or outcome is Outcome.SUCCESS or outcome in _LEFT_ALONE:
        return _filled(Usage(), call, delivered), UsageSource.ESTIMATED
    return None


def _filled(usage: Usage, call: OpenCall, delivered: int | None) -> Usage:
    output = usage.output_tokens
    if delivered is not None:
        output = max(output or 0, delivered)
    return msgspec.structs.replace(
        usage,
        input_tokens=call.input_tokens if usage.input_tokens is None else usage.input_tokens,
        output_tokens=output,
    )


def _flags(attempt: Attempt, outcome: Outcome) -> tuple[str, ...]:
    if attempt.usage is None and outcome is Outcome.SUCCESS:
        return (_SILENT,)
    is_odd = attempt.usage is not None and attempt.raw_usage is not None and b"-" in _numbers(attempt.raw_usage)
    return (_ODD,) if is_odd else ()


def _numbers(raw: bytes) -> bytes:
    """The values of a usage object: a minus before a digit is a number below zero."""
    return b"-" if any(mark in raw for mark in (b":-", b": -")) else b""
