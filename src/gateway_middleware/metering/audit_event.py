"""The event that a tenant, a key or the configuration was changed: kept and delivered with the usage events."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from gateway_middleware.metering.moments import rfc3339
from gateway_middleware.metering.usage_event import EVENT_TYPE, sibling_type

AUDIT_EVENT_TYPE = sibling_type(EVENT_TYPE, "audit")
"""The CloudEvents `type` of it, where usage events have theirs."""
_SUBJECT = "gateway/configuration"
"""In the place of a tenant. No tenant has a name with a slash that was made at run time."""
_PREFIX = b'{"event":"audit"'


class AuditOutcome(StrEnum):
    """What became of a change. UNKNOWN: the process that made it has died before it could tell."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="audit"):
    """`action` is such as `key.created`; `time` when it was asked for, or was due, since the epoch.

    `actor` is `admin` (an operator: `client` is the address of the connection), `gateway` (it was due), or what had the
    configuration read again: `file watch`, `signal`, `host`. `tenant` None: it is about the configuration. `changes`
    has what was set, never a secret.
    """

    id: str
    time: float
    action: str
    tenant: str | None = None
    actor: str = "admin"
    client: str | None = None
    request_id: str | None = None
    key_id: str | None = None
    name: str | None = None
    changes: Mapping[str, Any] = {}
    outcome: AuditOutcome = AuditOutcome.UNKNOWN

    @classmethod
    def of_expiry(cls, *, tenant: str, key_id: str, name: str | None, expires: float) -> AuditEvent:
        """A key has expired. Every process says it in the same words, under the same `id`."""
        fact = f"{tenant}|{key_id}|{expires!r}"
        return cls._due(fact, action="key.expired", time=expires, tenant=tenant, key_id=key_id, name=name)

    @classmethod
    def of_deletion(cls, *, tenant: str, key_id: str, name: str | None, deleted: float) -> AuditEvent:
        """A revoked key is not remembered any longer. Every process says it in the same words, under the same `id`."""
        fact = f"deleted|{tenant}|{key_id}|{deleted!r}"
        return cls._due(fact, action="key.deleted", time=deleted, tenant=tenant, key_id=key_id, name=name)

    @classmethod
    def _due(cls, fact: str, **fields: Any) -> AuditEvent:
        digest = sha256(fact.encode()).hexdigest()[:32]
        return cls(id=f"audit-{digest}", actor="gateway", outcome=AuditOutcome.SUCCESS, **fields)


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    action: str
    outcome: AuditOutcome
    actor: str
    client: str | None
    request_id: str | None
    tenant: str | None
    key_id: str | None
    name: str | None
    changes: Mapping[str, Any]


class _CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str = "application/json"
    data: _Data


def is_audit_event(body: bytes) -> bool:
    """Whether a body in the spool is one."""
    return body.startswith(_PREFIX)


decode_audit_event = msgspec.json.Decoder(AuditEvent).decode


def cloud_event(event: AuditEvent, *, source: str, event_type: str = AUDIT_EVENT_TYPE) -> bytes:
    """As `usage-metering` gets it."""
    data = _Data(**{name: getattr(event, name) for name in _Data.__struct_fields__})
    moment = rfc3339(event.time)
    return msgspec.json.encode(
        _CloudEvent(
            id=event.id, source=source, type=event_type, subject=event.tenant or _SUBJECT, time=moment, data=data
        )
    )
