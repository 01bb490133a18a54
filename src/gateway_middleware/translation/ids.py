"""Ids of answers in the form that each dialect gives them."""

from __future__ import annotations

_PREFIXES = ("chatcmpl-", "resp_", "msg_")


def answer_id(upstream_id: str, prefix: str) -> str:
    """The provider's id with the prefix of the client's dialect."""
    for known in _PREFIXES:
        if upstream_id.startswith(known):
            return prefix + upstream_id[len(known) :]
    return prefix + upstream_id
