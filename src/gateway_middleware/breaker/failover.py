"""Which deployment a call tries next, and when it has tried enough. No I/O: a walk says where to go, and is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.budget import backoff
from gateway_middleware.breaker.failure.rules import (
    SUCCEEDED,
    CooldownScope,
    Fallback,
    Judgement,
    Retry,
    Verdict,
    judge,
)
from gateway_middleware.breaker.selection import by_affinity, by_latency, by_weight, group
from gateway_middleware.breaker.state.permit import CircuitOpenError, CoolingDownError
from gateway_middleware.breaker.state.places import Admission
from gateway_middleware.breaker.state.policy import Mode
from gateway_middleware.core.domain import Balance, Outcome
from gateway_middleware.core.errors import UnavailableError, UpstreamError, UpstreamTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.budget import RetryBudget
    from gateway_middleware.breaker.cooldown import Cooldowns
    from gateway_middleware.breaker.failure.rules import Cooldown
    from gateway_middleware.breaker.selection import Latencies
    from gateway_middleware.breaker.state.registry import BreakerRegistry
    from gateway_middleware.core.domain import Clock, Deployment, Route, Timeouts
    from gateway_middleware.core.provider_api import Origin
    from gateway_middleware.core.record import Attempt

_SHORTEST_TRY = 1.0
"""With fewer seconds left until the call's deadline nobody is asked any more."""
_LONGEST_WAIT = 2.0
"""A provider that asks for more than this many seconds is not asked again within the call."""


_OUR_DEADLINE = Judgement(outcome=Outcome.TIMEOUT, has_answered=False)


class Failover:
    """What all walks share: breakers, cooldowns, the retry budget, and how far a call may go.

    `origin_of` and `timeouts_of` say where a deployment is and what its deadlines are. `first_content` is how long, in
    seconds, all attempts of a call may take until the first content. `on_cooldown` is told of everything that is left
    alone: deployment (None: all under the credential), credential, seconds.
    """

    def __init__(
        self,
        *,
        registry: BreakerRegistry,
        cooldowns: Cooldowns,
        budget: RetryBudget,
        latencies: Latencies,
        origin_of: Callable[[Deployment], Origin],
        timeouts_of: Callable[[Deployment], Timeouts],
        clock: Clock,
        wall: Clock,
        random: Callable[[], float],
        mode: Mode = Mode.ON,
        max_attempts: int,
        first_content: float = 600.0,
        on_cooldown: Callable[[str | None, str, float], None] | None = None,
    ) -> None:
        self.registry = registry
        self.cooldowns = cooldowns
        self.budget = budget
        self.latencies = latencies
        self.origin_of = origin_of
        self.timeouts_of = timeouts_of
        self.clock = clock
        self.wall = wall
        self.random = random
        self.mode = mode
        self.max_attempts = max_attempts
        self.first_content = first_content
        self.on_cooldown = on_cooldown

    def begin(self, route: Route, *, started: float, affinity: bytes | None = None) -> Walk:
        """The walk of a call that came at `started`. `affinity` is for routes that balance by it."""
        self.budget.count_request()
        return Walk(self, route, self._order(route, affinity), started)

    def _order(self, route: Route, affinity: bytes | None) -> list[Deployment]:
        deployments = route.deployments
        if route.balance is Balance.ORDER or len(deployments) == 1:
            return list(deployments)
        groups = group(deployments)
        if route.balance is Balance.LATENCY:
            return by_latency(groups, self.latencies)
        return by_weight(groups, self.random) if affinity is None else by_affinity(groups, affinity)

    def wait_of(self, deployment: Deployment) -> float:
        """Seconds for which this deployment is to be left alone."""
        return self.cooldowns.wait(deployment.key, deployment.provider) if self.mode is Mode.ON else 0.0

    def learn(self, deployment: Deployment, judgement: Judgement) -> None:
        """Remember what an attempt says of throttling."""
        if judgement.cooldown is not None:
            if self.mode is not Mode.OFF:
                self._cool(deployment, judgement.cooldown)
        elif judgement is SUCCEEDED:
            self.cooldowns.succeeded(deployment.key, deployment.provider)

    def _cool(self, deployment: Deployment, cooldown: Cooldown) -> None:
        seconds = self.cooldowns.cool(cooldown, deployment=deployment.key, credential=deployment.provider)
        if self.on_cooldown is not None:
            is_one = cooldown.scope is CooldownScope.DEPLOYMENT
            self.on_cooldown(deployment.key if is_one else None, deployment.provider, seconds)


