"""The response object, whole or as it stands in the events of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.vocabulary import Stop

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Usage
    from gateway_middleware.translation.context import Context

_DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
"""Options that a response repeats, with what stands there when they were not given."""
_REASONS = {
    Stop.LENGTH: "max_output_tokens",
    Stop.CONTEXT_WINDOW: "max_output_tokens",
    Stop.CONTENT_FILTER: "content_filter",
    Stop.REFUSAL: "content_filter",
}


def incomplete_reason(stop: Stop, *, has_refusal: bool) -> str | None:
    """Why a response is incomplete; None where it is complete, as one is that holds its refusal."""
    return None if stop is Stop.REFUSAL and has_refusal else _REASONS.get(stop)


def envelope(response_id: str, model: str, created: int, context: Context) -> dict[str, Any]:
    """A response that is in progress."""
    repeated = {
        name: default if (value := context.request.get(name)) is None else value for name, default in _DEFAULTS.items()
    }
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "usage": None,
        **repeated,
    }


def ending(output: list[dict[str, Any]], usage: Usage | None, reason: str | None) -> dict[str, Any]:
    """What the end changes of a response in progress."""
    return {
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": usage_of(usage),
    }


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """Inclusive, as OpenAI counts."""
    spent, made = (usage.input_tokens or 0, usage.output_tokens or 0) if usage else (0, 0)
    cached, written, reasoning = (
        (usage.cached_input_tokens or 0, usage.cache_write_tokens or 0, usage.reasoning_tokens or 0)
        if usage
        else (0, 0, 0)
    )
    return {
        "input_tokens": spent,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": spent + made,
    }
