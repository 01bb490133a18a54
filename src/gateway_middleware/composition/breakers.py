"""Circuit breaking: breakers, cooldowns, failover and hedging of one gateway, and what an operator may do to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway_middleware.breaker.budget import RetryBudget
from gateway_middleware.breaker.cooldown import Cooldowns
from gateway_middleware.breaker.failover import Failover
from gateway_middleware.breaker.hedge import Hedge
from gateway_middleware.breaker.operator import Operator
from gateway_middleware.breaker.selection import Latencies
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.registry import BreakerRegistry
from gateway_middleware.composition.config import deployments_of
from gateway_middleware.composition.part import Commit, Lifeless

if TYPE_CHECKING:
    from gateway_middleware.breaker.peers.probes import ProbeGate
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Deployment, Timeouts
    from gateway_middleware.core.provider_api import Origin, Provider
    from gateway_middleware.settings import Settings
    from gateway_middleware.settings.tree import ProviderSettings


class BreakerListener(Protocol):
    """Hears what happens to breakers and cooldowns."""

    def transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        ...

    def cooldown(self, deployment: str | None, provider: str, seconds: float) -> None:
        """A provider has asked for time: for one deployment, or for everything."""
        ...


class Breakers(Lifeless):
    """Decides where calls go. It knows neither log nor metrics nor other replicas: they subscribe."""

    takes = frozenset({"providers", "routes", "max_attempts"})

    def __init__(self, settings: Settings, config: LiveConfig, clocks: Clocks, *, gate: ProbeGate | None) -> None:
        self._providers: Mapping[str, Provider] = config.providers
        self._listeners: list[BreakerListener] = []
        mode = Mode(settings.breaker)
        self.registry = BreakerRegistry(
            BreakerPolicy(mode=mode),
            clock=clocks.monotonic,
            wall=clocks.wall,
            random=clocks.random,
            policies=policies_of(settings),
            on_transition=self._transition,
            gate=gate,
        )
        self.cooldowns = Cooldowns(clocks.monotonic)
        self._register(settings)
        self.failover = Failover(
            registry=self.registry,
            cooldowns=self.cooldowns,
            budget=RetryBudget(clocks.monotonic),
            latencies=Latencies(clocks.monotonic),
            origin_of=self._origin_of,
            timeouts_of=self._timeouts_of,
            clock=clocks.monotonic,
            wall=clocks.wall,
            random=clocks.random,
            mode=mode,
            max_attempts=settings.max_attempts,
            on_cooldown=self._cooldown,
        )
        self.hedge = Hedge(clock=clocks.monotonic)
        self.operator = Operator(self.registry, self.cooldowns, mode=mode)

    def subscribe(self, listener: BreakerListener) -> None:
        """Tell this one too, from now on."""
        self._listeners.append(listener)

    def prepare(self, new: Settings) -> Commit:
        """Other deployments and numbers. Breakers keep their state."""
        policies, deployments = policies_of(new), deployments_of(new)

        def commit() -> None:
            pairs = [(deployment, self._origin_of(deployment)) for deployment in deployments]
            self.registry.configure(pairs, policies=policies)
            self.failover.max_attempts = new.max_attempts

        return commit

    def _register(self, settings: Settings) -> None:
        for deployment in deployments_of(settings):
            self.registry.register(deployment, self._origin_of(deployment))

    def _origin_of(self, deployment: Deployment) -> Origin:
        return self._providers[deployment.provider].origin

    def _timeouts_of(self, deployment: Deployment) -> Timeouts:
        return self._providers[deployment.provider].timeouts

    def _transition(self, transition: Transition) -> None:
        for listener in self._listeners:
            listener.transition(transition)

    def _cooldown(self, deployment: str | None, provider: str, seconds: float) -> None:
        for listener in self._listeners:
            listener.cooldown(deployment, provider, seconds)


def policies_of(settings: Settings) -> dict[str, BreakerPolicy]:
    """The numbers of each provider's breakers."""
    mode = Mode(settings.breaker)
    return {p.name: _policy(p, mode) for p in settings.providers}


def _policy(provider: ProviderSettings, mode: Mode) -> BreakerPolicy:
    policy = BreakerPolicy(mode=mode, probe_expiry=provider.timeouts.first_byte + 1.0)
    return msgspec.structs.replace(policy, **provider.breaker.given)
