"""What replicas tell each other about breakers and cooldowns, where they share a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway_middleware.breaker.failure.rules import Cooldown, CooldownScope
from gateway_middleware.breaker.state.overrides import Command
from gateway_middleware.composition.part import Fixed, Lifeless
from gateway_middleware.core.errors import SettingsError

if TYPE_CHECKING:
    from gateway_middleware.breaker.events import CooldownEvent
    from gateway_middleware.breaker.peers.sharing import BreakerSharing
    from gateway_middleware.breaker.state.probe_gate import ProbeGate
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.composition.breakers import Breakers
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.settings import Settings


class NoPeers(Fixed, Lifeless):
    """This process is alone."""

    gate: ProbeGate | None = None

    def connect(self, breakers: Breakers) -> None:
        """There is nobody to listen to."""

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool | None:
        """None: there is nobody to tell."""
        return None

    def snapshot(self) -> object:
        """The part of `/v1/health`."""
        return None


class Peers(Fixed):
    """Tells other replicas what happens here, and does here what they tell."""

    def __init__(self, uri: str, clocks: Clocks) -> None:
        from gateway_middleware.breaker.peers.sharing import BreakerSharing

        self._breakers: Breakers | None = None
        self._sharing: BreakerSharing = BreakerSharing(
            uri,
            on_cooldown=self._cool,
            on_command=self._obey,
            on_hint=lambda _key, _seconds: None,
            clock=clocks.monotonic,
            wall=clocks.wall,
        )
        self.gate: ProbeGate | None = self._sharing.gate

    def connect(self, breakers: Breakers) -> None:
        """The breakers that do what others tell."""
        self._breakers = breakers
        breakers.subscribe(self)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Listen and tell."""
        self._sharing.start()
        try:
            yield
        finally:
            await self._sharing.aclose()

    def on_transition(self, transition: Transition) -> None:
        """Each replica judges for itself: the state of a breaker is not shared."""

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """A provider has asked this replica for time."""
        self._sharing.publish_cooldown(cooldown.deployment, cooldown.credential, cooldown.seconds)

    async def command(self, key: str, command: Command, ttl: float | None, *, reason: str, actor: str) -> bool | None:
        """Tell an operator's command; whether the others will hear it."""
        if command is Command.RESET and "/" not in key:
            self._sharing.publish_cooldown(None, key, 0.0)
        limits = {} if ttl is None else {"ttl": ttl}
        return await self._sharing.send_command(key, command, **limits, reason=reason, actor=actor)

    def snapshot(self) -> object:
        """The part of `/v1/health`."""
        return self._sharing.snapshot()

    def _cool(self, deployment: str | None, provider: str, seconds: float) -> None:
        """A provider has asked another replica for time (0 seconds: an operator took that back)."""
        if self._breakers is None:
            return
        if seconds <= 0:
            self._breakers.cooldowns.forget(deployment, provider)
            return
        scope = CooldownScope.CREDENTIAL if deployment is None else CooldownScope.DEPLOYMENT
        self._breakers.cooldowns.cool(Cooldown(scope, seconds), deployment=deployment or "", credential=provider)

    def _obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """An operator has spoken to another replica."""
        if self._breakers is not None:
            self._breakers.operator.obey(key, command, ttl, reason)


def build_peers(settings: Settings, clocks: Clocks) -> Peers | NoPeers:
    """The way to the other replicas, where the storage is one that they share. Raises `SettingsError`."""
    uri = settings.storage_uri.reveal()
    if uri.startswith("memory:"):
        return NoPeers()
    try:
        return Peers(uri, clocks)
    except ValueError as error:
        raise SettingsError([f"GATEWAY_STORAGE_URI: {error}"]) from None
