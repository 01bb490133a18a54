"""Usage events as CloudEvents 1.0 in JSON, as `usage-metering` gets them.

A batch is a JSON array, content type `application/cloudevents-batch+json`. Each event:

    specversion      "1.0"
    id               of the usage event; with `source` it names the event once and for all
    source           the gateway, e.g. "/model-gateway/eu": the same on every replica, and after a restart
    type             "gateway.llm.usage.v1", or what the operator calls it
    dataschema       where the schema of `data` is, if the operator says so
    traceparent      of W3C Trace Context, where the client sent one
    subject          the tenant
    time             RFC 3339 in UTC, with microseconds
    datacontenttype  "application/json"
    data             request_id, attempt            the call, and which of its upstream tries
                     provider, deployment           who was asked
                     model, model_served            as the client asked for it; as the provider named it
                     surface, route, stream         e.g. "chat", the configured route, true or false
                     budget                         "stepped-down": a cheaper route, for a budget is spent
                     key_id                         which of the tenant's keys; never the key
                     policy_decision, labels        what the policy-adapter has said of the call
                     provider_labels                the operator's labels of the provider, e.g. {"region": "eu"}
                     paid_by, provider_key          whose credential it carried, "gateway", "tenant" or "client";
                                                    which of the provider's several keys, by its name
                     tags, session, end_user        what the client says that the call belongs to
                     outcome, status                e.g. "success"; the provider's HTTP status
                     usage_source                   "provider", "partial" or "estimated"
                     input_tokens                   including cached_input_tokens and cache_write_tokens, of which
                                                    cache_write_1h_tokens are kept for an hour
                     output_tokens                  including reasoning_tokens
                     total_tokens                   the known ones of input and output
                     raw_usage                      the provider's own usage object
                     cost, price_version            US dollars as an exact decimal ("0.00123"), and the price list
                     unit_prices                    dollars per million tokens, {"input": "1.25", "output": "10"}:
                                                    a kind that is not named (cached_input, cache_write,
                                                    cache_write_1h, reasoning) costs what it is a part of;
                                                    `request`: dollars per call
                     ttft, duration                 seconds
                     upstream_request_id            the provider's own id of its answer
                     flags                          what was odd about the provider's numbers

Every member of `data` is always there; what is not known is null, which is not 0. The bytes of an event depend on
nothing but the event, `source`, `type` and `dataschema`: they are equal each time it is sent. `data` may only ever be
added to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from gateway_middleware.core.domain import Attribution, Usage
from gateway_middleware.metering.moments import rfc3339
from gateway_middleware.metering.prices.parts import stated_prices
from gateway_middleware.metering.usage_event import EVENT_TYPE, UsageEvent, UsageSource

CONTENT_TYPE = "application/cloudevents-batch+json"
UNREADABLE = "raw_usage_unreadable"
"""The flag of an event whose `raw_usage` is no JSON: one such would make a whole batch unreadable."""

_NULL = msgspec.Raw(b"null")
_NOTHING = Attribution()
_encoder = msgspec.json.Encoder()


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    request_id: str
    attempt: int
    provider: str
    deployment: str
    model: str
    model_served: str | None
    surface: str
    route: str | None
    stream: bool
    budget: str | None
    key_id: str | None
    policy_decision: str | None
    labels: dict[str, str]
    provider_labels: dict[str, str]
    paid_by: str
    provider_key: str | None
    tags: dict[str, str]
    session: str | None
    end_user: str | None
    outcome: str
    status: int | None
    usage_source: UsageSource
    input_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    total_tokens: int | None
    raw_usage: msgspec.Raw
    cost: str | None
    price_version: str | None
    ttft: float | None
    duration: float | None
    upstream_request_id: str | None
    flags: tuple[str, ...]
    unit_prices: dict[str, str] | None


class _CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    specversion: str = "1.0"
    id: str
    source: str
    type: str = EVENT_TYPE
    subject: str
    time: str
    datacontenttype: str = "application/json"
    dataschema: str | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    data: _Data


def encode(event: UsageEvent, *, source: str, event_type: str = EVENT_TYPE, dataschema: str | None = None) -> bytes:
    """One event. Raises `ValueError` or `OverflowError` when its time or text cannot be written."""
    cloud_event = _CloudEvent(
        id=event.id,
        source=source,
        type=event_type,
        subject=event.tenant,
        time=rfc3339(event.time),
        dataschema=dataschema or UNSET,
        traceparent=(event.attribution or _NOTHING).traceparent or UNSET,
        data=_data(event),
    )
    return _encoder.encode(cloud_event)


def document(event: UsageEvent) -> dict[str, Any]:
    """`data` of an event with its id and its time, for whoever asks for one call."""
    return {"id": event.id, "time": rfc3339(event.time), **msgspec.structs.asdict(_data(event))}


def schema() -> dict[str, Any]:
    """JSON Schema of `data`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(_Data)}


def join(encoded: Iterable[bytes]) -> bytes:
    """The body of a batch."""
    return b"[" + b",".join(encoded) + b"]"


def _data(event: UsageEvent) -> _Data:
    usage, is_readable = event.usage, _is_json(event.raw_usage)
    attribution = event.attribution or _NOTHING
    return _Data(
        request_id=event.request_id,
        attempt=event.attempt,
        provider=event.provider,
        deployment=event.deployment,
        model=event.model,
        model_served=event.model_served,
        surface=event.surface,
        route=event.route,
        stream=event.is_stream,
        budget=event.budget,
        key_id=event.key_id,
        policy_decision=event.decision_id,
        labels=dict(event.labels),
        provider_labels=dict(event.provider_labels),
        paid_by=event.paid_by,
        provider_key=event.provider_key,
        tags=dict(attribution.tags),
        session=attribution.session,
        end_user=attribution.end_user,
        outcome=event.outcome,
        status=event.status,
        usage_source=event.usage_source,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        total_tokens=_total(usage),
        raw_usage=event.raw_usage if is_readable else _NULL,
        cost=event.cost,
        price_version=event.price_version,
        ttft=event.ttft,
        duration=event.duration,
        upstream_request_id=event.upstream_request_id,
        flags=event.flags if is_readable else (*event.flags, UNREADABLE),
        unit_prices=stated_prices(event.unit_prices),
    )


def _total(usage: Usage) -> int | None:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _is_json(raw: msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return False
    return True
