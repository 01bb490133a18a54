"""Remembers force-open and force-close, so that breakers created later start in that state."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Command(StrEnum):
    """What an operator can do to a breaker: the last part of `/v1/admin/circuit-breakers/{key}/...`."""

    RESET = "reset"
    FORCE_OPEN = "force-open"
    FORCE_CLOSE = "force-close"
    AUTO = "auto"


FORCES = frozenset({Command.FORCE_OPEN, Command.FORCE_CLOSE})


class Override(msgspec.Struct, frozen=True):
    """A command that holds until a moment of the monotonic clock."""

    command: Command
    until: float


class Overrides:
    """Overrides by provider (`openai`) and by deployment (`openai/gpt-5`): the later one of both holds."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[str, Override] = {}

    def note(self, key: str, override: Override) -> None:
        """Remember an override. One for a provider ends those for its deployments."""
        provider, _, model = key.partition("/")
        if not model:
            self._by_key = {name: narrower for name, narrower in self._by_key.items() if not name.startswith(f"{key}/")}
        wider = self._by_key.get(provider) if model else None
        if override.command in FORCES:
            self._by_key[key] = override
        elif wider is not None:
            self._by_key[key] = Override(Command.AUTO, wider.until)
        else:
            self._by_key.pop(key, None)

    def find(self, deployment: str, now: float) -> Override | None:
        """The force that a new breaker of this deployment begins with."""
        override = self._by_key.get(deployment) or self._by_key.get(deployment.partition("/")[0])
        is_force = override is not None and override.command in FORCES and override.until > now
        return override if is_force else None
