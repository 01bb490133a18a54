"""How the processes of `serve` write to the log."""

from __future__ import annotations

from typing import Protocol


class Tell(Protocol):
    """Writes a line to the log."""

    def __call__(self, event: str, /, *, level: str = "info", message: str, **fields: str | float | None) -> None:
        """Write it."""
        ...
