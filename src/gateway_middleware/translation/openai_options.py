"""Options as both of OpenAI's surfaces take them."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from gateway_middleware.core.domain import Dialect
from gateway_middleware.core.models import EFFORTS, Sampling
from gateway_middleware.translation.efforts import effort_of_budget
from gateway_middleware.translation.vocabulary import Document, Image, Text, Thinking, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.target import Target
    from gateway_middleware.translation.vocabulary import Conversation, Tool, ToolChoice

_MAX_USER = 64
_TIERS = {"standard_only": "default"}
_encode = msgspec.json.Encoder(order="sorted").encode


def sampling_of(conversation: Conversation, target: Target, effort: str | None, losses: Losses) -> dict[str, Any]:
    """Temperature and top_p, where the model takes them. Their default, 1, says nothing."""
    style = target.facts.sampling
    is_fixed = style is Sampling.FIXED or (style is Sampling.WITHOUT_EFFORT and effort not in {None, "none"})
    written: dict[str, Any] = {}
    for name, value in (("temperature", conversation.temperature), ("top_p", conversation.top_p)):
        if value is not None and is_fixed and value != 1:
            losses.drop(name)
        elif value is not None:
            written[name] = value
    if conversation.top_k is not None:
        losses.drop("top_k")
    return written


def tools_of(
    conversation: Conversation,
    target: Target,
    losses: Losses,
    *,
    write_tool: Callable[[Tool], dict[str, Any]],
    write_choice: Callable[[ToolChoice, Conversation], str | dict[str, Any]],
) -> dict[str, Any]:
    """The tools, which of them must be called, and whether several may be; each tool and choice as its surface does."""
    if not conversation.tools:
        return {}
    written: dict[str, Any] = {"tools": [write_tool(tool) for tool in conversation.tools]}
    if conversation.tool_choice is not None:
        written["tool_choice"] = write_choice(conversation.tool_choice, conversation)
    if conversation.may_call_parallel is not None:
        if target.facts.has_parallel_option:
            written["parallel_tool_calls"] = conversation.may_call_parallel
        elif not conversation.may_call_parallel:
            losses.drop("may_call_parallel")
    return written


def effort_of(conversation: Conversation, target: Target, losses: Losses) -> str | None:
    """The effort in a word that the model knows: the nearest one, which is listed where it is another."""
    wanted = conversation.effort
    if wanted is not None and conversation.thinking_budget is not None:
        losses.drop("thinking.budget_tokens")
    if wanted is None and conversation.thinking in {Thinking.ON, Thinking.ADAPTIVE}:
        budget = conversation.thinking_budget
        wanted = None if budget is None else effort_of_budget(budget)
        if not target.facts.reasons:
            losses.drop("thinking")
    if wanted is None or (wanted == "none" and not target.facts.reasons):
        return None
    if not target.facts.reasons:
        losses.drop("effort" if conversation.effort is not None else "thinking")
        return None
    known = target.facts.efforts
    if wanted in known or wanted not in EFFORTS:
        return wanted
    losses.drop("effort")
    return min(known, key=lambda effort: abs(EFFORTS.index(effort) - EFFORTS.index(wanted)))


def identity_of(conversation: Conversation, target: Target, losses: Losses) -> dict[str, Any]:
    """Who is served, in which tier, with which cache."""
    written: dict[str, Any] = dict(conversation.openai)
    if conversation.user:
        written["user"] = conversation.user
        if len(conversation.user) > _MAX_USER:
            losses.drop("user")
            written["user"] = sha256(conversation.user.encode()).hexdigest()
    tier = conversation.service_tier
    if tier is not None and tier != "auto":
        written["service_tier"] = _TIERS.get(tier, tier)
    key = conversation.cache_key or _cache_key(conversation, target, losses)
    if key is not None:
        written["prompt_cache_key"] = key
    return written


def _cache_key(conversation: Conversation, target: Target, losses: Losses) -> str | None:
    """OpenAI caches by itself: marks become one key for all calls that begin alike."""
    marks = list(_marks(conversation))
    for name in marks:
        losses.drop(name)
    if not marks or target.dialect is not Dialect.OPENAI or not target.facts.is_known:
        return None
    beginning = ([text.text for text in conversation.system], [tool.name for tool in conversation.tools])
    return sha256(_encode(beginning)).hexdigest()[:32]


def _marks(conversation: Conversation) -> dict[str, None]:
    found: dict[str, None] = {}
    if conversation.cache is not None:
        found["cache"] = None
    if any(text.cache is not None for text in conversation.system):
        found["system.cache"] = None
    if any(tool.cache is not None for tool in conversation.tools):
        found["tool.cache"] = None
    markable = (Text, Image, Document, ToolCall, ToolResult)
    for message in conversation.messages:
        if any(isinstance(part, markable) and part.cache is not None for part in message.parts):
            found["part.cache"] = None
    return found


def is_strict_schema(schema: Any) -> bool:
    """Whether OpenAI takes the schema with `strict`: every object closed, every property required."""
    if isinstance(schema, list):
        return all(is_strict_schema(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    is_object = isinstance(properties, dict) or schema.get("type") == "object"
    if is_object:
        names = properties if isinstance(properties, dict) else {}
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != set(names):
            return False
    return all(is_strict_schema(value) for value in schema.values() if isinstance(value, (dict, list)))
