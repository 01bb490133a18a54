"""News as they go out and come in: pairs of names, each with a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec

from gateway_middleware.breaker.peers.orders import NumberedOrder
from gateway_middleware.core.domain import Clock

_AT_ONCE = 200
_LONGEST_NAME = 512

Pair: TypeAlias = "tuple[str | None, str]"
"""Deployment (or None) and credential; or key and replica."""


class News(msgspec.Struct, frozen=True):
    """One message. Deadlines are milliseconds of the clock of Redis; 0 takes something back."""

    replica: str = ""
    orders: list[NumberedOrder] = []
    cooldowns: list[tuple[tuple[str | None, str], float]] = []
    hints: list[tuple[tuple[str, str], float]] = []


_Names = TypeVar("_Names")
_decoder = msgspec.json.Decoder(News)
_cooldown = msgspec.json.Decoder(tuple[str | None, str])
_hint = msgspec.json.Decoder(tuple[str, str])


def decode_news(message: bytes) -> News:
    """Nothing new, for what this version does not understand."""
    try:
        return _decoder.decode(message)
    except msgspec.MsgspecError:
        return News()


class Sync(NamedTuple):
    """The answer of the script `SYNC`."""

    mark: bytes
    now: bytes
    replicas: int
    generation: bytes
    revision: bytes
    orders: list[bytes]
    cooldowns: list[bytes]
    hints: list[bytes]

    def news(self) -> News:
        """Cooldowns and hints as if they had been told one by one."""
        return News(cooldowns=_pairs(_cooldown, self.cooldowns), hints=_pairs(_hint, self.hints))


def _pairs(decoder: msgspec.json.Decoder[_Names], flat: Sequence[bytes]) -> list[tuple[_Names, float]]:
    """From member and score, in turn."""
    pairs = []
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        with suppress(msgspec.MsgspecError):
            pairs.append((decoder.decode(member), float(score)))
    return pairs


class SharingSnapshot(msgspec.Struct, frozen=True):
    """For `/v1/health`. `since` is the time of day; `dropped` counts news that were too many to keep."""

    mode: str
    replicas: int
    since: float
    dropped: int


def cleaned(text: str) -> str:
    """What can be written as UTF-8: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


class Outbox:
    """What is still to be told, and what everybody knows. The latest news of a pair replaces the earlier.

    Not more than `most` wait; then the oldest is dropped and counted. News whose time is over are not told.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self._most = most
        self._waiting: dict[Pair, float] = {}
        self._known: dict[Pair, float] = {}
        self.dropped = 0

    def put(self, pair: Pair, seconds: float) -> None:
        """Holds for `seconds`; 0 takes back what is known. Names beyond all measure are not shared."""
        first, second = pair
        pair = (None if first is None else cleaned(first), cleaned(second))
        if max(len(first or ""), len(second)) > _LONGEST_NAME:
            self.dropped += 1
        elif seconds > 0:
            self._know(pair, self._clock() + seconds)
            self._wait(pair, self._clock() + seconds)
        elif self._known.pop(pair, None) is not None:
            self._wait(pair, 0.0)

    def take(self) -> list[tuple[Pair, float]]:
        """What is to be told next, a handful at a time."""
        now, waiting = self._clock(), self._waiting
        first = [(pair, waiting.pop(pair)) for pair in list(waiting)[:_AT_ONCE]]
        news = [(pair, max(until - now, 0.0)) for pair, until in first if not until or until > now]
        return news if news or not waiting else self.take()

    def put_back(self, news: Sequence[tuple[Pair, float]]) -> None:
        """It could not be told."""
        now = self._clock()
        for pair, seconds in news:
            if pair not in self._waiting:
                self._wait(pair, now + seconds if seconds else 0.0)

    def heard(self, pair: Pair, seconds: float, *, same: float) -> bool:
        """Others say so. Whether it is news: it holds longer than what is known, by more than `same`."""
        if seconds <= 0:
            self._known.pop(pair, None)
            return False
        until = self._clock() + seconds
        if self._known.get(pair, 0.0) + same >= until:
            return False
        self._know(pair, until)
        return True

    def forget(self, key: str) -> None:
        """A reset of a deployment, or of all of a provider."""
        for found in (self._known, self._waiting):
            for pair in [pair for pair in found if pair[0] == key or (pair[0] or "").startswith(f"{key}/")]:
                del found[pair]

    def repeat(self) -> None:
        """Tell everything again."""
        now = self._clock()
        for pair, until in self._known.items():
            if until > now and pair not in self._waiting:
                self._wait(pair, until)

    def withdraw(self) -> None:
        """Take everything back."""
        self._waiting = dict.fromkeys(self._known, 0.0)
        self._known.clear()

    def sweep(self) -> None:
        """Forget what is over."""
        now = self._clock()
        for pair in [pair for pair, until in self._known.items() if until <= now]:
            del self._known[pair]

    def _know(self, pair: Pair, until: float) -> None:
        self._known.pop(pair, None)
        self._known[pair] = until
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def _wait(self, pair: Pair, until: float) -> None:
        self._waiting.pop(pair, None)
        self._waiting[pair] = until
        if len(self._waiting) > self._most:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
