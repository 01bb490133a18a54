"""Applies what other replicas have written. No I/O: the effects are those of a `PeerHandler`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gateway_middleware.breaker.peers.command_log import CommandLog
from gateway_middleware.breaker.peers.cooldowns import SharedCooldowns
from gateway_middleware.breaker.peers.messages import NumberedCommand, Sync, encode
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.core.domain import Clock

_log = logging.getLogger("gateway_middleware")

_COMMANDS = {command.value: command for command in Command}


class PeerHandler(Protocol):
    """Does in this replica what others have seen or decided. What it raises is logged."""

    def cool_down(self, deployment: str | None, credential: str, seconds: float, *, why: str | None) -> None:
        """A provider has asked another replica for time. `deployment` None: everything under the credential.

        `why` is the class of the failure, as that replica calls it.
        """
        ...

    def obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """An operator has spoken to another replica; `ttl` seconds of it are left."""
        ...


class SyncApplier:
    """Keeps this replica at what stands in Redis, whose clock it reads off each `Sync`."""

    def __init__(self, cooldowns: SharedCooldowns, handler: PeerHandler, clock: Clock) -> None:
        self._cooldowns = cooldowns
        self._handler = handler
        self._clock = clock
        self._offset = 0.0
        self.log = CommandLog()

    def apply(self, sync: Sync, asked: float) -> None:
        """Carry out what is new in it. It was asked for at `asked`."""
        self._offset = sync.now / 1000 - (asked + self._clock()) / 2
        for numbered in self.log.read(sync.commands, sync.generation):
            self._carry_out(numbered)
        if sync.cooldowns is not None:
            left = [(cooled, self._left(ends)) for cooled, ends in sync.cooldowns]
            for (deployment, credential, why), seconds in self._cooldowns.learn(left):
                _call(partial(self._handler.cool_down, why=why), deployment, credential, seconds)

    def standing(self) -> list[bytes]:
        """The commands that stand, as arguments of the script `RESTORE`."""
        arguments: list[bytes] = []
        for numbered in self.log.standing((self._clock() + self._offset) * 1000):
            key = numbered.command.key.encode()
            arguments += [key, b"%d" % numbered.generation, b"%d" % numbered.ends, encode(numbered)]
        return arguments

    def _carry_out(self, numbered: NumberedCommand) -> None:
        given, left, command = numbered.command, self._left(numbered.ends), _COMMANDS.get(numbered.command.command)
        if left > 0 and command is not None:
            if command is Command.RESET:
                self._cooldowns.forget(given.key)
            _call(self._handler.obey, given.key, command, left, given.reason)

    def _left(self, ends: float) -> float:
        return max(ends / 1000 - self._offset - self._clock(), 0.0)


def _call(effect: Callable[..., None], *arguments: object) -> None:
    try:
        effect(*arguments)
    except Exception:  # noqa: BLE001 - what comes after it is to be applied all the same
        _log.exception("What another replica has written could not be applied")
