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
        self._operator = operator
        fleet.on(KIND, self._hear)

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool | None:
        """Tell an operator's command; whether the others will hear of it within a second."""
        seconds = (ttl or FORCE_SECONDS) if command in FORCES else _ENDING_SECONDS
        return await self._fleet.publish(KIND, key, BreakerCommand(command, reason, actor), seconds=seconds)

    def _hear(self, entry: Entry) -> None:
        """An operator has spoken to another worker."""
        command = _decode(entry.body)
        self._operator.obey(entry.key, command.command, entry.seconds or 0.0, command.reason)


class RedisPeers(Peers, Fixed):
    """Replicas that share a Redis, as a part."""


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
    peers = RedisPeers(redis, leases=leases, handler=breakers.operator, clock=clocks.monotonic, wall=clocks.wall)
    breakers.subscribe(peers)
    return peers
