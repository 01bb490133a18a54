"""What replicas tell each other about breakers and cooldowns, where they share a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.breaker.peers.peers import Peers
from gateway_middleware.composition.part import Fixed, Lifeless
from gateway_middleware.core.errors import SettingsError
from gateway_middleware.redis.connect import redis_caller

if TYPE_CHECKING:
    from gateway_middleware.breaker.peers.probe_leases import ProbeLeases
    from gateway_middleware.breaker.state.overrides import Command
    from gateway_middleware.composition.breakers import Breakers
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.settings import Settings


class NoPeers(Fixed, Lifeless):
    """This process is alone."""

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool | None:
        """None: there is nobody to tell."""
        return None

    def snapshot(self) -> object:
        """The part of `/v1/health`."""
        return None


class RedisPeers(Peers, Fixed):
    """Replicas that share a Redis, as a part."""


def build_peers(settings: Settings, breakers: Breakers, leases: ProbeLeases, clocks: Clocks) -> RedisPeers | NoPeers:
    """The way to the other replicas, where the storage is one that they share. Raises `SettingsError`."""
    uri = settings.storage_uri.reveal()
    if uri.startswith("memory:"):
        return NoPeers()
    try:
        redis = redis_caller(uri)
    except ValueError as error:
        raise SettingsError([f"GATEWAY_STORAGE_URI: {error}"]) from None
    peers = RedisPeers(redis, leases=leases, handler=breakers.operator, clock=clocks.monotonic, wall=clocks.wall)
    breakers.subscribe(peers)
    return peers
