"""Circuit breaking: breakers, cooldowns, failover and hedging of one gateway, and what an operator may do to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.budget import RetryBudget
from gateway_middleware.breaker.cooldown import Cooldowns, Throttling
from gateway_middleware.breaker.credentials import Pools
from gateway_middleware.breaker.events import BreakerEvents
from gateway_middleware.breaker.failover import Failover
from gateway_middleware.breaker.hedge import Hedge
from gateway_middleware.breaker.operator import Operator
from gateway_middleware.breaker.selection import Latencies, Selector
from gateway_middleware.breaker.state.factory import BreakerFactory
from gateway_middleware.breaker.state.policy import BreakerPolicy, Mode
from gateway_middleware.breaker.state.registry import BreakerRegistry
from gateway_middleware.composition.accounts import key_accounts, pools, tenant_accounts
from gateway_middleware.composition.config import deployments_of
from gateway_middleware.composition.part import Commit, Lifeless

if TYPE_CHECKING:
    from gateway_middleware.breaker.events import BreakerListener
    from gateway_middleware.breaker.state.probe_gate import ProbeGate
    from gateway_middleware.composition.config import LiveConfig
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import Deployment
    from gateway_middleware.core.provider_api import Provider
    from gateway_middleware.settings import Settings
    from gateway_middleware.settings.tree import ProviderSettings


class Breakers(Lifeless):
    """Decides where calls go. It knows neither log nor metrics nor other replicas: they subscribe."""

    takes = frozenset({"providers", "routes", "max_attempts"})

    def __init__(self, settings: Settings, config: LiveConfig, clocks: Clocks, *, gate: ProbeGate) -> None:
        self._providers: Mapping[str, Provider] = config.providers
        self._events = BreakerEvents()
        mode, clock = Mode(settings.breaker), clocks.monotonic
        factory = BreakerFactory(
            clock=clock, wall=clocks.wall, random=clocks.random, on_transition=self._events.transition, gate=gate
        )
        self._registry = BreakerRegistry(BreakerPolicy(mode=mode), factory=factory, policies=policies_of(settings))
        for deployment in deployments_of(settings):
            self._registry.register(deployment, self._provider_of(deployment).origin)
        self.cooldowns = Cooldowns(clock)
        self.of_clients = Cooldowns(clock)
        self._accounts = _accounts_of(settings)
        self.pools = Pools(pools(settings))
        self.failover = Failover(
            registry=self._registry,
            throttling=Throttling(
                self.cooldowns, mode=mode, on_cooldown=self._events.cooldown, of_clients=self.of_clients
            ),
            budget=RetryBudget(clock),
            selector=Selector(Latencies(clock), clocks.random),
            provider_of=self._provider_of,
            clock=clock,
            wall=clocks.wall,
            random=clocks.random,
            max_attempts=settings.max_attempts,
            pools=self.pools,
        )
        self.hedge = Hedge(clock=clock)
        self.operator = Operator(
            self._registry, self.cooldowns, mode=mode, of_clients=self.of_clients, pools=self.pools
        )

    def subscribe(self, listener: BreakerListener) -> None:
        """Tell this one too of transitions and cooldowns, from now on."""
        self._events.subscribe(listener)

    def prepare(self, new: Settings) -> Commit:
        """Other deployments and numbers. Breakers keep their state, and go by the new numbers at once."""
        policies, deployments, accounts = policies_of(new), deployments_of(new), _accounts_of(new)

        def commit() -> None:
            self._forget_other_accounts(accounts)
            self.pools.replace(pools(new))
            pairs = [(deployment, self._provider_of(deployment).origin) for deployment in deployments]
            self._registry.configure(pairs, policies=policies)
            self.failover.max_attempts = new.max_attempts

        return commit

    def _forget_other_accounts(self, accounts: Mapping[str, object]) -> None:
        """What a provider said to another credential (refused, throttled, out of quota) says nothing of the new one."""
        for name, key in accounts.items():
            if self._accounts.get(name) != key:
                self.cooldowns.reset(credential=name)
        self._accounts = accounts

    def _provider_of(self, deployment: Deployment) -> Provider:
        return self._providers[deployment.account]


def _accounts_of(settings: Settings) -> Mapping[str, object]:
    """What says who calls, by account."""
    own: dict[str, object] = {p.name: p.api_key if p.aws is None else p.aws for p in settings.providers}
    others = tenant_accounts(settings) | key_accounts(settings)
    return own | {account: key for account, (_, key) in others.items()}


def policies_of(settings: Settings) -> dict[str, BreakerPolicy]:
    """The numbers of each provider's breakers."""
    mode = Mode(settings.breaker)
    return {p.name: _policy(p, mode) for p in settings.providers}


def _policy(provider: ProviderSettings, mode: Mode) -> BreakerPolicy:
    policy = BreakerPolicy(mode=mode, probe_expiry=provider.timeouts.first_byte + 1.0)
    return msgspec.structs.replace(policy, **provider.breaker.given)
