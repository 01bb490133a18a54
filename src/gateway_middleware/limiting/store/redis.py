"""Limits shared over replicas: one script and one round trip for each admission, on the clock of Redis."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from gateway_middleware.core.domain import Clock
from gateway_middleware.limiting.limit import Change, Claim, Decision, LimitStatus
from gateway_middleware.limiting.period import MICROSECONDS
from gateway_middleware.limiting.store import lua
from gateway_middleware.limiting.store.window import LEASE_SECONDS
from gateway_middleware.redis.caller import DEADLINE, Late, RedisCaller, RedisError, Script
from gateway_middleware.redis.connect import redis_caller
from gateway_middleware.redis.resp import Reply
from gateway_middleware.redis.uri import parse_uri

PREFIX = "gateway:"
_LEASE = int(LEASE_SECONDS * MICROSECONDS)
_LEASE_PERIOD = (2, _LEASE, 0)
_MARKER_MILLISECONDS = 3_600_000
_REPLICA_SECONDS = 15
_STATUS = struct.Struct("<5q")
_MAX_KEYS = 4096


def redis_store(
    uri: str, *, deadline: float = DEADLINE, prefix: str = PREFIX, tls: ssl.SSLContext | None = None
) -> RedisStore:
    """A store for a URI of `redis.uri`. Nothing is connected yet. Raises `ValueError` for a URI that is none."""
    target = parse_uri(uri)
    return RedisStore(redis_caller(target, deadline=deadline, tls=tls), prefix=prefix, splits_by_tag=target.is_cluster)


class RedisStore:
    """A `Store` on Redis. What it returns raises `RedisError` where Redis does not answer.

    `clock` stands for the clock of Redis: for tests only, as replicas must share one. `splits_by_tag`: with Redis
    Cluster, claims of different hash tags lie on different nodes; they are then taken one tag after another, and what
    was taken is given back when a later tag refuses.
    """

    lease_seconds: ClassVar[float] = LEASE_SECONDS

    def __init__(
        self, caller: RedisCaller, *, prefix: str = PREFIX, clock: Clock | None = None, splits_by_tag: bool = False
    ) -> None:
        self._caller = caller
        self._key = lru_cache(maxsize=_MAX_KEYS)(lambda key: (prefix + key).encode())  # the limits of few plans
        self._clock = clock
        self._splits_by_tag = splits_by_tag

    @property
    def keeps_order(self) -> bool:
        """Whether what is asked later finds done what was asked before."""
        return self._caller.keeps_order

    def admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool = False) -> Coroutine[Any, Any, Decision]:
        """Take all claims or none; the keys of one call must differ. Raises `RedisError`."""
        admit = self._admit_by_tag if self._splits_by_tag else self._admit
        return admit(claims, owner, is_dry=is_dry)

    async def _admit_by_tag(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        taken: list[Decision] = []
        for group in _by_tag(claims):
            taken.append(await self._admit_after(taken, group, owner, is_dry=is_dry))
            if not taken[-1].is_admitted:
                break
        statuses = {s.claim.key: s for decision in taken for s in decision.statuses}
        return Decision(
            taken[-1].is_admitted if taken else True,
            tuple(statuses[claim.key] for claim in claims if claim.key in statuses),
            owner,
        )

    async def _admit_after(
        self, taken: list[Decision], group: Sequence[Claim], owner: bytes, *, is_dry: bool
    ) -> Decision:
        try:
            decision = await self._admit(group, owner, is_dry=is_dry)
        except BaseException:
            self._undo(taken)
            raise
        if not decision.is_admitted:
            self._undo(taken)
        return decision

    def _undo(self, taken: Iterable[Decision]) -> None:
        for decision in taken:
            for group in self._grouped(reversal(decision)):
                # This is not the settlement of its owner: the call may go on without Redis, and be settled then.
                self._settle(decision.owner, group, is_once=False)

    async def _admit(self, claims: Sequence[Claim], owner: bytes, *, is_dry: bool) -> Decision:
        numbers: list[int] = [self._now(), is_dry]
        for claim in claims:
            limit = claim.limit
            numbers += _LEASE_PERIOD if limit.period is None else limit.period.numbers
            numbers += (limit.amount, claim.cost, limit.is_shadow)

        def undo(reply: Reply) -> None:
            if isinstance(reply, bytes) and not is_dry:
                self._undo([_decision(reply, claims, owner, takes=True)])

        reply = await self._run(lua.ADMIT, [c.key for c in claims], owner, _packed(numbers), late=undo)
        if not isinstance(reply, bytes):
            raise RedisError(f"Redis answered {type(reply).__name__} to an admission")
        return _decision(reply, claims, owner, takes=not is_dry)

    def settle(self, decision: Decision, changes: Sequence[Change]) -> Awaitable[object] | None:
        """Apply corrections. A settlement that touches a calendar period has effect once, however often it is sent."""
        is_once = any(c.claim.limit.is_calendar for c in changes)
        if not self._splits_by_tag:
            return self._settle(decision.owner, changes, is_once=is_once) if changes else None
        return _all([self._settle(decision.owner, group, is_once=is_once) for group in self._grouped(changes)])

    async def count(self, owner: bytes, change: Change) -> int:
        """Count a change of one window once, however often it is sent under this owner; returns the current bucket.

        A repeated one returns the bucket of the first time. Redis remembers it for an hour. Raises `RedisError`.
        """
        bucket = await self._settle(owner, [change], is_once=True)
        if not isinstance(bucket, int):
            raise RedisError("Redis answered another question")
        return bucket

    def _grouped(self, changes: Sequence[Change]) -> Sequence[Sequence[Change]]:
        if self._splits_by_tag:
            return _by_tag_of_changes(changes)
        return [changes] if changes else []

    def _settle(self, owner: bytes, changes: Sequence[Change], *, is_once: bool) -> asyncio.Future[Reply]:
        numbers, keys, is_marked = [self._now(), 0], [], False
        for change in changes:
            claim, bucket = change.claim, change.bucket
            keys.append(claim.key)
            if claim.limit.period is None:
                numbers += _LEASE_PERIOD
            else:
                is_marked = is_once
                numbers += claim.limit.period.numbers
            numbers += (-1 if bucket is None else bucket, change.delta)
        if is_marked:
            numbers[1] = _MARKER_MILLISECONDS
            tag = keys[0][: keys[0].find("}") + 1]
            keys.append(f"{tag}:settled/{owner.hex()}")
            numbers += (0,) * 5
        return self._send(lua.SETTLE, keys, owner, _packed(numbers))

    def renew(self, leases: Sequence[tuple[str, bytes]]) -> Awaitable[object] | None:
        """Prolong leases, or take them anew."""
        numbers = _packed([self._now(), _LEASE])
        groups: dict[str, list[tuple[str, bytes]]] = {}
        for key, owner in leases:
            groups.setdefault(_tag(key) if self._splits_by_tag else "", []).append((key, owner))
        sent = [
            self._send(lua.RENEW, [k for k, _ in group], numbers, *[o for _, o in group]) for group in groups.values()
        ]
        return _all(sent)

    async def release(self, leases: Sequence[tuple[str, bytes]]) -> None:
        """Give leases back, in one command. Twice is once. Raises `RedisError`."""
        groups: dict[str, list[tuple[str, bytes]]] = {}
        for key, owner in leases:
            groups.setdefault(_tag(key) if self._splits_by_tag else "", []).append((key, owner))
        for group in groups.values():
            await self._send(lua.RELEASE, [key for key, _ in group], *[owner for _, owner in group])

    def tick(self) -> None:
        """Redis keeps house by itself."""

    async def heartbeat(self, replica: bytes) -> int:
        """Say that this replica lives; returns how many do. Raises `RedisError`."""
        numbers = _packed([self._now(), _REPLICA_SECONDS * MICROSECONDS])
        reply = await self._run(lua.REPLICAS, ["replicas"], numbers, replica)
        return max(reply, 1) if isinstance(reply, int) else 1

    async def used(self, key: str) -> tuple[int, float]:
        """Units that count under a window's key now, and the seconds until none of them does."""
        reply = await self._run(lua.USED, [key], _packed([self._now()]))
        if not isinstance(reply, bytes) or len(reply) != 16:
            raise RedisError("Redis answered another question")
        used, rest = struct.unpack("<qq", reply)
        return used, rest / MICROSECONDS

    async def forget(self, key: str) -> None:
        """Drop what was counted under a key."""
        await self._caller.call((b"DEL", self._key(key)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._caller.aclose()

    def _now(self) -> int:
        return int(self._clock() * MICROSECONDS + 0.5) if self._clock is not None else 0

    def _send(
        self, script: Script, keys: Sequence[str], *arguments: bytes, late: Late | None = None
    ) -> asyncio.Future[Reply]:
        return self._caller.run(script, list(map(self._key, keys)), arguments, late)

    async def _run(self, script: Script, keys: Sequence[str], *arguments: bytes, late: Late | None = None) -> Reply:
        sent = self._send(script, keys, *arguments, late=late)
        try:
            return await sent
        except asyncio.CancelledError:
            # Cancelled after the reply had come, before this task could take it.
            if late is not None and _has_result(sent):
                late(sent.result())
            raise


def reversal(decision: Decision) -> list[Change]:
    """The changes that give back all that a decision took."""
    return [Change(s.claim, s.newest, -s.claim.cost) for s in decision.statuses if s.is_taken]


def _has_result(future: asyncio.Future[Reply]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _all(sent: Sequence[asyncio.Future[Reply]]) -> Awaitable[object] | None:
    if not sent:
        return None
    return sent[0] if len(sent) == 1 else asyncio.gather(*sent)


def _packed(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)


def _decision(reply: bytes, claims: Sequence[Claim], owner: bytes, *, takes: bool) -> Decision:
    if len(reply) != 8 + _STATUS.size * len(claims):
        raise RedisError("Redis answered another question")
    is_admitted = any(reply[:8])
    takes = takes and is_admitted
    statuses = []
    for claim, (now, wait, used, oldest, newest) in zip(claims, _STATUS.iter_unpack(reply[8:]), strict=True):
        left = claim.limit.amount - used
        is_taken = takes and not wait
        if left >= 0:
            statuses.append(LimitStatus(claim, left, wait, is_taken, oldest, newest, now))
        else:
            statuses.append(LimitStatus(claim, 0, wait, is_taken, oldest, newest, now, -left))
    return Decision(is_admitted, tuple(statuses), owner)


def _tag(key: str) -> str:
    return key[: key.find("}") + 1]


def _by_tag(claims: Sequence[Claim]) -> list[list[Claim]]:
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(_tag(claim.key), []).append(claim)
    return list(groups.values())


def _by_tag_of_changes(changes: Sequence[Change]) -> list[list[Change]]:
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(_tag(change.claim.key), []).append(change)
    return list(groups.values())