class Leg:
    """One attempt of a walk: where to, and after how many seconds."""

    __slots__ = ("_admission", "_failover", "_latencies", "_started", "deployment", "is_retry", "is_shortened", "wait")

    def __init__(
        self, failover: Failover, deployment: Deployment, admission: Admission, *, wait: float, is_retry: bool
    ) -> None:
        self.deployment = deployment
        self.wait = wait
        self.is_retry = is_retry
        self.is_shortened = False
        """Whether its deadlines are those of the whole call: that they are over says nothing of the provider."""
        self._started = failover.clock() + wait
        self._failover = failover
        self._admission: Admission | None = admission
        self._latencies: Latencies | None = None

    def measure(self) -> None:
        """Have the time to the first content counted for the route's choice of the quickest."""
        self._latencies = self._failover.latencies
        self._latencies.begin(self.deployment.key)

    def on_content(self) -> None:
        """The first content has come."""
        if self._admission is not None:
            seconds = self._failover.clock() - self._started
            self._admission.provisional(seconds)
            self._measured(seconds)

    def settle(self, judgement: Judgement) -> None:
        """The attempt has ended. Only the first of these calls counts."""
        admission, self._admission = self._admission, None
        if admission is None:
            return
        admission.settle(judgement)
        seconds = self._failover.clock() - self._started if judgement is SUCCEEDED and self._latencies else None
        self._measured(seconds)
        self._failover.learn(self.deployment, judgement)
        if self.is_retry:
            self._failover.budget.end_retry()

    def _measured(self, seconds: float | None) -> None:
        latencies, self._latencies = self._latencies, None
        if latencies is not None:
            latencies.end(self.deployment.key, seconds)


