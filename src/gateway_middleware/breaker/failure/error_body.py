"""The words of an error body, in any of the dialects."""

from __future__ import annotations

from typing import Any

import msgspec

_MAX_BODY_BYTES = 64 * 1024
_decode = msgspec.json.Decoder().decode


class Said(msgspec.Struct, frozen=True):
    """What an error body says of itself. `names` are code, inner code and type, in lower case, most exact first."""

    names: tuple[str, ...] = ()
    message: str = ""
    is_anthropic: bool = False

    @property
    def lowered(self) -> str:
        """The message to look for words in."""
        return self.message.lower()


def read_body(body: bytes) -> Said:
    """What an error body says, in any of the dialects. What is no JSON object says nothing."""
    found = _json(body)
    error = found.get("error")
    if not isinstance(error, dict):
        return Said(_names(found), _text(error) or _text(found.get("message")) or _text(found.get("detail")))
    is_anthropic = found.get("type") == "error" and "code" not in error
    return Said(_names(error), _text(error.get("message")), is_anthropic)


def _json(body: bytes) -> dict[str, Any]:
    if len(body) > _MAX_BODY_BYTES:
        return {}
    try:
        found = _decode(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(error: dict[str, Any]) -> tuple[str, ...]:
    inner = error.get("innererror")
    candidates = (error.get("code"), inner.get("code") if isinstance(inner, dict) else None, error.get("type"))
    return tuple(str(name).lower() for name in candidates if isinstance(name, str | int))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
