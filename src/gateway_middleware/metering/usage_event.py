"""The usage event: what one attempt used, made from the entry that was written before its provider was asked."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from gateway_middleware.core.domain import Outcome, Usage

if TYPE_CHECKING:
    from gateway_middleware.core.record import Attempt

EVENT_TYPE = "gateway.llm.usage.v1"
"""The CloudEvents `type` of a usage event."""
SHUTDOWN = "shutdown"
"""The outcome of a call that the gateway itself ended while it stopped."""
_ABSENT = msgspec.Raw(b"null")
_UNAWAITED = frozenset({Outcome.CLIENT_DISCONNECT, Outcome.ABANDONED})
"""The provider was at work on it, and nobody waited for the answer."""
_ODD = "usage_odd"
_MISSING = "usage_missing"


class UsageSource(StrEnum):
    """Where the numbers come from: the provider's own; some of them; none of them."""

    PROVIDER = "provider"
    PARTIAL = "partial"
    ESTIMATED = "estimated"


class _Attempted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an attempt before its provider is asked, and is told again in its event."""

    id: str
    time: float
    tenant: str
    provider: str
    deployment: str
    model: str
    surface: str
    request_id: str
    attempt: int = 1
    key_id: str | None = None
    route: str | None = None
    is_stream: bool = False


class OpenCall(_Attempted, frozen=True, kw_only=True, omit_defaults=True, rename={"input_tokens": "in"}):
    """What is written before the provider is asked, so that a crash loses nothing.

    `id` is made by the gateway, never taken from the client. `time` is seconds since the epoch; `input_tokens` the
    estimate.
    """

    input_tokens: int = 0


class UsageEvent(_Attempted, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt used. `id` is that of its `OpenCall`; `time` is fixed once, in seconds since the epoch.

    `cost` is in US dollars as an exact decimal (`"0.00123"`), None where no price is known; `price_version` names the
    price list. `ttft` and `duration` are seconds. `flags` names what was odd about the provider's numbers.
    """

    outcome: str
    usage: Usage
    usage_source: UsageSource
    model_served: str | None = None
    status: int | None = None
    raw_usage: msgspec.Raw = _ABSENT
    cost: str | None = None
    price_version: str | None = None
    ttft: float | None = None
    duration: float | None = None
    flags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        call: OpenCall,
        *,
        outcome: str,
        usage: Usage,
        usage_source: UsageSource,
        model: str | None = None,
        model_served: str | None = None,
        is_stream: bool | None = None,
        status: int | None = None,
        raw_usage: bytes | None = None,
        ttft: float | None = None,
        duration: float | None = None,
        flags: tuple[str, ...] = (),
    ) -> Self:
        """The event that ends `call`, not priced yet. `model` and `is_stream` are those of the call unless given."""
        return cls(
            id=call.id,
            time=call.time,
            tenant=call.tenant,
            provider=call.provider,
            deployment=call.deployment,
            model=call.model if model is None else model,
            surface=call.surface,
            request_id=call.request_id,
            attempt=call.attempt,
            key_id=call.key_id,
            route=call.route,
            is_stream=call.is_stream if is_stream is None else is_stream,
            outcome=outcome,
            usage=usage,
            usage_source=usage_source,
            model_served=model_served,
            status=status,
            raw_usage=msgspec.Raw(raw_usage or b"null"),
            ttft=ttft,
            duration=duration,
            flags=flags,
        )


Appraise: TypeAlias = "Callable[[UsageEvent, str | None], UsageEvent]"
"""Puts a price on an event; the text is the provider's service tier."""


def event_of(call: OpenCall, attempt: Attempt, *, is_stopping: bool = False) -> UsageEvent | None:
    """What an attempt that has ended used, not priced yet. None: nothing that anybody will bill.

    `is_stopping`: the gateway itself has ended calls.
    """
    outcome = attempt.outcome or Outcome.CLIENT_DISCONNECT
    measured = _measured(call, attempt, outcome)
    if measured is None:
        return None
    usage, source = measured
    ended = attempt.started if attempt.ended is None else attempt.ended
    return UsageEvent.of(
        call,
        outcome=SHUTDOWN if is_stopping and outcome is Outcome.CLIENT_DISCONNECT else outcome.value,
        usage=usage,
        usage_source=source,
        model_served=attempt.response_model,
        status=attempt.status,
        raw_usage=attempt.raw_usage,
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
    if delivered is not None or outcome is Outcome.SUCCESS or outcome in _UNAWAITED:
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
    if attempt.usage is None:
        return (_MISSING,) if outcome is Outcome.SUCCESS else ()
    return (_ODD,) if _has_negative(attempt.raw_usage or b"") else ()


def _has_negative(raw: bytes) -> bool:
    """Whether a value of a usage object is a number below zero."""
    return b":-" in raw or b": -" in raw
