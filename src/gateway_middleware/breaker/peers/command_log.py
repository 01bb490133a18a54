"""Which commands of operators this replica has carried out: each once, in the order of their generations."""

from __future__ import annotations

from collections.abc import Iterable

from gateway_middleware.breaker.peers.messages import NumberedCommand


class CommandLog:
    """The last generation that was carried out, and the commands that still stand."""

    __slots__ = ("_standing", "known")

    def __init__(self) -> None:
        self.known = 0
        """All commands up to this generation are carried out."""
        self._standing: dict[str, NumberedCommand] = {}

    def read(self, commands: Iterable[NumberedCommand], generation: int) -> list[NumberedCommand]:
        """Of all that stand at `generation` those that are to be carried out now, in their order."""
        new = sorted((c for c in commands if c.generation > self.known), key=lambda command: command.generation)
        for numbered in new:
            self._standing[numbered.command.key] = numbered
        self.known = max(self.known, generation)
        return new

    def take_own(self, own: NumberedCommand, before: int) -> None:
        """Note a command of this replica, carried out at a time when `before` was known.

        When another command came in between it is carried out again with that one, so that all replicas end the same.
        """
        if self.known == before and own.generation == before + 1:
            self.known = own.generation
            self._standing[own.command.key] = own

    def standing(self, now: float) -> list[NumberedCommand]:
        """What has not ended at `now`, in milliseconds of the clock of Redis."""
        self._standing = {key: numbered for key, numbered in self._standing.items() if numbered.ends > now}
        return list(self._standing.values())
