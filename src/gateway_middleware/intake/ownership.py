"""Who owns what lies in a provider account that tenants share.

A provider keeps responses, conversations, files and containers under ids that any key of the account may use. So an id
that a client sends is let through only when the gateway knows that the same tenant got it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from cachetools import TTLCache

from gateway_middleware.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway_middleware.domain import Clock, Tenant

MOST_RESPONSES = 100_000
SECONDS_KEPT = 30 * 86400.0
_TOP_LEVEL = ("conversation", "container", "prompt")
_NESTED = frozenset({"file_id", "file_ids", "vector_store_ids", "vector_store_id", "container_id", "skill_id"})
_NEEDLES = (*(f'"{name}"'.encode() for name in _NESTED), b'"item_reference"', b'"container"')
_decode = msgspec.json.Decoder().decode


class ResponseOwners:
    """The tenant and deployment of each stored response, bounded in number and age.

    `is_shared`: several tenants use the provider accounts; with one, everything is its own and nothing is checked.
    """

    def __init__(
        self,
        *,
        is_shared: bool,
        most: int = MOST_RESPONSES,
        seconds: float = SECONDS_KEPT,
        clock: Clock = time.monotonic,
    ) -> None:
        self._is_shared = is_shared
        self._owners: TTLCache[str, tuple[str, str]] = TTLCache(most, seconds, timer=clock)

    def remember(self, response_id: str, tenant: Tenant, deployment: str) -> None:
        """Note that this tenant got this response from this deployment (its key)."""
        self._owners[response_id] = (tenant.name, deployment)

    def check(self, fields: Mapping[str, msgspec.Raw], body: bytes, tenant: Tenant) -> str | None:
        """The deployment that a continued response must go back to, if it is known.

        Raises `InvalidRequestError` that names the field when a stored resource is not the tenant's own.
        """
        sticky = self._previous(fields, tenant)
        if self._is_shared:
            _check_top_level(fields)
            if b"\\u00" in body or any(needle in body for needle in _NEEDLES):
                _check_nested(fields)
        return sticky

    def _previous(self, fields: Mapping[str, msgspec.Raw], tenant: Tenant) -> str | None:
        raw = fields.get("previous_response_id")
        if raw is None or raw == msgspec.Raw(b"null"):
            return None
        owner = self._owners.get(_text(raw, "previous_response_id"))
        if owner is not None and owner[0] == tenant.name:
            return owner[1]
        if self._is_shared:
            raise _refusal("previous_response_id", "names a response that is not known to be yours")
        return None


def _text(raw: msgspec.Raw, field: str) -> str:
    value = _decode(raw)
    if not isinstance(value, str):
        raise InvalidRequestError(f"The field `{field}` must be a string.", param=field)
    return value


def _check_top_level(fields: Mapping[str, msgspec.Raw]) -> None:
    if fields.get("background") == msgspec.Raw(b"true"):
        raise _refusal("background", "makes a response that could not be fetched: there is no endpoint for it")
    for field in _TOP_LEVEL:
        raw = fields.get(field)
        if raw is None:
            continue
        value = _decode(raw)
        if isinstance(value, str) or (isinstance(value, dict) and value.get("id") is not None):
            raise _refusal(field, "names a stored resource of a shared provider account")


def _check_nested(fields: Mapping[str, msgspec.Raw]) -> None:
    for name, raw in fields.items():
        for found in _stored(_decode(raw)):
            raise _refusal(name, f"holds `{found}`, which names a stored resource of a shared provider account")


def _stored(value: Any) -> Iterator[str]:
    """Members anywhere in a value that name something stored."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, list):
            pending += current
        elif isinstance(current, dict):
            yield from (name for name in current if name in _NESTED and current[name])
            if isinstance(current.get("container"), str):
                yield "container"
            if current.get("type") == "item_reference":
                yield "item_reference"
            pending += current.values()


def _refusal(field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The field `{field}` {what}. Tenants of this gateway share provider accounts.",
        param=field,
        code="shared_resource",
    )
