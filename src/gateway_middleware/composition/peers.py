"""What replicas tell each other about breakers and cooldowns, where they share a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.peers.peers import Peers
from gateway_middleware.breaker.state.overrides import FORCES, Command
from gateway_middleware.composition.part import Fixed, Lifeless
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.redis.connect import redis_caller

if TYPE_CHECKING:
    from gateway_middleware.breaker.operator import Operator
    from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
    from gateway_middleware.composition.breakers import Breakers
    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.fleet.entries import Entry
    from gateway_middleware.redis.caller import RedisCaller
    from gateway_middleware.settings import Settings


KIND = "breaker"
FORCE_SECONDS = 3600.0
_ENDING_SECONDS = 7 * 86400.0
"""What ends a force is remembered for as long as the longest force is."""


class BreakerCommand(msgspec.Struct, frozen=True):
    """What an operator has done to the breakers of a key."""

    command: Command
    reason: str
    actor: str


_decode = msgspec.json.Decoder(BreakerCommand).decode


class NoPeers(Fixed, Lifeless):
    """This process is alone."""

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool | None:
        """None: there is nobody to tell."""
        return None

    def snapshot(self) -> object:
        """The part of `/v1/health`."""
        return None


class FleetPeers(NoPeers):
    """Workers of one server without Redis: operators' commands reach all, each learns the rest by itself."""

    def __init__(self, fleet: Fleet, operator: Operator) -> None:
        self._fleet = fleet
        fleet.on(KIND, lambda entry: _obey(operator, entry))

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool | None:
        """Tell an operator's command; whether the others will hear of it within a second."""
        body = BreakerCommand(command, reason, actor)
        return await self._fleet.publish(KIND, key, body, seconds=_kept(command, ttl))


class RedisPeers(Peers, Fixed):
    """Replicas that share a Redis. While it is away the workers of one server hear of commands all the same."""

    def __init__(
        self, redis: RedisCaller, *, fleet: Fleet, operator: Operator, leases: ProbeLeases, clocks: Clocks
    ) -> None:
        super().__init__(redis, leases=leases, handler=self, clock=clocks.monotonic, wall=clocks.wall)
        self._fleet = fleet
        self._operator = operator
        self._untold: dict[str, Entry] = {}
        fleet.on(KIND, lambda entry: _obey(operator, entry))

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool:
        """Tell an operator's command. False: other replicas hear of it when Redis is back."""
        self._untold.pop(key, None)
        if await super().command(key, command, ttl, reason=reason, actor=actor):
            return True
        body = BreakerCommand(command, reason, actor)
        self._untold[key] = self._fleet.post(KIND, key, body, seconds=_kept(command, ttl))
        return False

    def cool_down(self, deployment: str | None, credential: str, seconds: float, *, why: str | None) -> None:
        """What Redis says."""
        self._operator.cool_down(deployment, credential, seconds, why=why)

    def obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """What Redis says: it is newer than what Redis has missed."""
        self._untold.pop(key, None)
        self._operator.obey(key, command, ttl, reason)

    async def exchange(self) -> bool:
        """As ever, and what Redis has missed."""
        is_well = await super().exchange()
        if is_well and self._untold:
            await self._tell_late()
        return is_well

    async def _tell_late(self) -> None:
        """Where another process has spoken since, that one tells it."""
        standing = {entry.key: entry for entry in self._fleet.entries(KIND)}
        for key, entry in list(self._untold.items()):
            last, given = standing.get(key), _decode(entry.body)
            if last is not None and last.order == entry.order:
                ttl = last.seconds if given.command in FORCES else None
                if not await super().command(key, given.command, ttl, reason=given.reason, actor=given.actor):
                    return
            if self._untold.get(key) is entry:
                del self._untold[key]


def _kept(command: Command, ttl: float | None) -> float:
    return (ttl or FORCE_SECONDS) if command in FORCES else _ENDING_SECONDS


def _obey(operator: Operator, entry: Entry) -> None:
    """An operator has spoken to another process."""
    given = _decode(entry.body)
    operator.obey(entry.key, given.command, entry.seconds or 0.0, given.reason)


def build_peers(
    settings: Settings, breakers: Breakers, leases: ProbeLeases, clocks: Clocks, *, fleet: Fleet
) -> RedisPeers | FleetPeers | NoPeers:
    """The way to the other replicas, where the storage is one that they share. Raises `SettingsError`."""
    uri = settings.storage_uri.reveal()
    if uri.startswith("memory:"):
        return NoPeers() if fleet.is_alone else FleetPeers(fleet, breakers.operator)
    try:
        redis = redis_caller(uri)
    except ValueError as error:
        raise SettingsError([f"GATEWAY_STORAGE_URI: {error}"]) from None
    peers = RedisPeers(redis, fleet=fleet, operator=breakers.operator, leases=leases, clocks=clocks)
    breakers.subscribe(peers)
    return peers
