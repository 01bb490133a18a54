"""Gemini's signatures of its thoughts, which stand on its tool calls in chat and have to come back with them.

In the vocabulary a signature is reasoning without words before the call that it stands on.
"""

from __future__ import annotations

import re
from typing import Any

from gateway_middleware.translation.vocabulary import Message, Reasoning, ToolCall, Vendor

_FOREIGN = "skip_thought_signature_validator"
"""Google's word for calls that Gemini has not made itself."""
_GENERATION = re.compile(r"gemini-(\d+)", re.IGNORECASE)
_FIRST_THAT_INSISTS = 3


def signature_in(extra: object) -> Reasoning | None:
    """What the `extra_content` of a call says."""
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return Reasoning(proof=signature, vendor=Vendor.GOOGLE) if isinstance(signature, str) and signature else None


def takes_signatures(model: str) -> bool:
    """Whether this is a Gemini: other servers refuse what they do not know."""
    return "gemini" in model.lower()


def extras_of(message: Message, model: str) -> dict[str, dict[str, Any]]:
    """`extra_content` of the calls of a turn, by their ids, for a model that takes it.

    The first call of a turn must have some where the model insists, whoever made it.
    """
    signatures: dict[str, str] = {}
    signature = _FOREIGN if _insists(model) else None
    for part in message.parts:
        if isinstance(part, Reasoning) and part.vendor is Vendor.GOOGLE:
            signature = part.proof
        elif isinstance(part, ToolCall) and signature is not None:
            signatures[part.id], signature = signature, None
    return {call_id: {"google": {"thought_signature": signed}} for call_id, signed in signatures.items()}


def _insists(model: str) -> bool:
    found = _GENERATION.search(model)
    return found is None or int(found[1]) >= _FIRST_THAT_INSISTS
