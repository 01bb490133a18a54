"""Usage in chat's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Usage


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """Inclusive, as OpenAI counts: cached tokens are in the prompt, reasoning in the completion."""
    prompt, completion = (usage.input_tokens or 0, usage.output_tokens or 0) if usage else (0, 0)
    written: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if usage is not None:
        details = {"cached_tokens": usage.cached_input_tokens or 0, "audio_tokens": 0}
        if usage.cache_write_tokens is not None:
            details["cache_write_tokens"] = usage.cache_write_tokens
        written["prompt_tokens_details"] = details
        if usage.reasoning_tokens is not None:
            written["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return written
