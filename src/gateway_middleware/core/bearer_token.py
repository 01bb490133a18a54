"""A token that says to a provider who calls, in place of a key."""

from __future__ import annotations

import msgspec


class Token(msgspec.Struct, frozen=True):
    """A bearer token and when it expires, in seconds since the epoch. Does not print itself."""

    value: str
    expires: float

    def __repr__(self) -> str:
        return f"Token(expires={self.expires})"


class TokenFault(msgspec.Struct, frozen=True):
    """Why there is no token, without anything secret. `is_refusal`: asking again will not help."""

    reason: str
    is_refusal: bool = False
