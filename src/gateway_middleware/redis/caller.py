"""What every way to Redis offers: commands, scripts, deadlines, and what becomes of a reply that comes too late."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from gateway_middleware.redis.resp import ErrorReply, Reply

Late: TypeAlias = "Callable[[Reply], None]"

DEADLINE = 0.05
"""Seconds within which Redis has to answer."""

_log = logging.getLogger("gateway_middleware")


class RedisError(Exception):
    """Redis did not answer, or not as it should. The text holds no credential."""


class RedisTimeoutError(RedisError):
    """Redis did not answer within the deadline. It may still carry out what was sent."""


class RedisReplyError(RedisError):
    """Redis answered with an error; `code` is its first word: `NOSCRIPT`, `WRONGTYPE`, `READONLY`."""

    def __init__(self, reply: ErrorReply) -> None:
        text = str(reply)
        super().__init__(f"Redis refuses: {text[:80]}")
        self.code = text.partition(" ")[0]


class Script(msgspec.Struct, frozen=True):
    """Lua source and its SHA-1 in hex, under which Redis remembers it."""

    source: bytes
    sha: bytes

    @classmethod
    def of(cls, *parts: str) -> Script:
        """Join the parts by line ends."""
        source = "\n".join(parts).encode()
        return cls(source, hashlib.sha1(source).hexdigest().encode())  # noqa: S324  # Redis names scripts so

    def by_name(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Sequence[bytes]:
        """The call by name."""
        return (b"EVALSHA", self.sha, b"%d" % len(keys), *keys, *arguments)

    def by_source(self, by_name: Sequence[bytes]) -> Sequence[bytes]:
        """The same call for a Redis that does not know the name."""
        return (b"EVAL", self.source, *by_name[2:])


class RedisCaller(Protocol):
    """Sends commands to one Redis, cluster or sentinel-guarded master. Used from one event loop.

    What is sent is on its way when a method returns (unless a connection has to be made first), and is carried out
    whether somebody waits for the future or not. The future gives the reply, or raises `RedisError`:
    `RedisTimeoutError` after the deadline, `RedisReplyError` for an error reply. An exception that nobody takes from
    it is not reported. `late` is given a reply (no error) that came after the future was cancelled or had timed out.
    """

    @property
    def keeps_order(self) -> bool:
        """Whether Redis carries commands out in the order of the calls, those of lost connections apart."""
        ...

    def call(self, command: Sequence[bytes], late: Late | None = None) -> asyncio.Future[Reply]:
        """Send a command: its name and arguments."""
        ...

    def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes] = (), late: Late | None = None
    ) -> asyncio.Future[Reply]:
        """Run a script by its SHA-1; where Redis does not know it yet, by its source."""
        ...

    async def aclose(self) -> None:
        """Close every connection once what was sent is answered, or a bounded wait is over. Twice is once."""
        ...


class PendingReply:
    """The future of one command, and who takes its reply when nobody waits for it any more."""

    __slots__ = ("command", "deadline", "future", "late", "script")

    def __init__(
        self,
        future: asyncio.Future[Reply],
        late: Late | None,
        command: Sequence[bytes] = (),
        script: Script | None = None,
        deadline: float = math.inf,
    ) -> None:
        self.future = future
        self.late = late
        self.command = command
        self.script = script
        """The script that the command runs by its name, as long as it has not been sent by its source."""
        self.deadline = deadline

    @property
    def is_wanted(self) -> bool:
        """Whether the command still has to be carried out: with `late` only while somebody waits."""
        return self.late is None or not self.future.done()

    def resolve(self, reply: Reply) -> None:
        """Take the reply."""
        future = self.future
        if isinstance(reply, ErrorReply):
            self.fail(RedisReplyError(reply))
        elif not future.done():
            future.set_result(reply)
        elif self.late is not None:
            try:
                self.late(reply)
            except Exception:  # noqa: BLE001  # the connection and its other replies must not suffer
                _log.exception("A late reply of Redis could not be undone")

    def fail(self, error: RedisError) -> None:
        """There will be no reply, or nobody waits for it any longer."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # seen: what nobody waits for is nobody's concern
