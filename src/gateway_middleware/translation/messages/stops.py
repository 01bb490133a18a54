"""Stop reasons of Messages."""

from __future__ import annotations

from gateway_middleware.translation.vocabulary import Stop

STOPS = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.STOP_SEQUENCE,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.CONTEXT_WINDOW,
    "tool_use": Stop.TOOL_CALLS,
    "refusal": Stop.REFUSAL,
    "pause_turn": Stop.PAUSE,
}
STOP_REASONS = {stop: reason for reason, stop in STOPS.items()} | {Stop.CONTENT_FILTER: "refusal"}
