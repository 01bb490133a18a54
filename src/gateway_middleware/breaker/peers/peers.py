"""Shares cooldowns, operators' commands and the right to probe between replicas, through Redis.

What a replica has seen itself is authoritative: without Redis everything goes on, alone. No call ever waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from gateway_middleware.breaker.events import CooldownEvent
from gateway_middleware.breaker.peers.apply import PeerHandler, SyncApplier
from gateway_middleware.breaker.peers.cooldowns import SharedCooldowns
from gateway_middleware.breaker.peers.lua import COMMAND, DROP, HOLD, RESTORE, SYNC, TELL, KeyNames
from gateway_middleware.breaker.peers.messages import NumberedCommand, PeerCommand, Sync, encode, writable
from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
from gateway_middleware.breaker.state.overrides import FORCES, Command
from gateway_middleware.breaker.state.transitions import Transition
from gateway_middleware.core.domain import Clock
from gateway_middleware.redis.caller import RedisCaller, RedisError, RedisReplyError

_log = logging.getLogger("gateway_middleware")

INTERVAL = 0.5
"""How often a replica asks what the others have written, in seconds: each knows of everything within a second."""
_COMMAND_SECONDS = 3600.0
_RETRY_SECONDS = 0.4
_MIN_PAUSE = 0.02
"""Between two exchanges, however much there is to tell."""
_ATTEMPTS, _ATTEMPT_SECONDS = 3, 0.1
_SILENT_MS, _KEPT_MS = 5_000, 86_400_000
_MAX_COOLDOWNS, _MAX_LEASES_AT_ONCE = 2048, 64


class PeersSnapshot(msgspec.Struct, frozen=True):
    """For `/v1/health`. `mode` is `shared` or `alone`, `since` when, in UTC; `dropped` counts cooldowns not told."""

    mode: str
    replicas: int
    since: datetime
    dropped: int


class _Mode:
    """Whether Redis is there. One failure may be the connection, two in a row are Redis."""

    __slots__ = ("_failures", "_has_begun", "is_shared", "since")

    def __init__(self, now: float) -> None:
        self.is_shared, self.since = False, now
        self._failures, self._has_begun = 0, False

    def failed(self, now: float) -> bool:
        """Returns whether this replica is alone from now on."""
        self._failures += 1
        if (self.is_shared and self._failures > 1) or not self._has_begun:
            self.is_shared, self.since, self._has_begun = False, now, True
            return True
        return False

    def succeeded(self, now: float) -> bool:
        """Returns whether this replica is no longer alone."""
        self._failures = 0
        if self.is_shared:
            return False
        self.is_shared, self.since, self._has_begun = True, now, True
        return True


class Peers:
    """One replica's part in it: a `BreakerListener`, and the other side of its `leases`.

    `handler` does here what others have written. `clock` is monotonic, `wall` the time of day. `replica` must differ
    between processes, restarted ones included (default: a random name). The caller is closed with the lifespan.
    """

    def __init__(
        self,
        redis: RedisCaller,
        *,
        leases: ProbeLeases,
        handler: PeerHandler,
        clock: Clock,
        wall: Clock,
        prefix: str = "model-gateway",
        replica: str | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._redis = redis
        self._names = KeyNames(prefix)
        self._replica = (quote(replica, safe="") if replica else secrets.token_hex(8)).encode()
        self._clock, self._wall = clock, wall
        self._interval = interval
        self._leases = leases
        self._cooldowns = SharedCooldowns(clock, max_entries=_MAX_COOLDOWNS)
        self._applier = SyncApplier(self._cooldowns, handler, clock)
        self._mode = _Mode(wall())
        self._replicas = 1
        self._mark = self._revision = b""

    # For the rest of the gateway.

    def on_transition(self, transition: Transition) -> None:
        """Each replica judges for itself: states are not shared."""

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """This replica leaves something alone: the others will, too."""
        self._cooldowns.put(
            cooldown.deployment, cooldown.credential, cooldown.seconds, why=cooldown.failure_class or None
        )
        self._leases.wake.set()

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool:
        """Tell all other replicas what this one has just carried out. False: it may be that no other one knows.

        The handler is called here too when another command came in between, so that all end with the same.
        """
        if command is Command.RESET:
            self._cooldowns.forget(key)
        before, given = self._applier.log.known, PeerCommand(writable(key), command, writable(reason), writable(actor))
        for attempt in range(_ATTEMPTS if self._mode.is_shared else 1):
            await asyncio.sleep(_ATTEMPT_SECONDS if attempt else 0)
            with suppress(RedisError):
                own = await self._write(given, _COMMAND_SECONDS if ttl is None else ttl)
                self._applier.log.take_own(own, before)
                self._leases.wake.set()
                return True
        return False

    async def _write(self, given: PeerCommand, ttl: float) -> NumberedCommand:
        names, command = self._names, given.command
        keys = (names.commands, names.generation, names.cooldowns, names.revision)
        flags = (b"%d" % (command in FORCES), b"%d" % (command == Command.RESET))
        arguments = (given.key.encode(), encode(given), b"%d" % round(ttl * 1000), *flags)
        reply = msgspec.convert(await self._redis.run(COMMAND, keys, arguments), tuple[bytes, bytes])
        return NumberedCommand(int(reply[0]), int(reply[1]), given)

    def snapshot(self) -> PeersSnapshot:
        """How things stand."""
        mode = "shared" if self._mode.is_shared else "alone"
        replicas = self._replicas if self._mode.is_shared else 1
        return PeersSnapshot(mode, replicas, datetime.fromtimestamp(self._mode.since, UTC), self._cooldowns.dropped)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Exchange with the others, until the end of the block. Then leases are given back, and Redis is closed."""
        task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            try:
                await asyncio.wait([task])
                await self._leave()
            finally:
                await self._redis.aclose()

    async def _run(self) -> None:
        while True:
            is_well = await self.exchange()
            await asyncio.sleep(_MIN_PAUSE)
            pause = self._interval if is_well else _RETRY_SECONDS * (0.5 + random.random())  # noqa: S311 - spreads
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - _MIN_PAUSE):
                    await self._leases.wake.wait()

    async def exchange(self) -> bool:
        """Tell what is to be told and apply what others have written, once. Returns whether Redis was there."""
        self._leases.wake.clear()
        try:
            await self._sync()
            await self._tell()
            await self._ask_for_leases()
        except RedisError as error:
            self._failed(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the exchange for ever
            _log.exception("Breaker news: unexpected failure")
            self._failed(type(error).__name__)
            return False
        if self._mode.succeeded(self._wall()):
            self._leases.share(is_shared=True)
            _log.info("Breaker news are shared between %d replicas", self._replicas)
        return True

    def _failed(self, reason: str) -> None:
        if self._mode.failed(self._wall()):
            self._leases.share(is_shared=False)
            _log.warning("Breaker news are not shared, this replica goes on alone: %s", reason)

    async def _tell(self) -> None:
        names = self._names
        while cooldowns := self._cooldowns.take():
            arguments = [b"%d" % _MAX_COOLDOWNS, b"%d" % self._applier.log.known]
            for cooled, seconds in cooldowns:
                arguments += [encode(cooled), b"%d" % round(seconds * 1000)]
            try:
                is_done = await self._redis.run(TELL, (names.cooldowns, names.revision, names.generation), arguments)
            except RedisError as error:
                if not isinstance(error, RedisReplyError):
                    self._cooldowns.put_back(cooldowns)
                raise
            if not is_done:  # a command has come in between: first it
                self._cooldowns.put_back(cooldowns)
                self._leases.wake.set()
                return

    async def _ask_for_leases(self) -> None:
        requests = self._leases.requests
        for key in list(requests)[:_MAX_LEASES_AT_ONCE]:
            seconds, sent = requests.pop(key), self._clock()
            try:
                others = await self._lease(key, seconds)
            except RedisError:
                requests.setdefault(key, seconds)
                raise
            if seconds:
                self._leases.answered(key, seconds, sent, others)
        if requests:
            self._leases.wake.set()

    async def _lease(self, key: str, seconds: float) -> float:
        """Hold a lease for `seconds`, or with 0 drop it; returns for how many it is another replica's, or 0."""
        keys = (self._names.lease(key),)
        if not seconds:
            await self._redis.run(DROP, keys, (self._replica,))
            return 0.0
        milliseconds = b"%d" % max(round(seconds * 1000), 1)
        return msgspec.convert(await self._redis.run(HOLD, keys, (self._replica, milliseconds)), int) / 1000

    async def _sync(self) -> None:
        names, began = self._names, self._clock()
        keys = (names.mark, names.replicas, names.generation, names.revision, names.commands, names.cooldowns)
        known = (b"%d" % self._applier.log.known, self._revision)
        reply = await self._redis.run(SYNC, keys, (self._replica, b"%d" % _SILENT_MS, b"%d" % _KEPT_MS, *known))
        sync = Sync.of(reply)
        has_forgotten = self._mark not in {b"", sync.mark}
        if has_forgotten:
            self._cooldowns.repeat()
        self._applier.apply(sync, began)
        self._leases.sweep()
        if has_forgotten:
            await self._restore()
        self._replicas, self._revision, self._mark = sync.replicas, sync.revision, sync.mark

    async def _restore(self) -> None:
        """Redis has lost what it knew: make leases and commands known to it again, and soon cooldowns too."""
        self._leases.share(is_shared=self._mode.is_shared)
        self._leases.wake.set()
        commands = self._applier.standing()
        if commands:
            await self._redis.run(RESTORE, (self._names.commands, self._names.generation), commands)

    async def _leave(self) -> None:
        if self._mode.is_shared:
            with suppress(RedisError):
                for key in self._leases.held():
                    await self._lease(key, 0.0)
                await self._redis.call((b"ZREM", self._names.replicas, self._replica))
