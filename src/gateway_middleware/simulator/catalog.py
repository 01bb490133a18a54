"""The lists of models."""

from __future__ import annotations

from typing import Any

from gateway_middleware.core.domain import Dialect
from gateway_middleware.simulator.answer import Answer, encode

_OPENAI = (
    "gpt-5",
    "gpt-5-mini",
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "omni-moderation-latest",
    "whisper-1",
)
_ANTHROPIC = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
_CREATED = 1_750_000_000
_CREATED_AT = "2025-06-15T00:00:00Z"


def models(provider: Dialect, name: str | None) -> Answer:
    """The list, or one of them: any name is known."""
    describe = _anthropic if provider is Dialect.ANTHROPIC else _openai
    if name is not None:
        return Answer(body=encode(describe(name)))
    names = _ANTHROPIC if provider is Dialect.ANTHROPIC else _OPENAI
    listed: dict[str, Any] = {"data": [describe(each) for each in names]}
    if provider is Dialect.ANTHROPIC:
        listed |= {"has_more": False, "first_id": names[0], "last_id": names[-1]}
    else:
        listed["object"] = "list"
    return Answer(body=encode(listed))


def _openai(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "simulator"}


def _anthropic(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": f"Simulated {name}", "created_at": _CREATED_AT}
