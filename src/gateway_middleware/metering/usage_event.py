"""The usage event: what one attempt used, made from the entry that was written before its provider was asked."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict, Unpack

import msgspec

from gateway_middleware.core.domain import Attribution, Outcome, Payer, Surface, Usage
from gateway_middleware.core.price import NOT_STATED

if TYPE_CHECKING:
    from gateway_middleware.core.record import Attempt

EVENT_TYPE = "gateway.llm.usage.v1"
"""The CloudEvents `type` of a usage event."""


def sibling_type(usage_type: str, topic: str) -> str:
    """The CloudEvents `type` of events about something else: `usage` in that of usage events gives way to the topic."""
    before, found, after = f".{usage_type}.".rpartition(".usage.")
    return f"{before}.{topic}.{after}".strip(".") if found else f"{usage_type}.{topic}"


_ABSENT = msgspec.Raw(b"null")
CRASH = "gateway_crash"
"""The outcome of a call whose process died before it could tell."""
STEPPED_DOWN = "stepped-down"
"""The `budget` of a call that goes on with a cheaper route."""
_UNAWAITED = frozenset({Outcome.CLIENT_DISCONNECT, Outcome.SHUTDOWN, Outcome.ABANDONED})
"""The provider was at work on it, and nobody waited for the answer."""
_GIVEN_UP = frozenset({Outcome.PROTOCOL_ERROR, Outcome.TIMEOUT, Outcome.GATEWAY_ERROR})
"""With a status of 2xx: the provider has worked, and the gateway did not take its answer."""
_FREE_SURFACES = frozenset(surface.label for surface in Surface if not surface.uses_tokens)
_TEXT_SURFACES = frozenset(surface.label for surface in Surface if surface.writes_text)
_ODD = "usage_odd"
_MISSING = "usage_missing"


class UsageSource(StrEnum):
    """Where the numbers come from: the provider's own; some of them; none of them."""

    PROVIDER = "provider"
    PARTIAL = "partial"
    ESTIMATED = "estimated"


class Attempted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an attempt before its provider is asked, and is told again in its event.

    `budget` is `stepped-down` where the call went on with a cheaper route than was asked for: then `route` is that one.
    `paid_by`: whose credential it carried (`gateway`, `tenant`, `client`); `provider_key`: which of the provider's
    several keys, by its name.
    """

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
    budget: str | None = None
    decision_id: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    provider_labels: tuple[tuple[str, str], ...] = ()
    paid_by: str = Payer.GATEWAY.value
    provider_key: str | None = None
    attribution: Attribution | None = None


class OpenCall(Attempted, frozen=True, kw_only=True, omit_defaults=True, rename={"input_tokens": "in"}):
    """What is written before the provider is asked, so that a crash loses nothing.

    `id` is made by the gateway, never taken from the client. `time` is seconds since the epoch; `input_tokens` the
    estimate.
    """

    input_tokens: int = 0


class _Told(TypedDict, total=False):
    """What an event may tell besides, under the names that it has there."""

    model_served: str | None
    status: int | None
    cost: str | None
    price_version: str | None
    ttft: float | None
    duration: float | None
    upstream_request_id: str | None
    flags: tuple[str, ...]
    unit_prices: msgspec.Raw


class UsageEvent(Attempted, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt used. `id` is that of its `OpenCall`; `time` is fixed once, in seconds since the epoch.

    `cost` is in US dollars as an exact decimal (`"0.00123"`), None where no price is known; `price_version` names the
    price list, and `unit_prices` says what each kind of token was charged at (`metering.prices.parts`). `ttft` and
    `duration` are seconds. `upstream_request_id` is the provider's own id. `flags` names what was odd about the
    provider's numbers.
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
    upstream_request_id: str | None = None
    flags: tuple[str, ...] = ()
    unit_prices: msgspec.Raw = NOT_STATED

    @classmethod
    def of(
        cls,
        call: OpenCall,
        *,
        outcome: str,
        usage: Usage,
        usage_source: UsageSource,
        raw_usage: bytes | None = None,
        **told: Unpack[_Told],
    ) -> Self:
        """The event that ends `call`."""
        return cls(
            **beginning(call),
            outcome=outcome,
            usage=usage,
            usage_source=usage_source,
            raw_usage=msgspec.Raw(raw_usage or b"null"),
            **told,
        )


def beginning(call: OpenCall) -> dict[str, Any]:
    """What the entry of a call tells and its event tells again, by name."""
    fields = msgspec.structs.asdict(call)
    del fields["input_tokens"]
    return fields


Appraise: TypeAlias = "Callable[[UsageEvent, str | None], UsageEvent]"
"""Puts a price on an event; the text is the provider's service tier."""