class Walk:
    """The way of one call over the deployments of its route."""

    __slots__ = ("_again", "_attempts", "_barred", "_error", "_failover", "_fresh", "_most", "_route", "_taken",
                 "_until", "_waits")  # fmt: skip

    def __init__(self, failover: Failover, route: Route, order: list[Deployment], started: float) -> None:
        self._failover = failover
        self._route = route
        self._fresh = order
        self._again: list[tuple[Deployment, float]] = []
        self._barred: set[str] = set()
        self._taken: set[Fallback] = set()
        self._waits: list[tuple[float, bool]] = []
        self._attempts = 0
        self._most = route.max_attempts or failover.max_attempts
        self._until = started + failover.first_content
        self._error: UpstreamError | None = None

    def first(self) -> Leg:
        """The first attempt. Raises `CircuitOpenError` or `CoolingDownError` when nobody can take the call."""
        leg = self._next_fresh(is_retry=False)
        if leg is None:
            raise self._refusal()
        return leg

    def spare(self) -> Leg | None:
        """One more attempt beside the one that is under way, at a deployment that was not asked yet."""
        return self._retry(again=False)

    def succeeded(self, leg: Leg, attempt: Attempt | None) -> None:
        """The attempt returned. An answer that says itself that it failed counts as that."""
        failure = None if attempt is None else attempt.failure
        leg.settle(SUCCEEDED if failure is None else judge(failure, wall=self._failover.wall()))

    def failed(self, leg: Leg, error: BaseException, *, can_move: bool) -> Leg | None:
        """The attempt ended so. The next one, or None: then the call ends with this error."""
        judgement = judge(error, wall=self._failover.wall())
        if leg.is_shortened and isinstance(error, UpstreamTimeoutError):
            judgement = _OUR_DEADLINE
        leg.settle(judgement)
        if not isinstance(error, UpstreamError):
            return None
        error.outcome = judgement.outcome
        may_go_on = self._may_go_on(leg.deployment, judgement)
        following = self._retry() if can_move and may_go_on else None
        if following is None and judgement.verdict is Verdict.FAILURE and self._is_spent:
            error.should_retry = False
        return following

    @property
    def _is_spent(self) -> bool:
        """Whether the client's SDK would only try the same twice more."""
        return self._attempts > 1 or self._attempts >= self._most

    def _may_go_on(self, deployment: Deployment, judgement: Judgement) -> bool:
        """Whether anybody may be asked after this; notes who may not."""
        if judgement.fallback is not None and judgement.fallback not in self._taken:
            self._taken.add(judgement.fallback)
            self._fresh, self._again = list(_special(self._route, judgement.fallback)), []
            return bool(self._fresh)
        if judgement.retry is Retry.OTHER_CREDENTIAL:
            self._barred.add(deployment.provider)
        elif judgement.retry is Retry.ANYWHERE and (judgement.min_open or 0.0) <= _LONGEST_WAIT:
            self._again.append((deployment, judgement.min_open or 0.0))
        return judgement.retry is not Retry.NEVER

    # The next leg.

    def _retry(self, *, again: bool = True) -> Leg | None:
        budget, left = self._failover.budget, self._until - self._failover.clock()
        if self._attempts >= self._most or left < _SHORTEST_TRY or not budget.has_room:
            return None
        leg = self._next_fresh(is_retry=True) or (self._next_again() if again else None)
        if leg is not None:
            budget.begin_retry()
        return leg

    def _next_fresh(self, *, is_retry: bool) -> Leg | None:
        while self._fresh:
            deployment = self._fresh.pop(0)
            if deployment.provider in self._barred:
                continue
            wait = self._failover.wait_of(deployment)
            if wait > 0:
                self._waits.append((wait, True))
                continue
            leg = self._admitted(deployment, 0.0, is_retry=is_retry)
            if leg is not None:
                return leg
        return None

    def _next_again(self) -> Leg | None:
        """A deployment that failed before, after a pause."""
        while self._again:
            deployment, least = self._again.pop(0)
            asked = max(least, self._failover.wait_of(deployment))
            wait = max(asked, backoff(self._attempts - 1, self._failover.random))
            is_late = self._failover.clock() + wait + _SHORTEST_TRY > self._until
            if deployment.provider in self._barred or asked > _LONGEST_WAIT or is_late:
                continue
            leg = self._admitted(deployment, wait, is_retry=True)
            if leg is not None:
                return leg
        return None

    def _admitted(self, deployment: Deployment, wait: float, *, is_retry: bool) -> Leg | None:
        failover = self._failover
        admission = failover.registry.admit(deployment, failover.origin_of(deployment))
        if not isinstance(admission, Admission):
            self._waits.append((admission.retry_after, False))
            return None
        self._attempts += 1
        given = self._in_time(deployment, wait) if is_retry else deployment
        leg = Leg(failover, given, admission, wait=wait, is_retry=is_retry)
        leg.is_shortened = given is not deployment
        if self._route.balance is Balance.LATENCY:
            leg.measure()
        return leg

    def _in_time(self, deployment: Deployment, wait: float) -> Deployment:
        """The same with deadlines that fit into what is left of the call's own."""
        left = self._until - self._failover.clock() - wait
        timeouts = deployment.timeouts or self._failover.timeouts_of(deployment)
        if timeouts.first_byte <= left and timeouts.answer <= left:
            return deployment
        shorter = msgspec.structs.replace(
            timeouts, first_byte=min(timeouts.first_byte, left), answer=min(timeouts.answer, left)
        )
        return msgspec.structs.replace(deployment, timeouts=shorter)

    def _refusal(self) -> UnavailableError:
        wait = min((wait for wait, _ in self._waits), default=1.0)
        if self._waits and all(is_cooling for _, is_cooling in self._waits):
            message = f"Every provider of `{self._route.name}` has asked the gateway to wait."
            return CoolingDownError(message, retry_after=wait)
        message = f"No deployment of `{self._route.name}` can take the call now: the circuit breaker is open."
        return CircuitOpenError(message, retry_after=wait)


def _special(route: Route, fallback: Fallback) -> tuple[Deployment, ...]:
    return route.on_context_window if fallback is Fallback.CONTEXT_WINDOW else route.on_content_policy
