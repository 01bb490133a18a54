"""Tool calls and their results belong together: both vendors refuse the one without the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.translation.vocabulary import Role, ToolCall, ToolResult

if TYPE_CHECKING:
    from gateway_middleware.translation.fields import Losses
    from gateway_middleware.translation.vocabulary import Conversation, Message


def check_calls(conversation: Conversation, losses: Losses) -> None:
    """Raises `InvalidRequestError` that names the id of a call without result, or of a result without call."""
    pending: dict[str, None] = {}
    for message in conversation.messages:
        results = _results(message)
        for call_id in results:
            if call_id not in pending:
                losses.refuse("call.id", f"names `{call_id[:64]}`, which no tool call before it has")
        for call_id in results:
            pending.pop(call_id, None)
        if message.role is Role.ASSISTANT:
            pending |= {part.id: None for part in message.parts if isinstance(part, ToolCall)}
    if pending and conversation.messages[-1].role is not Role.ASSISTANT:
        losses.refuse("call.id", f"lacks the result of the tool call `{next(iter(pending))[:64]}`")


def _results(message: Message) -> list[str]:
    return [part.call_id for part in message.parts if isinstance(part, ToolResult)]
