"""All breakers of a replica: one for each host, one for each deployment on it, and a row for each provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.machine import CircuitBreaker
from gateway_middleware.breaker.outcome import Leaf, Verdict
from gateway_middleware.breaker.permit import BreakerSnapshot, Permit
from gateway_middleware.breaker.policy import BreakerPolicy
from gateway_middleware.breaker.standing import FORCES, Command, Order, StandingOrders
from gateway_middleware.breaker.transitions import State, Transition
from gateway_middleware.errors import PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway_middleware.breaker.outcome import Judgement
    from gateway_middleware.domain import Clock, Deployment, Origin

_TRAFFIC_SECONDS = 60.0
_SHUT = frozenset({State.OPEN, State.FORCED_OPEN})
_ENDPOINT = "endpoint:"


class Refusal(msgspec.Struct, frozen=True):
    """Why a deployment cannot take the call: the key and state of the leaf, and seconds until it is worth asking."""

    key: str
    state: State
    retry_after: float


class Admission:
    """Both permits of one attempt. Ends once, by the first of `settle` and `release`."""

    __slots__ = ("_deployment", "_endpoint")

    def __init__(self, deployment: Permit, endpoint: Permit) -> None:
        self._deployment = deployment
        self._endpoint = endpoint

    def provisional(self, ttft: float | None = None) -> None:
        """The first content has come, after `ttft` seconds."""
        self._endpoint.succeed()
        self._deployment.provisional(ttft)

    def settle(self, judgement: Judgement, ttft: float | None = None) -> None:
        """Tell both breakers how the attempt ended."""
        if judgement.verdict is Verdict.SUCCESS:
            self._endpoint.succeed()
            self._deployment.succeed(ttft)
            return
        if judgement.verdict is Verdict.FAILURE:
            (self._endpoint if judgement.leaf is Leaf.ENDPOINT else self._deployment).fail(judgement)
        if judgement.has_answered:
            self._endpoint.succeed()
        self.release()

    def release(self) -> None:
        """Nothing is known. After `settle` it does nothing."""
        self._deployment.release()
        self._endpoint.release()


class _Place:
    """One deployment at its endpoint."""

    __slots__ = ("breaker", "endpoint", "is_configured", "origin", "provider", "seen")

    def __init__(self, provider: str, origin: Origin, breaker: CircuitBreaker, endpoint: CircuitBreaker) -> None:
        self.provider = provider
        self.origin = origin
        self.breaker = breaker
        self.endpoint = endpoint
        self.is_configured = False
        self.seen = float("-inf")

    def refusal(self) -> Refusal:
        """The leaf that keeps it shut for longer."""
        by = max(self.endpoint, self.breaker, key=CircuitBreaker.retry_after)
        return Refusal(by.key, by.state, by.retry_after())

    @property
    def state(self) -> State:
        """What a caller meets: a closed deployment at a host that is out takes no calls."""
        own, host = self.breaker.current_state(), self.endpoint.current_state()
        if own in _SHUT:
            return own
        return host if host in _SHUT or host is State.HALF_OPEN else own


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
        most: int = 2048,
    ) -> None:
        self._policy, self._policies = policy, policies or {}
        self._clock, self._wall, self._random = clock, wall, random
        self._on_transition = on_transition
        self._most = most
        self._places: dict[str, _Place] = {}
        self._endpoints: dict[str, CircuitBreaker] = {}
        self._orders = StandingOrders()

    def register(self, deployment: Deployment, origin: Origin) -> None:
        """A deployment of the configuration: listed and known by its key before its first call."""
        self._find(deployment, origin).is_configured = True

    def retain(self, keys: Iterable[str]) -> None:
        """After a change of configuration: forget all deployments but these, and hosts that none is left on."""
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

    def _find(self, deployment: Deployment, origin: Origin) -> _Place:
        found = self._places.get(deployment.key)
        if found is not None and found.origin == origin:
            return found
        if found is None and len(self._places) >= self._most:
            self._thin_out()
        breaker = self._make(deployment.key, self._policy_of(deployment))
        place = _Place(deployment.provider, origin, breaker, self._endpoint(deployment, origin))
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
        providers: dict[str, list[_Place]] = {}
        for place in self._places.values():
            providers.setdefault(place.provider, []).append(place)
        return {provider: self._row(places) for provider, places in providers.items()}

    def _row(self, places: list[_Place]) -> ProviderBreakers:
        snapshots = {place.breaker.key: place.breaker.snapshot() for place in places if _is_shown(place)}
        hosts = {place.endpoint.key: place.endpoint for place in places}
        return ProviderBreakers(
            state=self._state(places),
            deployments=snapshots,
            endpoints={key: breaker.snapshot() for key, breaker in hosts.items()},
            others=len(places) - len(snapshots),
        )

    def _state(self, places: list[_Place]) -> State:
        since = self._clock() - _TRAFFIC_SECONDS
        states = {place.state for place in places if place.seen > since} or {place.state for place in places}
        if states and states <= _SHUT:
            return State.FORCED_OPEN if states == {State.FORCED_OPEN} else State.OPEN
        return State.HALF_OPEN if states and states <= _SHUT | {State.HALF_OPEN} else State.CLOSED


def _carry_out(breaker: CircuitBreaker, command: Command, ttl: float | None, reason: str) -> None:
    if command in FORCES:
        force = breaker.force_open if command is Command.FORCE_OPEN else breaker.force_close
        force(ttl, reason=reason)
    else:
        (breaker.reset if command is Command.RESET else breaker.auto)(reason=reason)


def _permanence(state: State) -> int:
    return 0 if state is State.CLOSED else 2 if state in {State.FORCED_OPEN, State.FORCED_CLOSED} else 1


def _is_shown(place: _Place) -> bool:
    return place.is_configured or place.breaker.current_state() is not State.CLOSED
