"""Redis, which replicas share."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec

from gateway_middleware.fleet import lua
from gateway_middleware.fleet.entries import Entry, Owned, Owner, Process
from gateway_middleware.fleet.store import MAX_OWNED, OWNED_SECONDS, PAGE, SILENT_SECONDS, News, StoreAwayError
from gateway_middleware.redis.caller import RedisError
from gateway_middleware.redis.connect import redis_caller

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock
    from gateway_middleware.redis.caller import RedisCaller
    from gateway_middleware.redis.resp import Reply

PREFIX = "gateway:"
DEADLINE = 0.25
"""Seconds within which Redis has to answer: no call waits for it but one that goes on from a stored response."""
_MILLISECONDS = 1000
_FOR_GOOD = b"-1"
_APPENDED_AT_ONCE = 200
_encode = msgspec.json.Encoder().encode
_decode_process = msgspec.json.Decoder(Process).decode
_decode_owner = msgspec.json.Decoder(Owner).decode
_decode_name = msgspec.json.Decoder(tuple[str, str]).decode


class RedisFleetStore:
    """A `FleetStore` in Redis, whose clock is that of the store. Nothing takes longer than the caller's deadline."""

    name: ClassVar[str] = "redis"

    def __init__(self, caller: RedisCaller, *, prefix: str = PREFIX, wall: Clock = time.time) -> None:
        self._caller = caller
        self._wall = wall
        base = f"{prefix}{{fleet}}:"
        self._entries, self._order, self._position, self._epoch, self._processes, self._seen = (
            f"{base}{name}".encode() for name in ("entries", "order", "position", "epoch", "processes", "seen")
        )
        self._owned, self._owned_order = (f"{prefix}{{owners}}:{name}".encode() for name in ("owned", "order"))

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store these."""
        keys = (self._entries, self._order, self._position)
        for start in range(0, len(entries), _APPENDED_AT_ONCE):
            arguments = [a for entry in entries[start : start + _APPENDED_AT_ONCE] for a in _arguments(entry)]
            await _answered(self._caller.run(lua.APPEND, keys, arguments))

    async def news(self, position: int, process: Process) -> News:
        """What came after a position."""
        keys = (self._entries, self._order, self._position, self._epoch, self._processes, self._seen)
        silent = b"%d" % round(SILENT_SECONDS * _MILLISECONDS)
        arguments = (b"%d" % position, process.id.encode(), _encode(process), silent, b"%d" % PAGE)
        return _news(await _answered(self._caller.run(lua.NEWS, keys, arguments)))

    def is_still(self, process: Process) -> bool:
        """Only Redis knows."""
        return False

    async def leave(self, process: Process) -> None:
        """The process is about to end."""
        await _answered(self._caller.run(lua.LEAVE, (self._processes, self._seen), (process.id.encode(),)))

    async def remember(self, owned: Sequence[Owned]) -> None:
        """Store owners."""
        bounds = (b"%d" % (OWNED_SECONDS * _MILLISECONDS), b"%d" % MAX_OWNED)
        for start in range(0, len(owned), _APPENDED_AT_ONCE):
            part = owned[start : start + _APPENDED_AT_ONCE]
            pairs = [value for one in part for value in (one.digest, _encode(one.owner))]
            await _answered(self._caller.run(lua.REMEMBER, (self._owned, self._owned_order), (*bounds, *pairs)))

    async def owners(self, digests: Sequence[bytes]) -> Mapping[bytes, Owner]:
        """Those that are known of these."""
        values: Any = await _answered(self._caller.call((b"HMGET", self._owned, *digests)))
        now = self._wall() * _MILLISECONDS
        found: dict[bytes, Owner] = {}
        for digest, value in zip(digests, values, strict=True):
            ends, _, owner = (value or b"0").partition(b" ")
            if float(ends) > now:
                found[digest] = _decode_owner(owner)
        return found

    async def aclose(self) -> None:
        """Close the connection."""
        await self._caller.aclose()


def redis_fleet_store(
    uri: str, *, deadline: float = DEADLINE, prefix: str = PREFIX, tls: ssl.SSLContext | None = None
) -> RedisFleetStore:
    """The store at a URI of `redis.uri`. Nothing is connected yet. Raises `ValueError` for a URI that is none."""
    return RedisFleetStore(redis_caller(uri, deadline=deadline, tls=tls), prefix=prefix)


async def _answered(future: Awaitable[Reply]) -> Reply:
    try:
        return await future
    except RedisError as error:
        raise StoreAwayError(str(error)) from error


def _arguments(entry: Entry) -> Iterable[bytes]:
    milliseconds = _FOR_GOOD if entry.seconds is None else b"%d" % max(round(entry.seconds * _MILLISECONDS), 1)
    return _encode(entry.name), b"%d" % entry.version, entry.origin.encode(), milliseconds, entry.body


def _news(reply: Reply) -> News:
    """Raises `StoreAwayError` for what is no answer of the script."""
    try:
        epoch, now, position, entries, processes, read = cast("tuple[Any, ...]", reply)
        pairs = zip(entries[::2], entries[1::2], strict=True)
        return News(
            epoch.decode(),
            int(float(position)),
            [_entry(name, value, int(now)) for name, value in pairs],
            [_process(body, silent) for body, silent in zip(processes[::2], processes[1::2], strict=True) if body],
            has_more=read >= PAGE,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreAwayError(f"Redis holds what is no entry of a fleet ({type(error).__name__})") from error


def _entry(name: bytes, value: bytes, now: int) -> Entry:
    version, origin, ends, body = value.split(b" ", 3)
    kind, key = _decode_name(name)
    seconds = None if ends == b"0" else (int(ends) - now) / _MILLISECONDS
    return Entry(kind=kind, key=key, body=body, origin=origin.decode(), version=int(version), seconds=seconds)


def _process(body: bytes, silent: bytes) -> Process:
    return msgspec.structs.replace(_decode_process(body), silent=int(silent) / _MILLISECONDS)
