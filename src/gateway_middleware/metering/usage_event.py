"""What is metered: an entry before the provider is asked, and one usage event for each attempt that may be billed."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway_middleware.core.domain import Usage

_ABSENT = msgspec.Raw(b"null")
EVENT_TYPE = "gateway.llm.usage.v1"
"""The CloudEvents `type` of a usage event."""


class UsageSource(StrEnum):
    """Where the numbers come from: the provider's own; some of them; none of them."""

    PROVIDER = "provider"
    PARTIAL = "partial"
    ESTIMATED = "estimated"


class OpenCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"input_tokens": "in"}):
    """What is written before the provider is asked, so that a crash loses nothing.

    `id` is made by the gateway, never taken from the client. `time` is seconds since the epoch; `input_tokens` the
    estimate.
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
    input_tokens: int = 0


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt used. `id` is that of its `OpenCall`; `time` is fixed once, in seconds since the epoch.

    `cost` is in US dollars as an exact decimal (`"0.00123"`), None where no price is known; `price_version` names the
    price list. `ttft` and `duration` are seconds. `flags` names what was odd about the provider's numbers.
    """

    id: str
    time: float
    tenant: str
    provider: str
    deployment: str
    model: str
    surface: str
    request_id: str
    outcome: str
    usage: Usage
    usage_source: UsageSource
    attempt: int = 1
    key_id: str | None = None
    route: str | None = None
    model_served: str | None = None
    is_stream: bool = False
    status: int | None = None
    raw_usage: msgspec.Raw = _ABSENT
    cost: str | None = None
    price_version: str | None = None
    ttft: float | None = None
    duration: float | None = None
    flags: tuple[str, ...] = ()
