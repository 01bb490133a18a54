"""Checks that stored provider resources (responses, files, ...) belong to the tenant that names them.

A provider keeps responses, conversations, files and containers under ids that any key of the account may use. So an id
that a client sends is let through only when the gateway knows that the same tenant got it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from cachetools import TTLCache

from gateway_middleware.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway_middleware.core.domain import Clock, Tenant

MAX_RESPONSES = 100_000
SECONDS_KEPT = 30 * 86400.0
_MAX_ID = 256
_MAX_ELEMENTS = 200_000
_TOP_LEVEL = ("conversation", "container", "prompt")
_NESTED = ("file_id", "file_ids", "vector_store_ids", "vector_store_id", "container_id", "skill_id")
_OPAQUE = frozenset({"metadata", "parameters", "input_schema", "schema"})
"""Members whose content is the client's own: no provider looks for resources there."""
_NEEDLES = (b'"file_id', b'"vector_store_id', b'"container_id"', b'"skill_id"', b'"item_reference"')
_LETTERS = (b"\\u005", b"\\u006", b"\\u007")
"""Escapes of what those names are made of. Accents (`\\u00e9`) are in many bodies and spell none of them."""


class _Item(msgspec.Struct):
    """An input item of the Responses API: one with an id and nothing else refers to a stored one, `type` or not."""

    id: Any = None
    type: Any = None
    content: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder().decode
_decode_items = msgspec.json.Decoder(list[_Item | list[Any] | str | int | float | bool | None]).decode


class ResponseOwners:
    """The tenant and deployment of each stored response, bounded in number and age.

    `is_shared`: several tenants use the provider accounts; with one, everything is its own and nothing is checked.
    """

    def __init__(
        self,
        *,
        is_shared: bool,
        max_responses: int = MAX_RESPONSES,
        seconds: float = SECONDS_KEPT,
        clock: Clock = time.monotonic,
    ) -> None:
        self.is_shared = is_shared
        self._owners: TTLCache[str, tuple[str, str]] = TTLCache(max_responses, seconds, timer=clock)

    def remember(self, response_id: str, tenant: Tenant, deployment: str) -> None:
        """Note that this tenant got this response from this deployment (its key)."""
        if len(response_id) <= _MAX_ID:
            self._owners[response_id] = (tenant.name, deployment)

    def check(self, fields: Mapping[str, msgspec.Raw], body: bytes, tenant: Tenant) -> str | None:
        """The deployment that a continued response must go back to, if it is known.

        Raises `InvalidRequestError` that names the field when a stored resource is not the tenant's own.
        """
        sticky = self._previous(fields, tenant)
        if self.is_shared:
            _check_top_level(fields)
            _check_nested(fields, may_be_escaped=b"\\u00" in body)
        return sticky

    def _previous(self, fields: Mapping[str, msgspec.Raw], tenant: Tenant) -> str | None:
        raw = fields.get("previous_response_id")
        if raw is None or raw == msgspec.Raw(b"null"):
            return None
        owner = self._owners.get(_text(raw, "previous_response_id"))
        if owner is not None and owner[0] == tenant.name:
            return owner[1]
        if self.is_shared:
            raise _refusal("previous_response_id", "names a response that is not known to be yours")
        return None


def _read(raw: msgspec.Raw | bytes, field: str, decode: Any = _decode) -> Any:
    try:
        return decode(raw)
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"The field `{field}` holds what cannot be checked.", param=field) from None


def _text(raw: msgspec.Raw, field: str) -> str:
    value = _read(raw, field)
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
        value = _read(raw, field)
        # A prompt that is text is what completions and images are made from.
        is_reference = value.get("id") is not None if isinstance(value, dict) else isinstance(value, str)
        if is_reference and not (field == "prompt" and isinstance(value, str)):
            raise _refusal(field, "names a stored resource of a shared provider account")


def _check_nested(fields: Mapping[str, msgspec.Raw], *, may_be_escaped: bool) -> None:
    for name, raw in fields.items():
        text = bytes(raw)
        if text[:1] not in {b"[", b"{"} or name in _OPAQUE:
            continue
        is_escaped = may_be_escaped and any(letter in text for letter in _LETTERS)
        member = next(_stored(_read(raw, name), name), None) if is_escaped or _is_suspect(text) else None
        if member is None and name == "input" and (is_escaped or b'"id"' in text):
            member = _reference(text)
        if member is not None:
            raise _refusal(name, f"holds `{member}`, which names a stored resource of a shared provider account")


def _is_suspect(text: bytes) -> bool:
    """Whether one of the names may be in it. One byte that is seldom in prose is looked for before the names are."""
    return b'"container"' in text or (b"_" in text and any(needle in text for needle in _NEEDLES))


def _reference(text: bytes) -> str | None:
    for item in _read(text, "input", _decode_items) if text.startswith(b"[") else ():
        if isinstance(item, _Item) and item.id and item.type is None and item.content == msgspec.Raw(b"null"):
            return "id"
    return None


def _stored(value: Any, field: str) -> Iterator[str]:
    """Members anywhere in a value that name something stored."""
    pending, left = [value], _MAX_ELEMENTS
    while pending:
        current = pending.pop()
        left -= len(current)
        if left < 0:
            raise InvalidRequestError(f"The field `{field}` holds too many elements to be checked.", param=field)
        if isinstance(current, dict):
            yield from _named(current)
            current = _visible(current)
        pending += [inner for inner in current if isinstance(inner, (dict, list))]


def _named(current: dict[str, Any]) -> Iterator[str]:
    # Only text, or a list, can be an id: a schema may well describe a member of that name.
    yield from (name for name in _NESTED if isinstance(current.get(name), (str, list)) and current[name])
    if isinstance(current.get("container"), str):
        yield "container"
    if current.get("type") == "item_reference":
        yield "item_reference"


def _visible(current: dict[str, Any]) -> list[Any]:
    """The values that a provider reads: not what the arguments of a tool call hold."""
    is_call = current.get("type") == "tool_use"
    return [value for name, value in current.items() if name not in _OPAQUE and not (is_call and name == "input")]


def _refusal(field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The field `{field}` {what}. Tenants of this gateway share provider accounts.",
        param=field,
        code="shared_resource",
    )
