"""What one process says of itself for `/v1/admin/status`: plain values that travel between processes as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_middleware.operations.provider_history import Sample
from gateway_middleware.operations.recent_stats import Counts


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A transition of a breaker, or a cooldown. `at` is Unix time; `seconds` how long the new state is to last."""

    at: float
    kind: str
    """`transition` or `cooldown`."""
    key: str
    """The breaker; of a cooldown the deployment, or the provider as a whole."""
    before: str | None = None
    after: str | None = None
    reason: str = ""
    seconds: float | None = None
    process: str = ""
    """Which process saw it, as `host/pid`; filled in where reports are put together."""


class ProviderError(msgspec.Struct, frozen=True, kw_only=True):
    """A failed attempt. `at` is Unix time, `error_class` one of docs/circuit-breaking.md."""

    at: float
    deployment: str
    error_class: str
    message: str
    status: int | None = None
    attempt: int = 1
    tenant: str | None = None
    request_id: str = ""
    process: str = ""


class ProviderReport(msgspec.Struct, frozen=True, kw_only=True):
    """One provider as this process knows it.

    `breakers` is the breaker part of `/v1/providers/{provider}/status`; `last_minute` and `deployments` (by key) are
    counts, `samples` the last quarter of an hour, oldest first.
    """

    kind: str
    breakers: dict[str, Any]
    last_minute: Counts
    deployments: dict[str, Counts]
    samples: list[Sample]


class TenantReport(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's limits, as rows of `GET /v1/usage`, and how many decisions let its calls pass or refused them."""

    limits: list[dict[str, Any]]
    admitted: int = 0
    refused: int = 0


class SpendReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one journal holds of today (UTC).

    `journal` tells journals apart: workers of one server write to the same one. `costs` are exact dollars by tenant,
    `calls` and `unpriced` counts of usage events.
    """

    journal: str
    costs: dict[str, str]
    calls: int = 0
    unpriced: int = 0


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one process contributes. `tenants` are at most a few dozen, `other_tenants` counts the rest."""

    phase: str
    uptime_seconds: float
    problems: list[dict[str, Any]]
    calls_in_flight: int
    loop_lag_seconds: float
    limits: dict[str, Any]
    """The part `limits` of `/v1/health`."""
    metering: dict[str, Any] | None
    """The part `metering` of `/v1/health`."""
    providers: dict[str, ProviderReport]
    tenants: dict[str, TenantReport]
    other_tenants: int = 0
    events: list[Event] = []
    errors: list[ProviderError] = []
    spend: SpendReport | None = None


encode_report = msgspec.json.Encoder().encode
decode_report = msgspec.json.Decoder(ProcessReport).decode
