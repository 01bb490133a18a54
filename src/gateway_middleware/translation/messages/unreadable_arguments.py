"""Arguments of a tool call that are no JSON object, where Messages wants one: `{"__not_json__": "..."}`.

A model's output cap may cut a call inside its arguments. The text as it came stands in a member whose name is no
tool's, and is that text again when the client echoes the call.
"""

from __future__ import annotations

from typing import Any

_MEMBER = "__not_json__"


def wrap(arguments: str) -> dict[str, Any]:
    return {_MEMBER: arguments}


def unwrap(arguments: object) -> str | None:
    """The text that `wrap` has put there; None for any other arguments."""
    if not isinstance(arguments, dict) or arguments.keys() != {_MEMBER}:
        return None
    text = arguments[_MEMBER]
    return text if isinstance(text, str) else None
