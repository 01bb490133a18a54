"""Reads code, type and message of an error body, in any of the dialects."""

from __future__ import annotations

from typing import Any

import msgspec

_MAX_BODY_BYTES = 64 * 1024
_decode = msgspec.json.Decoder().decode


class ErrorBody(msgspec.Struct, frozen=True):
    """What an error body says of itself. `names` are code, inner code and type, in lower case, most exact first."""

    names: tuple[str, ...] = ()
    message: str = ""
    is_anthropic: bool = False

    @property
    def lowered(self) -> str:
        """The message to look for words in."""
        return self.message.lower()


def read_body(body: bytes) -> ErrorBody:
    """What an error body says, in any of the dialects. What is no JSON object says nothing."""
    document = _json(body)
    error = document.get("error")
    if not isinstance(error, dict):
        return ErrorBody(
            _names(document), _text(error) or _text(document.get("message")) or _text(document.get("detail"))
        )
    is_anthropic = document.get("type") == "error" and "code" not in error
    return ErrorBody(_names(error), _text(error.get("message")), is_anthropic)


def _json(body: bytes) -> dict[str, Any]:
    if len(body) > _MAX_BODY_BYTES:
        return {}
    try:
        document = _decode(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list) and len(document) == 1:
        document = document[0]  # as Google writes its errors
    return document if isinstance(document, dict) else {}


def _names(error: dict[str, Any]) -> tuple[str, ...]:
    inner = error.get("innererror")
    candidates = (error.get("code"), inner.get("code") if isinstance(inner, dict) else None, error.get("type"))
    return tuple(str(name).lower() for name in candidates if isinstance(name, str | int))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
