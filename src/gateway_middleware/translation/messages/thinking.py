"""How a Claude model is asked to reason: with a budget in tokens, or adaptively with an effort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_middleware.core.models import ModelFacts, ThinkingStyle
from gateway_middleware.translation.efforts import BUDGETS, effort_of_budget
from gateway_middleware.translation.vocabulary import Choice, Reasoning, Role, Thinking, ToolCall, Vendor

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.vocabulary import Conversation

MIN_BUDGET = 1024
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_MAX_DEFAULT_OUTPUT = 32_000
_UNKNOWN_OUTPUT = 4096


class Plan:
    """Output cap and thinking of one request to a Claude model."""

    __slots__ = ("effort", "max_tokens", "thinking")

    def __init__(self, max_tokens: int, thinking: dict[str, Any] | None = None, effort: str | None = None) -> None:
        self.max_tokens = max_tokens
        self.thinking = thinking
        self.effort = effort

    @property
    def is_thinking(self) -> bool:
        return self.thinking is not None


def plan_thinking(conversation: Conversation, facts: ModelFacts, losses: Losses) -> Plan:
    """What to send. An effort that the model cannot take is listed."""
    default = min(facts.max_output or _UNKNOWN_OUTPUT, _MAX_DEFAULT_OUTPUT)
    cap = conversation.max_tokens or default
    effort = _effort(conversation)
    if conversation.thinking_display is not None and (effort is None or facts.thinking is ThinkingStyle.NONE):
        losses.drop("thinking.display")
    if effort is None:
        return Plan(cap)
    if facts.thinking is ThinkingStyle.NONE:
        losses.drop("effort")
        return Plan(cap)
    if facts.thinking is not ThinkingStyle.BUDGET:
        return Plan(cap, _with_display({"type": "adaptive"}, conversation), _EFFORTS.get(effort))
    return _budgeted(conversation, effort, cap, facts, losses)


def _effort(conversation: Conversation) -> str | None:
    """The effort that was asked for; None where none was, or none is wanted."""
    if conversation.effort is not None:
        return conversation.effort if conversation.effort in BUDGETS else None
    if conversation.thinking in {Thinking.ON, Thinking.ADAPTIVE}:
        return effort_of_budget(conversation.thinking_budget or BUDGETS["high"])
    return None


def _budgeted(conversation: Conversation, effort: str, cap: int, facts: ModelFacts, losses: Losses) -> Plan:
    """With a budget below the cap. A turn in the middle of tool calls must begin with the thinking that led to them."""
    budget = conversation.thinking_budget or BUDGETS[effort]
    if conversation.max_tokens is None:
        room = min(cap + budget, facts.max_output or cap + budget)
    else:
        room, budget = cap, budget if budget < cap else cap // 2
    if budget < MIN_BUDGET or _has_unsigned_calls(conversation):
        losses.drop("effort")
        if conversation.thinking_display is not None:
            losses.drop("thinking.display")
        return Plan(cap)
    return Plan(room, _with_display({"type": "enabled", "budget_tokens": budget}, conversation))


def _with_display(thinking: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    if conversation.thinking_display is not None:
        thinking["display"] = conversation.thinking_display
    return thinking


def _has_unsigned_calls(conversation: Conversation) -> bool:
    """Whether the last turn answers calls whose thinking the client has not brought back."""
    turns = [message for message in conversation.messages if message.role is not Role.SYSTEM]
    last = next((turn for turn in reversed(turns) if turn.role is Role.ASSISTANT), None)
    if last is None or not any(isinstance(part, ToolCall) for part in last.parts):
        return False
    return not any(isinstance(part, Reasoning) and part.vendor is Vendor.ANTHROPIC for part in last.parts)


def forces_a_tool(conversation: Conversation) -> bool:
    choice = conversation.tool_choice
    return choice is not None and choice.choice in {Choice.REQUIRED, Choice.NAMED}
