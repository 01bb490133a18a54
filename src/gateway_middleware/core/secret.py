"""Credentials that do not print themselves, and texts without them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

REDACTED = "[redacted]"
"""What stands in every output in the place of a secret."""

MIN_LENGTH = 8
"""Shorter texts stay where they are: they would be struck out of plain words, and are no secrets."""


class Secret:
    """A string that only `reveal()` shows. `source` says where it came from: a variable, `env:NAME`, `file:/path`."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, *, source: str = "given") -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The secret itself: for the one place that sends or compares it."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of its SHA-256: tells two secrets apart without showing either."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret({REDACTED}, source={self.source!r})"

    def __str__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with `REDACTED` in the place of each of these secrets that has at least `MIN_LENGTH` characters."""
    for secret in _longest_first(secrets):
        text = text.replace(secret, REDACTED)
    return text


def redact_bytes(body: bytes, secrets: Iterable[str]) -> bytes:
    """The same for bytes."""
    for secret in _longest_first(secrets):
        body = body.replace(secret.encode(), REDACTED.encode())
    return body


def _longest_first(secrets: Iterable[str]) -> list[str]:
    """One secret may begin with another."""
    return sorted((secret for secret in secrets if len(secret) >= MIN_LENGTH), key=len, reverse=True)
