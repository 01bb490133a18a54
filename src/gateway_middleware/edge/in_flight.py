"""How many calls a gateway is answering."""

from __future__ import annotations


class InFlight:
    """A number that goes up with a call and down at its end, whatever its end."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0
