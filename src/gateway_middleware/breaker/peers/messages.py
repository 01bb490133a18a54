"""What replicas write for each other, as it stands in Redis."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeAlias

import msgspec

from gateway_middleware.redis.resp import Reply

Cooled: TypeAlias = "tuple[str | None, str, str | None]"
"""What is left alone: deployment (None: everything), credential (its name, never the secret), and the class of the
failure for which it is (None: unknown)."""


class PeerCommand(msgspec.Struct, frozen=True):
    """An operator's command for a breaker, and who gave it."""

    key: str
    command: str
    reason: str = ""
    actor: str = ""


class NumberedCommand(msgspec.Struct, frozen=True, array_like=True):
    """A command with its generation: all replicas count the same. `ends` is in milliseconds of the clock of Redis."""

    generation: int
    ends: int
    command: PeerCommand


class Sync(msgspec.Struct, frozen=True):
    """The answer of the script `SYNC`. `now` and deadlines are milliseconds of the clock of Redis.

    `commands` are all that stand, or none when there are no new ones; `cooldowns` all that stand, or None.
    """

    mark: bytes
    now: float
    replicas: int
    generation: int
    revision: bytes
    commands: list[NumberedCommand]
    cooldowns: list[tuple[Cooled, float]] | None

    @classmethod
    def of(cls, reply: Reply) -> Sync:
        """From the reply. What this version does not understand is passed over."""
        mark, now, replicas, generation, revision, commands, cooldowns = msgspec.convert(reply, _SyncReply)
        numbered = [command for value in commands if (command := decode(value)) is not None]
        cooled = None if cooldowns is None else _cooled(cooldowns)
        return cls(mark, float(now), replicas, int(generation), revision, numbered, cooled)


_SyncReply = tuple[bytes, bytes, int, bytes, bytes, list[bytes], list[bytes] | None]
_command = msgspec.json.Decoder(NumberedCommand)
_member = msgspec.json.Decoder(tuple[str | None, str, str | None])
encode = msgspec.json.Encoder().encode


def decode(value: bytes) -> NumberedCommand | None:
    """None for what this version does not understand."""
    with suppress(msgspec.MsgspecError):
        return _command.decode(value)
    return None


def _cooled(flat: list[bytes]) -> list[tuple[Cooled, float]]:
    """From member and score, in turn."""
    cooled: list[tuple[Cooled, float]] = []
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        with suppress(msgspec.MsgspecError):
            cooled.append((_member.decode(member), float(score)))
    return cooled


def writable(text: str) -> str:
    """What can be written as UTF-8: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
