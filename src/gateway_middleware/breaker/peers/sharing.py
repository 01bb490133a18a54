"""What replicas tell each other about breakers, through Redis.

Cooldowns, the operator's commands, whose turn it is to probe, and hints that others have opened. What a replica knows
itself is authoritative: without Redis everything goes on, alone. No call ever waits for anything here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from urllib.parse import quote

import msgspec

from gateway_middleware.breaker.events import CooldownEvent
from gateway_middleware.breaker.peers.inbox import Inbox
from gateway_middleware.breaker.peers.link import Link, LinkError, Redis
from gateway_middleware.breaker.peers.lua import LEAVE, ORDER, RESTORE, SYNC, TELL, Names
from gateway_middleware.breaker.peers.news import Outbox, SharingSnapshot, Sync, cleaned, decode_news
from gateway_middleware.breaker.peers.orders import SharedOrder, decode, encode
from gateway_middleware.breaker.peers.probes import ProbeLeases
from gateway_middleware.breaker.state.overrides import FORCES, Command
from gateway_middleware.breaker.state.probe_gate import ProbeGate
from gateway_middleware.breaker.state.transitions import Transition, Trigger
from gateway_middleware.core.domain import Clock

_log = logging.getLogger("gateway_middleware")

DEADLINE = 0.05
INTERVAL = 0.5
"""How often the news are asked for that no message has brought, in seconds."""
ORDER_SECONDS = 3600.0
_CONNECT_SECONDS, _RECONNECT_DEADLINES = 2.0, 4
_AGAIN_SECONDS, _RETRY_SECONDS = 0.02, 0.4
_ATTEMPTS = 2
_LOOKS, _LOOK_SECONDS = 30, 0.01
_SILENT_MS, _KEPT_MS = 5_000, 86_400_000
_MOST, _MOST_LEASES_AT_ONCE = 2048, 64
_OWN_OPENINGS = frozenset({Trigger.TRIP, Trigger.RELAPSED})


class BreakerSharing:
    """One replica's part in it.

    `on_cooldown(deployment, credential, seconds)`, `on_command(key, command, seconds_left, reason)` and
    `on_hint(key, seconds)` are called with the news of others; what they raise is logged. `clock` is monotonic, `wall`
    the time of day. No operation at Redis takes more than `deadline` seconds. `replica` must differ between processes,
    restarted ones included. Raises `ValueError` for a URI that is none of Redis, and without redis-py.
    """

    def __init__(
        self,
        uri: str,
        *,
        on_cooldown: Callable[[str | None, str, float], None],
        on_command: Callable[[str, Command, float, str], None],
        on_hint: Callable[[str, float], None],
        prefix: str = "model-gateway",
        replica: str | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        deadline: float = DEADLINE,
        interval: float = INTERVAL,
    ) -> None:
        self._redis = Redis(uri, deadline=deadline)
        self._names = Names(prefix)
        self._replica = quote(replica, safe="") if replica else secrets.token_hex(8)
        self._clock, self._wall = clock, wall
        self._deadline, self._interval = deadline, interval
        self._event = asyncio.Event()
        self._leases = ProbeLeases(clock, self._event.set)
        self._cooldowns, self._openings = Outbox(clock, most=_MOST), Outbox(clock, most=_MOST)
        self._inbox = Inbox(
            self._replica, self._cooldowns, clock, on_cooldown=on_cooldown, on_command=on_command, on_hint=on_hint
        )
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._mark, self._revision = b"", b""
        self._sync_at = 0.0
        self._failures, self._has_begun = 0, False
        self._is_shared, self._replicas, self._since = False, 1, wall()

    # For the rest of the gateway. Nothing here waits, but `send_command` and `aclose`.

    @property
    def gate(self) -> ProbeGate:
        """Asked before each probe."""
        return self._leases

    def publish_cooldown(self, deployment: str | None, credential: str, seconds: float) -> None:
        """This replica leaves something alone. With 0 seconds: no longer. A credential is its name, not the secret."""
        self._cooldowns.put((deployment, credential), seconds)
        self._event.set()

    def on_transition(self, transition: Transition) -> None:
        """Each replica judges for itself: the state of a breaker is not shared."""

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """This replica leaves something alone."""
        self.publish_cooldown(cooldown.deployment, cooldown.credential, cooldown.seconds)

    async def send_command(
        self, key: str, command: Command, *, ttl: float = ORDER_SECONDS, reason: str = "operator", actor: str = ""
    ) -> bool:  # fmt: skip
        """Tell all other replicas what this one has just carried out. False: it may be that no other one knows.

        `on_command` is called here too when another command came in between, so that all end with the same.
        """
        names, key = self._names, cleaned(key)
        order = encode(SharedOrder(key, command.value, cleaned(reason), cleaned(actor)))
        is_force, is_reset = command in FORCES, command is Command.RESET
        arguments = (names.channel, self._replica, key, order, round(ttl * 1000), int(is_force), int(is_reset))
        self._inbox.clear(key, command)
        for _ in range(_ATTEMPTS):
            link, before = await self._linked(), self._inbox.book.known
            if link is None:
                break
            with suppress(LinkError):
                _, value = await link.run(ORDER, (names.orders, names.generation, names.cooldowns), arguments)
                own = decode(value)
                if own is None or not self._inbox.book.take_own(own, before):
                    self._sync_soon()
                return True
            self._event.set()
        return False

    async def _linked(self) -> Link | None:
        """The link, or the one after it: a connection that has ended says so when it is used."""
        for _ in range(_LOOKS):
            if not self._is_shared or (self._link is not None and not self._link.is_broken):
                return self._link
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    def snapshot(self) -> SharingSnapshot:
        """How things stand."""
        mode, dropped = "shared" if self._is_shared else "alone", self._cooldowns.dropped + self._openings.dropped
        return SharingSnapshot(mode, self._replicas if self._is_shared else 1, self._since, dropped)

    def start(self) -> None:
        """Begin, in the running loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Give the leases back, take back what was told of open breakers, and close the connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # The one task.

    async def _run(self) -> None:
        while True:
            try:
                await self._session()
            except LinkError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end the sharing
                if not self._failures:
                    _log.exception("Breaker news: unexpected failure")
                self._failed(type(error).__name__)
            pause = _AGAIN_SECONDS if self._is_shared else _RETRY_SECONDS
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads reconnections

    async def _session(self) -> None:
        link = self._redis.link()
        listener: asyncio.Task[None] | None = None
        try:
            patience = self._deadline * _RECONNECT_DEADLINES if self._is_shared else _CONNECT_SECONDS
            await link.open(self._names.channel, within=patience)
            await self._sync(link)
            self._link = link
            self._succeeded()
            listener = asyncio.get_running_loop().create_task(self._listen(link))
            await self._converse(link, listener)
        except asyncio.CancelledError:
            await self._leave(link)
            raise
        finally:
            self._link = None
            if listener is not None:
                listener.cancel()
                with suppress(asyncio.CancelledError, LinkError):
                    await listener
            await link.aclose()

    async def _converse(self, link: Link, listener: asyncio.Task[None]) -> None:
        while True:
            self._event.clear()
            await self._tell(link, self._names.cooldowns, "cooldowns", self._cooldowns)
            await self._tell(link, self._names.hints, "hints", self._openings)
            await self._ask_for_leases(link)
            if self._clock() >= self._sync_at:
                await self._sync(link)
            if link.is_broken or listener.done():
                raise LinkError("the connection to Redis has ended")
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._sync_at - self._clock(), 0.0)):
                    await self._event.wait()

    async def _listen(self, link: Link) -> None:
        try:
            async with aclosing(link.messages()) as messages:
                async for message in messages:
                    if not self._inbox.hear(decode_news(message)):
                        self._sync_soon()
        finally:
            self._event.set()

    async def _tell(self, link: Link, key: str, kind: str, outbox: Outbox) -> None:
        while news := outbox.take():
            arguments: list[str | bytes | int] = [self._names.channel, self._replica, kind, _MOST]
            for pair, seconds in news:
                arguments += [msgspec.json.encode(pair), round(seconds * 1000)]
            try:
                await link.run(TELL, (key, self._names.revision), arguments)
            except LinkError as error:
                if not error.is_refused:
                    outbox.put_back(news)
                raise

    async def _ask_for_leases(self, link: Link) -> None:
        requests = self._leases.requests
        for key in list(requests)[:_MOST_LEASES_AT_ONCE]:
            request, sent = requests.pop(key), self._clock()
            try:
                others = await link.lease(self._names.lease(key), self._replica, request.seconds)
            except LinkError:
                requests.setdefault(key, request)
                raise
            if request.seconds:
                self._leases.answered(key, request, sent, others)
        if requests:
            self._event.set()

    async def _leave(self, link: Link) -> None:
        with suppress(LinkError):
            if self._link is None or link.is_broken:
                return
            for key in self._leases.held():
                await link.lease(self._names.lease(key), self._replica, 0.0)
            self._openings.withdraw()
            await self._tell(link, self._names.hints, "hints", self._openings)
            await link.run(LEAVE, (self._names.replicas,), (self._replica,))

    # Going and coming.

    def _failed(self, reason: str) -> None:
        """Once may be the connection; twice in a row is Redis."""
        self._failures += 1
        if (self._is_shared and self._failures > 1) or not self._has_begun:
            self._change(is_shared=False)
            _log.warning("Breaker news are not shared, this replica goes on alone: %s", reason)

    def _succeeded(self) -> None:
        self._failures = 0
        if not self._is_shared:
            self._change(is_shared=True)
            _log.info("Breaker news are shared between %d replicas", self._replicas)

    def _change(self, *, is_shared: bool) -> None:
        self._is_shared, self._since, self._has_begun = is_shared, self._wall(), True
        self._leases.share(is_shared=is_shared)

    # What others say.

    def _sync_soon(self) -> None:
        self._sync_at = 0.0
        self._event.set()

    async def _sync(self, link: Link) -> None:
        began = self._clock()
        arguments = (self._replica, _SILENT_MS, _KEPT_MS, str(self._inbox.book.known), self._revision)
        self._sync_at = began + self._interval
        sync = Sync(*await link.run(SYNC, self._names.all, arguments))
        self._replicas, self._revision = sync.replicas, sync.revision
        self._inbox.read(sync, began)
        for kept in (self._leases, self._cooldowns, self._openings):
            kept.sweep()
        if self._mark not in {b"", sync.mark}:
            await self._restore(link)
        self._mark = sync.mark

    async def _restore(self, link: Link) -> None:
        """Redis has lost what it knew."""
        self._cooldowns.repeat()
        self._openings.repeat()
        self._leases.share(is_shared=self._is_shared)
        orders = self._inbox.standing()
        if orders:
            await link.run(RESTORE, (self._names.orders, self._names.generation), orders)
