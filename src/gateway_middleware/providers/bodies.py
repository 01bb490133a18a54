"""Makes the upstream request body: the client's own bytes with the model replaced, and stream usage asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.model_names import DEFAULT_MODELS
from gateway_middleware.core.multipart import is_multipart
from gateway_middleware.providers.multipart import with_model_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway_middleware.core.domain import ModelRequest

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_OPTIONS = "stream_options"
_ONLY_USAGE = msgspec.Raw(b'{"include_usage":true}')
_TRUE = msgspec.Raw(b"true")
_NULL = msgspec.Raw(b"null")


def upstream_body(request: ModelRequest, model: str, *, asks_usage: bool = False, needs_model: bool = True) -> bytes:
    """The body with this model in the place of the client's.

    `asks_usage` adds `stream_options.include_usage`. `needs_model` is false where the path names the model: then a body
    without one stays so, as does one that leaves it to the provider.
    """
    needs_model = needs_model and DEFAULT_MODELS.get(request.surface) != model
    if not request.fields and is_multipart(request.content_type):
        return with_model_part(request.body, request.content_type, model, is_added=needs_model)
    fields = request.fields
    if not fields:
        return request.body
    named = _named(model)
    is_same = fields.get("model") == named or not (needs_model or _names_model(fields))
    if is_same and not asks_usage:
        return request.body
    changed = dict(fields)
    if not is_same:
        changed["model"] = named
    if asks_usage:
        changed[_OPTIONS] = _asking_usage(fields.get(_OPTIONS))
    return _encode(changed)


@lru_cache(maxsize=1024)
def _named(model: str) -> msgspec.Raw:
    return msgspec.Raw(_encode(model))


def _names_model(fields: Mapping[str, msgspec.Raw]) -> bool:
    return fields.get("model", _NULL) != _NULL


def _asking_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    """The client's stream options and ours. What is no object stays: its refusal is the provider's."""
    if options is None or options == _NULL:
        return _ONLY_USAGE
    try:
        members = _decode_members(options)
    except (ValueError, RecursionError):
        return options
    return msgspec.Raw(_encode({**members, "include_usage": _TRUE}))
