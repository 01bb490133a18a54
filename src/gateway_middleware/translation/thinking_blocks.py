"""Reasoning as Messages has it, and chat as an extension: `thinking` and `redacted_thinking` blocks.

An Anthropic signature stays as it is. What another vendor made travels inside a signature that names its vendor, so
that a client which echoes the block brings it back.
"""

from __future__ import annotations

from typing import Any

from gateway_middleware.translation.vocabulary import Reasoning, Vendor

_OPENAI, _GOOGLE = "openai.", "google."
FOREIGN_MARKS = (_OPENAI, _GOOGLE)
"""How signatures begin that are none of Anthropic's."""


def block_of(reasoning: Reasoning) -> dict[str, Any] | None:
    """The block for Anthropic itself: None for what it did not sign."""
    if reasoning.vendor is not Vendor.ANTHROPIC or reasoning.proof is None:
        return None
    if reasoning.is_redacted:
        return {"type": "redacted_thinking", "data": reasoning.proof}
    return {"type": "thinking", "thinking": reasoning.text, "signature": reasoning.proof}


def shown_block(reasoning: Reasoning) -> dict[str, Any]:
    """The block for a client, whoever reasoned."""
    return block_of(reasoning) or {
        "type": "thinking",
        "thinking": reasoning.text,
        "signature": signature_of(reasoning),
    }


def signature_of(reasoning: Reasoning) -> str:
    """The signature for a client, empty where the vendor gave no proof."""
    if reasoning.proof is None:
        return ""
    if reasoning.vendor is Vendor.ANTHROPIC:
        return reasoning.proof
    if reasoning.vendor is Vendor.GOOGLE:
        return _GOOGLE + reasoning.proof
    return f"{_OPENAI}{reasoning.id or ''}.{reasoning.proof}"


def read_thinking(text: str, signature: str) -> Reasoning:
    """A block that a client echoes."""
    if signature.startswith(_GOOGLE):
        return Reasoning(text=text, proof=signature.removeprefix(_GOOGLE), vendor=Vendor.GOOGLE)
    if signature.startswith(_OPENAI):
        item_id, _, proof = signature.removeprefix(_OPENAI).partition(".")
        return Reasoning(text=text, proof=proof, vendor=Vendor.OPENAI, id=item_id or None)
    return Reasoning(text=text, proof=signature or None, vendor=Vendor.ANTHROPIC if signature else None)


def read_redacted(proof: str) -> Reasoning:
    return Reasoning(proof=proof, vendor=Vendor.ANTHROPIC, is_redacted=True)
