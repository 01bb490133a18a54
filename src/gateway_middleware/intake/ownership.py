"""Checks that stored provider resources (responses, files, ...) belong to the tenant that names them.

A provider keeps responses, conversations, files and containers under ids that any key of the account may use. So an id
that a client sends is let through only when the gateway knows that the same tenant got it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway_middleware.core.errors import InvalidRequestError, UnavailableError
from gateway_middleware.fleet.entries import Owner
from gateway_middleware.fleet.store import StoreAwayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gateway_middleware.core.domain import Tenant

_MAX_REFERENCES = 1000
_RETRY_SECONDS = 1.0
_REFERENCE = frozenset({"id", "type", "content"})
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
_decode_texts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[_Item | list[Any] | str | int | float | bool | None]).decode


class OwnerStore(Protocol):
    """Knows the owners of stored resources by the provider's ids."""

    def remember(self, ids: Iterable[str], owner: Owner) -> None:
        """All of these are the owner's. Waits for nothing."""
        ...

    async def find(self, ids: Sequence[str]) -> Mapping[str, Owner]:
        """The owners of those that are known. Raises `StoreAwayError` where that cannot be said of all."""
        ...


class References(msgspec.Struct, frozen=True):
    """What a request names of what is stored: the response that it continues, and items of its input."""

    previous: str | None = None
    items: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, that of the response first."""
        return self.items if self.previous is None else (self.previous, *self.items)


class ResponseOwners:
    """The tenant and deployment of each stored response and of its output items.

    `is_shared`: several tenants use the provider accounts; with one, everything is its own and nothing is checked.
    """

    def __init__(self, store: OwnerStore, *, is_shared: bool) -> None:
        self._store = store
        self.is_shared = is_shared

    def remember(self, ids: Iterable[str], tenant: Tenant, deployment: str) -> None:
        """Note that this tenant got this response and these items from this deployment (its key)."""
        self._store.remember(ids, Owner(tenant.name, deployment))

    def references(self, fields: Mapping[str, msgspec.Raw], body: bytes) -> References | None:
        """What `holder` has to be asked about; None where a request names nothing that is stored.

        Raises `InvalidRequestError` that names the field for stored resources whose owners nobody knows.
        """
        previous = _previous(fields)
        items: tuple[str, ...] = ()
        if self.is_shared:
            _check_top_level(fields)
            items = _check_nested(fields, may_be_escaped=b"\\u00" in body)
        return References(previous, items) if previous is not None or items else None

    async def holder(self, references: References, tenant: Tenant) -> str | None:
        """The deployment (its key) that holds what the request goes on from, if it is known.

        Raises `InvalidRequestError` that names the field when something is not the tenant's own, and
        `UnavailableError` when it cannot be known at the moment.
        """
        try:
            owners = await self._store.find(references.ids)
        except StoreAwayError:
            if self.is_shared:
                raise _unknown(references) from None
            return None
        own = {name: owner for name, owner in owners.items() if owner.tenant == tenant.name}
        if self.is_shared:
            _check_own(references, own)
        return next((own[name].deployment for name in references.ids if name in own), None)


def _check_own(references: References, own: Mapping[str, Owner]) -> None:
    if references.previous is not None and references.previous not in own:
        raise _refusal("previous_response_id", "names a response that is not known to be yours")
    if any(name not in own for name in references.items):
        raise _refusal("input", "refers to an item that is not known to be yours")


def _unknown(references: References) -> UnavailableError:
    field = "input" if references.previous is None else "previous_response_id"
    return UnavailableError(
        f"Whether what `{field}` names is yours cannot be checked at the moment. Try again.",
        param=field,
        code="ownership_unavailable",
        retry_after=_RETRY_SECONDS,
    )


def _previous(fields: Mapping[str, msgspec.Raw]) -> str | None:
    raw = fields.get("previous_response_id")
    if raw is None or raw == msgspec.Raw(b"null"):
        return None
    return _text(raw, "previous_response_id")


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


def _check_nested(fields: Mapping[str, msgspec.Raw], *, may_be_escaped: bool) -> tuple[str, ...]:
    """Returns the ids of items that `input` refers to."""
    items: tuple[str, ...] = ()
    for name, raw in fields.items():
        text = bytes(raw)
        if text[:1] not in {b"[", b"{"} or name in _OPAQUE:
            continue
        is_escaped = may_be_escaped and any(letter in text for letter in _LETTERS)
        member = None
        if name == "input" and (is_escaped or _may_refer(text)):
            items, rest = _split(raw)
            member = next(_stored(rest, name), None) or ("id" if any(map(_is_bare, rest)) else None)
        elif is_escaped or _is_suspect(text):
            member = next(_stored(_read(raw, name), name), None)
        if member is not None:
            raise _refusal(name, f"holds `{member}`, which names a stored resource of a shared provider account")
    return items


def _may_refer(text: bytes) -> bool:
    """Whether something in `input` may be stored, or an item may stand for a stored one."""
    return _is_suspect(text) or (b'"id"' in text and _has_reference(text))


def _split(raw: msgspec.Raw) -> tuple[tuple[str, ...], Any]:
    """The ids of the items of `input` that are nothing but references, and everything else."""
    value = _read(raw, "input")
    if not isinstance(value, list):
        return (), [value]
    texts = _read(raw, "input", _decode_texts)
    ids = [item["id"] for item, text in zip(value, texts, strict=True) if _is_reference(item, text)]
    if len(ids) > _MAX_REFERENCES:
        raise InvalidRequestError(f"The field `input` refers to more than {_MAX_REFERENCES} items.", param="input")
    return tuple(dict.fromkeys(ids)), [v for v, text in zip(value, texts, strict=True) if not _is_reference(v, text)]


def _is_reference(item: Any, text: msgspec.Raw) -> bool:
    """Whether an item says which stored one it stands for, in one way only, and nothing else."""
    if not isinstance(item, dict) or not item.keys() <= _REFERENCE or item.get("content") is not None:
        return False
    is_clear = bytes(text).count(b'"id"') == 1 and b"\\" not in bytes(text)
    return is_clear and isinstance(item.get("id"), str) and item.get("type") in {None, "item_reference"}


def _is_bare(item: Any) -> bool:
    """Whether an item has an id and nothing that a provider could take in its place."""
    return isinstance(item, dict) and bool(item.get("id")) and item.get("type") is None and item.get("content") is None


def _is_suspect(text: bytes) -> bool:
    """Whether one of the names may be in it. One byte that is seldom in prose is looked for before the names are."""
    return b'"container"' in text or (b"_" in text and any(needle in text for needle in _NEEDLES))


def _has_reference(text: bytes) -> bool:
    items = _read(text, "input", _decode_items) if text.startswith(b"[") else ()
    return any(
        isinstance(item, _Item) and item.id and item.type is None and item.content == msgspec.Raw(b"null")
        for item in items
    )


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
