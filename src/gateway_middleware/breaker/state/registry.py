"""All breakers of a replica: one for each host, one for each deployment on it, and a row for each provider."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.overrides import FORCES, Command, Order, StandingOrders
from gateway_middleware.breaker.state.machine import CircuitBreaker
from gateway_middleware.breaker.state.permit import BreakerSnapshot
from gateway_middleware.breaker.state.places import SHUT, Admission, Place, Refusal
from gateway_middleware.breaker.state.policy import BreakerPolicy
from gateway_middleware.breaker.state.transitions import State, Transition
from gateway_middleware.core.errors import PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway_middleware.breaker.peers.probes import ProbeGate
    from gateway_middleware.core.domain import Clock, Deployment
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
    there are no more than `most`; then those go that are closed and were not asked for longest.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        clock: Clock,
        wall: Clock,
        random: Callable[[], float],
        policies: Mapping[str, BreakerPolicy] | None = None,
        on_transition: Callable[[Transition], None] | None = None,
        gate: ProbeGate | None = None,
        most: int = 2048,
    ) -> None:
        self._gate = gate
        self._policy, self._policies = policy, policies or {}
        self._clock, self._wall, self._random = clock, wall, random
        self._on_transition = on_transition
        self._most = most
        self._places: dict[str, Place] = {}
        self._endpoints: dict[str, CircuitBreaker] = {}
        self._orders = StandingOrders()

    def register(self, deployment: Deployment, origin: Origin) -> None:
        """A deployment of the configuration: listed and known by its key before its first call."""
        self._find(deployment, origin).is_configured = True

    def configure(
        self, deployments: Iterable[tuple[Deployment, Origin]], *, policies: Mapping[str, BreakerPolicy]
    ) -> None:
        """Take another configuration. What it still names keeps its state.

        Deployments that only clients have named stay for as long as their provider does. New numbers are for breakers
        that are made from now on.
        """
        self._policies = policies
        named = list(deployments)
        kept = {deployment.key for deployment, _ in named}
        kept |= {k for k, place in self._places.items() if not place.is_configured and place.provider in policies}
        self.retain(kept)
        for deployment, origin in named:
            self.register(deployment, origin)

    def retain(self, keys: Iterable[str]) -> None:
        """Forget all deployments but these, and hosts that none is left on."""
        kept = set(keys)
        self._places = {key: place for key, place in self._places.items() if key in kept}
        used = {place.endpoint.key for place in self._places.values()}
        self._endpoints = {key: breaker for key, breaker in self._endpoints.items() if key in used}

    def admit(self, deployment: Deployment, origin: Origin) -> Admission | Refusal:
        """Both permits, or none and why."""
        place = self._places.get(deployment.key)
        if place is None or (place.origin is not origin and place.origin != origin):
            place = self._find(deployment, origin)
        place.seen = self._clock()
        endpoint = place.endpoint.try_acquire()
        if endpoint is not None:
            permit = place.breaker.try_acquire()
            if permit is not None:
                return Admission(permit, endpoint)
            endpoint.release()
        return place.refusal()

    # Finding and making.

    def _find(self, deployment: Deployment, origin: Origin) -> Place:
        found = self._places.get(deployment.key)
        if found is not None and found.origin == origin:
            return found
        if found is None and len(self._places) >= self._most:
            self._thin_out()
        breaker = self._make(deployment.key, self._policy_of(deployment))
        place = Place(deployment.provider, origin, breaker, self._endpoint(deployment, origin))
        place.is_configured = found is not None and found.is_configured
        self._places[deployment.key] = place
        self._obey(breaker)
        return place

    def _make(self, key: str, policy: BreakerPolicy) -> CircuitBreaker:
        return CircuitBreaker(
            policy,
            key=key,
            clock=self._clock,
            wall=self._wall,
            random=self._random,
            on_transition=self._on_transition,
            gate=self._gate,
        )

    def _policy_of(self, deployment: Deployment) -> BreakerPolicy:
        policy = self._policies.get(deployment.provider, self._policy)
        if deployment.timeouts is None:
            return policy
        return msgspec.structs.replace(policy, probe_expiry=deployment.timeouts.first_byte + 1.0)

    def _endpoint(self, deployment: Deployment, origin: Origin) -> CircuitBreaker:
        key = f"{_ENDPOINT}{origin.host}:{origin.port}"
        breaker = self._endpoints.get(key)
        if breaker is None:
            policy = self._policies.get(deployment.provider, self._policy)
            breaker = self._endpoints[key] = self._make(key, policy)
        return breaker

    def _obey(self, breaker: CircuitBreaker) -> None:
        now = self._clock()
        order = self._orders.find(breaker.key, now)
        if order is not None:
            _carry_out(breaker, order.command, order.until - now, "standing order")

    def _thin_out(self) -> None:
        """An eighth goes: the closed ones first, and what an operator forced last."""
        idle = [key for key, place in self._places.items() if not place.is_configured]
        idle.sort(key=lambda key: (_permanence(self._places[key].breaker.state), self._places[key].seen))
        for key in idle[: self._most // 8 + 1]:
            del self._places[key]

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
            self._orders.note(key, Order(command, self._clock() + seconds))
        for breaker in breakers:
            _carry_out(breaker, command, ttl, reason)
        return [breaker.key for breaker in breakers]

    def obey(self, key: str, command: Command, ttl: float, reason: str) -> None:
        """Carry out another replica's command: it is noted even where nothing is known of the key yet."""
        if not key.startswith(_ENDPOINT):
            self._orders.note(key, Order(command, self._clock() + ttl))
        with suppress(PathNotFoundError):
            for breaker in self._concerned(key, command):
                _carry_out(breaker, command, ttl, reason)

    def hint(self, key: str, seconds: float) -> None:
        """Several other replicas have found this out of order."""
        place = self._places.get(key)
        breaker = self._endpoints.get(key) if place is None else place.breaker
        if breaker is not None:
            breaker.hint(seconds, reason="other replicas have opened theirs")

    def _concerned(self, key: str, command: Command) -> list[CircuitBreaker]:
        if key in self._endpoints:
            return [self._endpoints[key]]
        if key in self._places:
            return [self._places[key].breaker]
        places = [place for place in self._places.values() if place.provider == key.partition("/")[0]]
        if not places or key.startswith(_ENDPOINT):
            raise PathNotFoundError(f"No circuit breaker is called `{key}`.", code="unknown_circuit_breaker")
        if "/" in key:
            return []
        hosts = {} if command is Command.FORCE_OPEN else {place.endpoint.key: place.endpoint for place in places}
        return [place.breaker for place in places] + list(hosts.values())

    # Looking.

    def state(self, provider: str) -> State:
        """Of the whole provider: open when all its deployments with traffic in the last minute are shut."""
        return self._state([place for place in self._places.values() if place.provider == provider])

    def snapshot(self) -> dict[str, ProviderBreakers]:
        """`circuit_breakers` of `/v1/health`, by provider. Names that nobody configured are shown in trouble only."""
        providers: dict[str, list[Place]] = {}
        for place in self._places.values():
            providers.setdefault(place.provider, []).append(place)
        return {provider: self._row(places) for provider, places in providers.items()}

    def _row(self, places: list[Place]) -> ProviderBreakers:
        snapshots = {place.breaker.key: place.breaker.snapshot() for place in places if _is_shown(place)}
        hosts = {place.endpoint.key: place.endpoint for place in places}
        return ProviderBreakers(
            state=self._state(places),
            deployments=snapshots,
            endpoints={key: breaker.snapshot() for key, breaker in hosts.items()},
            others=len(places) - len(snapshots),
        )

    def _state(self, places: list[Place]) -> State:
        since = self._clock() - _TRAFFIC_SECONDS
        states = {place.state for place in places if place.seen > since} or {place.state for place in places}
        if states and states <= SHUT:
            return State.FORCED_OPEN if states == {State.FORCED_OPEN} else State.OPEN
        return State.HALF_OPEN if states and states <= SHUT | {State.HALF_OPEN} else State.CLOSED


def _carry_out(breaker: CircuitBreaker, command: Command, ttl: float | None, reason: str) -> None:
    if command in FORCES:
        force = breaker.force_open if command is Command.FORCE_OPEN else breaker.force_close
        force(ttl, reason=reason)
    else:
        (breaker.reset if command is Command.RESET else breaker.auto)(reason=reason)


def _permanence(state: State) -> int:
    return 0 if state is State.CLOSED else 2 if state in {State.FORCED_OPEN, State.FORCED_CLOSED} else 1


def _is_shown(place: Place) -> bool:
    return place.is_configured or place.breaker.current_state() is not State.CLOSED