def event_of(call: OpenCall, attempt: Attempt) -> UsageEvent | None:
    """What an attempt that has ended used, with its price if it is known already. None: nothing that anybody bills."""
    outcome = attempt.outcome or Outcome.CLIENT_DISCONNECT
    measured = _reported(call, attempt) or _estimated(call, attempt, outcome)
    if measured is None:
        return None
    ended = attempt.started if attempt.ended is None else attempt.ended
    return UsageEvent.of(
        call,
        outcome=outcome.value,
        usage=measured.usage,
        usage_source=measured.source,
        model_served=attempt.response_model,
        status=attempt.status,
        raw_usage=attempt.raw_usage,
        cost=measured.cost,
        price_version=measured.price_version,
        ttft=None if attempt.first_content is None else round(attempt.first_content - attempt.started, 6),
        duration=round(ended - attempt.started, 6),
        upstream_request_id=attempt.upstream_request_id,
        flags=measured.flags,
        unit_prices=measured.unit_prices,
    )


def crash_event(call: OpenCall) -> UsageEvent:
    """What is billed for a call whose process died before it could tell: its input, as it was estimated."""
    measured = _unreported(call, None)
    return UsageEvent.of(
        call, outcome=CRASH, usage=measured.usage, usage_source=UsageSource.ESTIMATED, cost=measured.cost
    )


class _Measured(msgspec.Struct, frozen=True):
    usage: Usage
    source: UsageSource
    flags: tuple[str, ...] = ()
    cost: str | None = None
    price_version: str | None = None
    unit_prices: msgspec.Raw = NOT_STATED


def _reported(call: OpenCall, attempt: Attempt) -> _Measured | None:
    """The provider's own count. Where that is not final, or makes no sense, it is filled with estimates."""
    usage = attempt.usage
    if usage is None:
        return None
    is_final = attempt.is_complete or attempt.is_usage_final
    lacks_output = usage.output_tokens is None and call.surface in _TEXT_SURFACES
    delivered = None if is_final and not lacks_output else attempt.delivered_tokens
    lacks_input = usage.input_tokens is None
    filled = consistent(_filled(usage, call, delivered) if lacks_input or delivered is not None else usage)
    is_odd = (is_final and (lacks_input or lacks_output)) or consistent(usage) is not usage
    source = UsageSource.PROVIDER if is_final and not is_odd else UsageSource.PARTIAL
    flags = (_ODD,) if is_odd or _has_negative(attempt.raw_usage or b"") else ()
    cost = attempt.priced[1] if attempt.priced is not None and attempt.priced[0] is filled else None
    if cost is None:
        return _Measured(filled, source, flags)
    return _Measured(filled, source, flags, cost.text, cost.version, cost.unit_prices)


def _estimated(call: OpenCall, attempt: Attempt, outcome: Outcome) -> _Measured | None:
    """What a call used whose provider did not come to tell; None where it has done nothing that it bills."""
    delivered = attempt.delivered_tokens
    is_refused_here = outcome in _GIVEN_UP and attempt.status is not None and 200 <= attempt.status < 300
    if delivered is None and not is_refused_here and outcome is not Outcome.SUCCESS and outcome not in _UNAWAITED:
        return None
    measured = _unreported(call, delivered)
    is_missing = outcome is Outcome.SUCCESS and measured.source is UsageSource.ESTIMATED
    return msgspec.structs.replace(measured, flags=(_MISSING,)) if is_missing else measured


def _unreported(call: OpenCall, delivered: int | None) -> _Measured:
    if call.surface in _FREE_SURFACES:
        return _Measured(Usage(input_tokens=0, output_tokens=0), UsageSource.PROVIDER, cost="0")
    return _Measured(_filled(Usage(), call, delivered), UsageSource.ESTIMATED)


def _filled(usage: Usage, call: OpenCall, delivered: int | None) -> Usage:
    output = usage.output_tokens
    if delivered is not None:
        output = max(output or 0, delivered)
    return msgspec.structs.replace(
        usage,
        input_tokens=call.input_tokens if usage.input_tokens is None else usage.input_tokens,
        output_tokens=output,
    )


def consistent(usage: Usage) -> Usage:
    """The same object where no part is larger than its whole; else one with wholes as large as their parts."""
    if not (usage.cached_input_tokens or usage.cache_write_1h_tokens or usage.reasoning_tokens) and not (
        usage.cache_write_tokens
    ):
        return usage
    written = _at_least(usage.cache_write_tokens, usage.cache_write_1h_tokens or 0)
    taken = _at_least(usage.input_tokens, (usage.cached_input_tokens or 0) + (written or 0))
    given = _at_least(usage.output_tokens, usage.reasoning_tokens or 0)
    if (written, taken, given) == (usage.cache_write_tokens, usage.input_tokens, usage.output_tokens):
        return usage
    return msgspec.structs.replace(usage, cache_write_tokens=written, input_tokens=taken, output_tokens=given)


def _at_least(whole: int | None, parts: int) -> int | None:
    return None if whole is None else max(whole, parts)


def _has_negative(raw: bytes) -> bool:
    """Whether a value of a usage object is a number below zero."""
    return raw.find(b":-") >= 0 or raw.find(b": -") >= 0  # `in` tries a number first, at ten times the cost
