"""Options of a request that more than one dialect calls by the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.translation.vocabulary import Thinking

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Fields

OPENAI_OPTIONS = (
    "metadata",
    "moderation",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "prediction",
)
"""What chat and Responses have in common and Messages lacks, carried as it came. `prediction` is only chat's."""


def take_options(fields: Fields) -> dict[str, Any]:
    """The members of a `Conversation` that have one name everywhere."""
    return {
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "top_k": fields.integer("top_k"),
        "user": fields.text("user"),
        "service_tier": fields.text("service_tier"),
        "cache": fields.object("cache_control"),
        "cache_key": fields.text("prompt_cache_key"),
        "seed": fields.integer("seed"),
        "frequency_penalty": fields.number("frequency_penalty"),
        "presence_penalty": fields.number("presence_penalty"),
        "logit_bias": fields.object("logit_bias"),
        "top_logprobs": fields.integer("top_logprobs"),
        "is_stream": bool(fields.flag("stream")),
        **take_thinking(fields.nested("thinking")),
    }


def take_thinking(fields: Fields) -> dict[str, Any]:
    """Anthropic's `thinking`; chat clients send it too."""
    kind = fields.text("type")
    styles = {"enabled": Thinking.ON, "adaptive": Thinking.ADAPTIVE, "between_tools": Thinking.ADAPTIVE}
    return {
        "thinking": None if kind is None else styles.get(kind, Thinking.OFF),
        "thinking_budget": fields.integer("budget_tokens"),
        "thinking_display": fields.text("display"),
    }


def take_shared(fields: Fields, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := fields.any(name)) not in (None, {}, [])}
