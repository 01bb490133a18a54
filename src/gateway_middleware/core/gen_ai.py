"""Words of OpenTelemetry's conventions for generative AI, which are in development.

They stand in the repository `open-telemetry/semantic-conventions-genai`, `docs/gen-ai/`; read in November 2026.
"""

from __future__ import annotations

from gateway_middleware.core.domain import Surface

_OPERATIONS = {
    Surface.CHAT: "chat",
    Surface.RESPONSES: "chat",
    Surface.COMPACT: "chat",
    Surface.MESSAGES: "chat",
    Surface.COMPLETIONS: "text_completion",
    Surface.EMBEDDINGS: "embeddings",
}


def operation_of(surface: Surface) -> str:
    """`gen_ai.operation.name` of a surface; our own label where the conventions have no word."""
    return _OPERATIONS.get(surface, surface.label)
