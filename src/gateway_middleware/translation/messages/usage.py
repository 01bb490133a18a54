"""Usage in the words of Messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Usage


def usage_of(usage: Usage | None, estimated_input: int = 0) -> dict[str, Any]:
    """Exclusive, as Anthropic counts: cached tokens stand beside `input_tokens`."""
    if usage is None or usage.input_tokens is None:
        spent, cached, written = estimated_input, 0, 0
    else:
        cached, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
        spent = max(usage.input_tokens - cached - written, 0)
    counted: dict[str, Any] = {
        "input_tokens": spent,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": (usage.output_tokens or 0) if usage is not None else 0,
    }
    if usage is not None and usage.reasoning_tokens is not None:
        counted["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counted
