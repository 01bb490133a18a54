"""Thoughts of other vendors in what a Messages client sends to Anthropic itself, which cannot read their proofs.

A conversation that has come from another model of its route, or of another route, brings them along.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Surface
from gateway_middleware.translation.thinking_blocks import FOREIGN_MARKS

if TYPE_CHECKING:
    from gateway_middleware.core.domain import ModelRequest
    from gateway_middleware.core.errors import UpstreamStatusError

_MARK = re.compile(rb'"signature"\s*:\s*"(?:%b)' % b"|".join(re.escape(mark.encode()) for mark in FOREIGN_MARKS))
_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode
_encode = msgspec.json.Encoder().encode


def has_foreign_thoughts(request: ModelRequest) -> bool:
    """Whether there are some in a request of Messages."""
    is_messages = request.surface is Surface.MESSAGES or request.surface is Surface.COUNT_TOKENS
    return is_messages and _MARK.search(request.body) is not None


def is_about_signatures(error: UpstreamStatusError) -> bool:
    """Whether the provider could not read a signature."""
    return error.upstream_status == 400 and b"signature" in error.body


def without_foreign_thoughts(request: ModelRequest) -> ModelRequest:
    """The same request without them; as it is where its turns cannot be read."""
    try:
        turns = _decode(request.fields["messages"])
    except (KeyError, ValueError, RecursionError):
        return request
    kept = [turn for turn in map(_without, turns) if turn.get("content") != []]
    fields = {**request.fields, "messages": msgspec.Raw(_encode(kept))}
    return msgspec.structs.replace(request, body=_encode(fields), fields=fields)


def _without(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn.get("content")
    if not isinstance(content, list):
        return turn
    return {**turn, "content": [block for block in content if not _is_foreign(block)]}


def _is_foreign(block: Any) -> bool:
    signature = block.get("signature") if isinstance(block, dict) else None
    return isinstance(signature, str) and signature.startswith(FOREIGN_MARKS)
