"""A credential that does not print itself."""

from __future__ import annotations

import hashlib


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
        return f"Secret(<hidden>, source={self.source!r})"

    def __str__(self) -> str:
        return "<hidden>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
