"""Opaque proofs of reasoning in `encrypted_content`.

OpenAI's own stays as it is. A signature of Anthropic's or Google's, or the data of a redacted block, carries its
maker's name, so that a client which echoes the item brings it back.
"""

from __future__ import annotations

from gateway_middleware.translation.vocabulary import Reasoning, Vendor

_SIGNATURE, _REDACTED, _GOOGLE = "anthropic.signature.", "anthropic.redacted.", "google.signature."


def encrypted_content(reasoning: Reasoning) -> str | None:
    """The proof as a client of Responses gets it."""
    if reasoning.proof is None or reasoning.vendor is Vendor.OPENAI:
        return reasoning.proof
    if reasoning.vendor is Vendor.GOOGLE:
        return _GOOGLE + reasoning.proof
    return (_REDACTED if reasoning.is_redacted else _SIGNATURE) + reasoning.proof


def read_proof(text: str, encrypted: str | None, item_id: str | None) -> Reasoning:
    """A reasoning item that a provider gives or a client echoes."""
    if encrypted is None:
        return Reasoning(text=text, id=item_id)
    if encrypted.startswith(_SIGNATURE):
        return Reasoning(text=text, proof=encrypted.removeprefix(_SIGNATURE), vendor=Vendor.ANTHROPIC)
    if encrypted.startswith(_REDACTED):
        return Reasoning(proof=encrypted.removeprefix(_REDACTED), vendor=Vendor.ANTHROPIC, is_redacted=True)
    if encrypted.startswith(_GOOGLE):
        return Reasoning(text=text, proof=encrypted.removeprefix(_GOOGLE), vendor=Vendor.GOOGLE)
    return Reasoning(text=text, proof=encrypted, vendor=Vendor.OPENAI, id=item_id)
