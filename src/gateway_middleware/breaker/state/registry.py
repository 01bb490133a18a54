"""All breakers of a replica: one for each host, one for each deployment on it, and a row for each provider."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.state.overrides import FORCES, Command, Override, Overrides
from gateway_middleware.breaker.state.pairs import SHUT, Admission, BreakerPair, Refusal
from gateway_middleware.breaker.state.snapshot import BreakerSnapshot
from gateway_middleware.breaker.state.transitions import State, eviction_rank
from gateway_middleware.core.bounded import make_room
from gateway_middleware.core.errors import PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway_middleware.breaker.state.factory import BreakerFactory
    from gateway_middleware.breaker.state.machine import CircuitBreaker
    from gateway_middleware.breaker.state.policy import BreakerPolicy
    from gateway_middleware.core.domain import Deployment
    from gateway_middleware.core.provider_api import Origin

_TRAFFIC_SECONDS = 60.0
_ENDPOINT = "endpoint:"


class ProviderBreakers(msgspec.Struct, frozen=True, kw_only=True):
    """The row of a provider in `/v1/health`. `others` counts healthy deployments that no configuration names."""

    state: State
    deployments: dict[str, BreakerSnapshot]
    endpoints: dict[str, BreakerSnapshot]
    others: int = 0


class BreakerRegistry:
    """Finds or makes the two breakers of a deployment.

    `policies` are by provider and stand before `policy`. Deployments that nobody configured are kept for as long as
    there are no more than `max_pairs`; then those go that are closed and were not asked for longest.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        factory: BreakerFactory,
        policies: Mapping[str, BreakerPolicy] | None = None,
        max_pairs: int = 2048,
    ) -> None:
        self._policy, self._policies = policy, policies or {}
        self._factory = factory
        self._clock = factory.clock
        self._max_pairs = max_pairs
        self._pairs: dict[str, BreakerPair] = {}
        self._hosts: dict[str, CircuitBreaker] = {}
        self._overrides = Overrides()

    def register(self, deployment: Deployment, origin: Origin) -> None:
        """A deployment of the configuration: listed and known by its key before its first call."""
        pair = self._find(deployment, origin)
        pair.deployment, pair.is_configured = deployment, True

    def configure(
        self, deployments: Iterable[tuple[Deployment, Origin]], *, policies: Mapping[str, BreakerPolicy]
    ) -> None:
        """Take another configuration. What it still names keeps its state, and goes by the new numbers at once.

        Deployments that only clients have named stay for as long as their provider does.
        """
        self._policies = policies
        named = list(deployments)
        keys = {deployment.key for deployment, _ in named}
        keys |= {
            k for k, pair in self._pairs.items() if not pair.is_configured and pair.deployment.provider in policies
        }
        self.retain(keys)
        for deployment, origin in named:
            self.register(deployment, origin)
        for pair in self._pairs.values():
            pair.breaker.policy = self._policy_of(pair.deployment)
        firsts: dict[str, BreakerPair] = {}
        for pair in self._pairs.values():
            firsts.setdefault(pair.host.key, pair)
        for pair in firsts.values():
            pair.host.policy = self._host_policy(pair.deployment)

    def retain(self, keys: Iterable[str]) -> None:
        """Forget all deployments but these, and hosts that none is left on."""
        wanted = set(keys)
        self._pairs = {key: pair for key, pair in self._pairs.items() if key in wanted}
        used = {pair.host.key for pair in self._pairs.values()}
        self._hosts = {key: breaker for key, breaker in self._hosts.items() if key in used}

    def admit(self, deployment: Deployment, origin: Origin) -> Admission | Refusal:
        """Both permits, or none and why."""
        pair = self._pairs.get(deployment.key)
        if pair is None or (pair.origin is not origin and pair.origin != origin):
            pair = self._find(deployment, origin)
        pair.seen = self._clock()
        host = pair.host.try_acquire()
        if host is not None:
            permit = pair.breaker.try_acquire()
            if permit is not None:
                return Admission(permit, host)
            host.release()
        return pair.refusal()

    def forced_open(self, deployment: Deployment) -> Refusal | None:
        """Why nobody may ask this deployment, where that is for an operator's command. Takes no permit."""
        if self.state_of(deployment.key) is not State.FORCED_OPEN:
            return None
        pair = self._pairs.get(deployment.key)
        if pair is not None:
            return pair.refusal()
        now = self._clock()
        override = self._overrides.find(deployment.key, now)
        return Refusal(deployment.key, State.FORCED_OPEN, 0.0 if override is None else override.until - now)

    # Finding and making.

    def _find(self, deployment: Deployment, origin: Origin) -> BreakerPair:
        before = self._pairs.get(deployment.key)
        if before is not None and before.origin == origin:
            return before
        if before is None:
            self._make_room()
        breaker = self._factory.make(deployment.key, self._policy_of(deployment))
        pair = BreakerPair(deployment, origin, breaker, self._host(deployment, origin))
        pair.is_configured = before is not None and before.is_configured
        self._pairs[deployment.key] = pair
        self._override(breaker)
        return pair

    def _policy_of(self, deployment: Deployment) -> BreakerPolicy:
        policy = self._host_policy(deployment)
        if deployment.timeouts is None:
            return policy
        return msgspec.structs.replace(policy, probe_expiry=deployment.timeouts.first_byte + 1.0)

    def _host_policy(self, deployment: Deployment) -> BreakerPolicy:
        """Where several providers are at one host, the policy of the first holds."""
        return self._policies.get(deployment.provider, self._policy)

    def _host(self, deployment: Deployment, origin: Origin) -> CircuitBreaker:
        key = f"{_ENDPOINT}{origin.host}:{origin.port}"
        breaker = self._hosts.get(key)
        if breaker is None:
            breaker = self._hosts[key] = self._factory.make(key, self._host_policy(deployment))
        return breaker

    def _override(self, breaker: CircuitBreaker) -> None:
        now = self._clock()
        override = self._overrides.find(breaker.key, now)
        if override is not None:
            _carry_out(breaker, override.command, override.until - now, "forced before its first call")

    def _make_room(self) -> None:
        idle = (key for key, pair in self._pairs.items() if not pair.is_configured)
        make_room(self._pairs, self._max_pairs, rank=self._eviction_rank, candidates=idle)

    def _eviction_rank(self, key: str) -> tuple[int, float]:
        pair = self._pairs[key]
        return eviction_rank(pair.breaker.state), pair.seen

    # The operator.

    def command(self, key: str, command: Command, *, ttl: float | None = None, reason: str = "operator") -> list[str]:
        """Carry out a command for a provider, a deployment or an endpoint; returns the keys of the breakers concerned.

        A force lasts `ttl` seconds (default: the policy's) and holds for deployments of the provider that come later.
        A provider's `force-open` leaves its hosts alone: another provider may be there too. Raises
        `PathNotFoundError` for a key that is none.
        """
        breakers = self._concerned(key, command)
        if not key.startswith(_ENDPOINT):
            seconds = self._policy.force_ttl if ttl is None else ttl
            self._overrides.note(key, Override(command, self._clock() + seconds))
        for breaker in breakers:
            _carry_out(breaker, command, ttl, reason)
        return [breaker.key for breaker in breakers]

    def obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """Carry out another replica's command: it is noted even where nothing is known of the key yet."""
        if not key.startswith(_ENDPOINT):
            self._overrides.note(key, Override(command, self._clock() + ttl))
        with suppress(PathNotFoundError):
            for breaker in self._concerned(key, command):
                _carry_out(breaker, command, ttl, reason)

    def _concerned(self, key: str, command: Command) -> list[CircuitBreaker]:
        if key in self._hosts:
            return [self._hosts[key]]
        if key in self._pairs:
            return [self._pairs[key].breaker]
        pairs = [pair for pair in self._pairs.values() if pair.deployment.provider == key.partition("/")[0]]
        if not pairs or key.startswith(_ENDPOINT):
            raise unknown_key(key)
        if "/" in key:
            return []
        hosts = {} if command is Command.FORCE_OPEN else {pair.host.key: pair.host for pair in pairs}
        return [pair.breaker for pair in pairs] + list(hosts.values())

    # Looking.

    def knows(self, key: str) -> bool:
        """Whether it is the key of a provider, a deployment or an endpoint that has breakers, or was forced."""
        if key in self._pairs or key in self._hosts or self._overrides.find(key, self._clock()) is not None:
            return True
        return any(pair.deployment.provider == key for pair in self._pairs.values())

    def state_of(self, key: str) -> State | None:
        """What a caller of a deployment, or of any of a provider, meets; None for a key without breakers."""
        pair = self._pairs.get(key)
        if pair is not None:
            return pair.state
        return self.state(key) if self.knows(key) else None

    def state(self, provider: str) -> State:
        """Of the whole provider: open when all its deployments with traffic in the last minute are shut.

        Of one that nobody has called yet it is what an operator has forced.
        """
        pairs = [pair for pair in self._pairs.values() if pair.deployment.provider == provider]
        return self._state(pairs) if pairs else self._uncalled(provider)

    def _uncalled(self, provider: str) -> State:
        override = self._overrides.find(provider, self._clock())
        if override is None:
            return State.CLOSED
        return State.FORCED_OPEN if override.command is Command.FORCE_OPEN else State.FORCED_CLOSED

    def snapshot(self) -> dict[str, ProviderBreakers]:
        """`circuit_breakers` of `/v1/health`, by provider. Names that nobody configured are shown in trouble only."""
        providers: dict[str, list[BreakerPair]] = {}
        for pair in self._pairs.values():
            providers.setdefault(pair.deployment.provider, []).append(pair)
        return {provider: self._row(pairs) for provider, pairs in providers.items()}

    def _row(self, pairs: list[BreakerPair]) -> ProviderBreakers:
        snapshots = {pair.breaker.key: pair.breaker.snapshot() for pair in pairs if _is_shown(pair)}
        hosts = {pair.host.key: pair.host for pair in pairs}
        return ProviderBreakers(
            state=self._state(pairs),
            deployments=snapshots,
            endpoints={key: breaker.snapshot() for key, breaker in hosts.items()},
            others=len(pairs) - len(snapshots),
        )

    def _state(self, pairs: list[BreakerPair]) -> State:
        since = self._clock() - _TRAFFIC_SECONDS
        states = {pair.state for pair in pairs if pair.seen > since} or {pair.state for pair in pairs}
        if states and states <= SHUT:
            return State.FORCED_OPEN if states == {State.FORCED_OPEN} else State.OPEN
        return State.HALF_OPEN if states and states <= SHUT | {State.HALF_OPEN} else State.CLOSED


def unknown_key(key: str) -> PathNotFoundError:
    """For a key that no breaker has."""
    return PathNotFoundError(f"No circuit breaker is called `{key}`.", code="unknown_circuit_breaker")


def _carry_out(breaker: CircuitBreaker, command: Command, ttl: float | None, reason: str) -> None:
    if command in FORCES:
        force = breaker.force_open if command is Command.FORCE_OPEN else breaker.force_close
        force(ttl, reason=reason)
    else:
        (breaker.reset if command is Command.RESET else breaker.auto)(reason=reason)


def _is_shown(pair: BreakerPair) -> bool:
    return pair.is_configured or pair.breaker.current_state() is not State.CLOSED
