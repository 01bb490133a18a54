"""Which deployment a call tries next, and when it has tried enough. No I/O: it is told how each attempt ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.breaker.budget import backoff
from gateway_middleware.breaker.credentials import Pools
from gateway_middleware.breaker.failed_bodies import FailedBodies
from gateway_middleware.breaker.failure.rules import (
    SUCCEEDED,
    Fallback,
    Judgement,
    Retry,
    Verdict,
    judge,
    judged_for_client,
)
from gateway_middleware.breaker.refusal import Obstacle, refusal
from gateway_middleware.breaker.state.pairs import Admission
from gateway_middleware.breaker.verdicts import Verdicts
from gateway_middleware.core.domain import Balance, Outcome, Payer
from gateway_middleware.core.errors import TranslationError, UnavailableError, UpstreamError, UpstreamTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.budget import RetryBudget
    from gateway_middleware.breaker.cooldown import Throttling
    from gateway_middleware.breaker.credentials import WithCredentials
    from gateway_middleware.breaker.selection import Latencies, Selector
    from gateway_middleware.breaker.state.registry import BreakerRegistry
    from gateway_middleware.core.domain import Clock, Deployment, Route
    from gateway_middleware.core.provider_api import Provider
    from gateway_middleware.core.record import Attempt

_MIN_SECONDS_LEFT = 1.0
"""With fewer seconds left until the call's deadline nobody is asked any more."""
_MAX_WAIT = 2.0
"""A provider that asks for more than this many seconds is not asked again within the call."""

_OUR_DEADLINE = Judgement(outcome=Outcome.TIMEOUT, has_answered=False)


class Failover:
    """What all calls share: breakers, cooldowns, the retry budget, and how far a call may go.

    `provider_of` is the provider of a deployment, `pools` are the keys of providers that have several. `max_attempts`
    is for routes that say nothing of their own; it may be set at any time. `first_content` is how long, in seconds,
    all attempts of a call may take until the first content.
    """

    def __init__(
        self,
        *,
        registry: BreakerRegistry,
        throttling: Throttling,
        budget: RetryBudget,
        selector: Selector,
        provider_of: Callable[[Deployment], Provider],
        clock: Clock,
        wall: Clock,
        random: Callable[[], float],
        max_attempts: int,
        first_content: float = 600.0,
        pools: Pools | None = None,
    ) -> None:
        self.pools = Pools() if pools is None else pools
        self.registry = registry
        self.throttling = throttling
        self.budget = budget
        self.selector = selector
        self.provider_of = provider_of
        self.clock = clock
        self.wall = wall
        self.random = random
        self.max_attempts = max_attempts
        self.first_content = first_content
        self.failed_bodies = FailedBodies(clock)

    def begin(
        self,
        route: Route,
        *,
        body: bytes,
        started: float,
        affinity: bytes | None = None,
        credentials: WithCredentials = list,
    ) -> AttemptSequence:
        """The attempts of a call with this body that came at `started`. `affinity` is for routes that balance by it.

        `credentials` says with which credentials deployments may be asked, where this is not the same for all calls.
        """
        self.budget.count_request()
        order = self.selector.order(route, affinity)
        return AttemptSequence(self, route, credentials(order), started, body, credentials=credentials)

    def check_forced(self, route: Route) -> None:
        """Raises `CircuitOpenError` where an operator has shut the first deployment of this route."""
        shut = self.registry.forced_open(route.deployments[0])
        if shut is not None:
            raise refusal(route.name, [Obstacle(shut.retry_after, breaker=shut)])


class PlannedAttempt:
    """One attempt that a call may make: at which deployment, and after how many seconds."""

    __slots__ = ("_admission", "_failover", "_latencies", "_pays", "_started", "deployment", "is_shortened", "wait")

    def __init__(
        self, failover: Failover, deployment: Deployment, admission: Admission, *, wait: float, pays: bool
    ) -> None:
        self.deployment = deployment
        self.wait = wait
        self.is_shortened = False
        """Whether its deadlines are those of the whole call: that they are over says nothing of the provider."""
        self._pays = pays
        """Whether it is paid from the retry budget, until it has ended."""
        self._started = failover.clock() + wait
        self._failover = failover
        self._admission: Admission | None = admission
        self._latencies: Latencies | None = None

    def measure(self) -> None:
        """Have the time to the first content counted for the route's choice of the quickest."""
        self._latencies = self._failover.selector.latencies
        self._latencies.begin(self.deployment.key)

    def on_content(self) -> None:
        """The first content has come."""
        if self._admission is not None:
            seconds = self._failover.clock() - self._started
            self._admission.provisional(seconds)
            self._measured(seconds)

    def end(self, judgement: Judgement) -> Admission | None:
        """The attempt has ended. Returns what the breakers have still to be told through; None: it had ended before."""
        admission, self._admission = self._admission, None
        if admission is None:
            return None
        if self._latencies is not None:
            self._measured(self._failover.clock() - self._started if judgement is SUCCEEDED else None)
        self._failover.throttling.learn(self.deployment, judgement)
        if self._pays:
            self._failover.budget.end_retry()
        return admission

    def _measured(self, seconds: float | None) -> None:
        latencies, self._latencies = self._latencies, None
        if latencies is not None:
            latencies.end(self.deployment.key, seconds)


class AttemptSequence:
    """The attempts of one call, one after another, over the deployments of its route."""

    __slots__ = (
        "_attempts",
        "_barred",
        "_body",
        "_credentials",
        "_failover",
        "_first_error",
        "_fresh",
        "_latest",
        "_max_attempts",
        "_obstacles",
        "_repeatable",
        "_route",
        "_taken",
        "_until",
        "_verdicts",
    )

    def __init__(
        self,
        failover: Failover,
        route: Route,
        order: list[Deployment],
        started: float,
        body: bytes,
        *,
        credentials: WithCredentials,
    ) -> None:
        self._failover = failover
        self._route = route
        self._credentials = credentials
        self._fresh = order
        """Deployments that were not asked yet, best first."""
        self._repeatable: list[tuple[Deployment, float]] = []
        """Deployments that failed and may be asked again after so many seconds."""
        self._barred: set[str] = set()
        """Credentials that are of no use to this call."""
        self._taken: set[Fallback] = set()
        self._obstacles: list[Obstacle] = []
        """What stood in the way of each that could not be asked."""
        self._first_error: list[UpstreamError] = []
        """At most one. It is taken out when it is raised: its frames hold this object."""
        self._latest = ""
        """The deployment that was asked last, by its key."""
        self._attempts = 0
        self._max_attempts = route.max_attempts or failover.max_attempts
        self._until = started + failover.first_content
        self._body = body
        self._verdicts: Verdicts | None = None
        """From the first attempt on that did not succeed."""

    def first(self) -> PlannedAttempt:
        """The first attempt. Raises `CircuitOpenError` or `CoolingDownError` when nobody can take the call."""
        planned = self._next_fresh()
        if planned is None:
            raise self._refusal()
        return planned

    def spare(self) -> PlannedAttempt | None:
        """One more attempt beside the one that is under way, at a deployment that was not asked yet.

        It is paid from the retry budget: nothing has failed. Another key would find the same deployment as slow.
        """
        if not self._has_room or not self._failover.budget.has_room:
            return None
        latest, fresh = self._latest, self._fresh
        self._fresh = [deployment for deployment in fresh if deployment.key_name is None or deployment.key != latest]
        held = [deployment for deployment in fresh if deployment.key_name is not None and deployment.key == latest]
        planned = self._next_fresh(pays=True)
        self._fresh = held + self._fresh
        return planned

    def succeeded(self, planned: PlannedAttempt, attempt: Attempt | None) -> None:
        """The attempt returned. An answer that says itself that it failed counts as that."""
        failure = None if attempt is None else attempt.failure
        if failure is None and self._verdicts is None:
            admission = planned.end(SUCCEEDED)
            if admission is not None:  # pragma: no branch  # without one only where it has ended before
                admission.settle(SUCCEEDED)
            return
        self._settle(planned, SUCCEEDED if failure is None else self._judged(planned, failure))
        self._conclude()

    def failed(self, planned: PlannedAttempt, error: BaseException, *, can_move: bool) -> PlannedAttempt | None:
        """The attempt ended with this error. The next one, or None: then the call ends, see `raise_cause`."""
        judgement = self._judged(planned, error)
        if planned.is_shortened and isinstance(error, UpstreamTimeoutError):
            judgement = _OUR_DEADLINE
        self._settle(planned, judgement)
        following = None
        if isinstance(error, TranslationError) and can_move:
            self._attempts -= 1  # nobody was asked
            following = self._next()
        elif isinstance(error, UpstreamError):
            error.outcome = judgement.outcome
            self._first_error = self._first_error or [error]
            may_go_on = self._may_go_on(planned.deployment, judgement)
            following = self._next() if can_move and may_go_on else None
            if following is None and judgement.verdict is Verdict.FAILURE and self._is_spent:
                error.should_retry = False
        if following is None:
            self._conclude()
        return following

    def raise_cause(self, error: BaseException) -> None:
        """Called once, when the call ends with this error: raises the one that it is to end with instead, if any.

        That a deployment could not be told what the client wants is not why the call failed, if another one was asked
        before and failed: then it is that first failure.
        """
        if self._first_error and isinstance(error, TranslationError):
            raise self._first_error.pop() from None
        self._first_error.clear()

    def _judged(self, planned: PlannedAttempt, error: BaseException) -> Judgement:
        judgement = judge(error, wall=self._failover.wall())
        return judged_for_client(judgement) if planned.deployment.payer is Payer.CLIENT else judgement

    def _settle(self, planned: PlannedAttempt, judgement: Judgement) -> None:
        admission = planned.end(judgement)
        if admission is None:
            return
        if self._verdicts is None:
            self._verdicts = Verdicts(self._failover.failed_bodies, self._body)
        self._verdicts.add(planned.deployment.key, admission, judgement)

    def _conclude(self) -> None:
        """Nobody is asked again."""
        if self._verdicts is not None:
            self._verdicts.conclude()

    @property
    def _is_spent(self) -> bool:
        """Whether the client's SDK would only try the same twice more."""
        return self._attempts > 1 or self._attempts >= self._max_attempts

    def _may_go_on(self, deployment: Deployment, judgement: Judgement) -> bool:
        """Whether anybody may be asked after this; notes who may not."""
        if deployment.key_name is not None and not judgement.is_of_credential:  # its other keys would find the same
            self._fresh = [fresh for fresh in self._fresh if fresh.key != deployment.key]
        if judgement.fallback is not None and judgement.fallback not in self._taken:
            self._taken.add(judgement.fallback)
            self._fresh, self._repeatable = self._credentials(_special(self._route, judgement.fallback)), []
            return bool(self._fresh)
        if judgement.retry is Retry.OTHER_CREDENTIAL:
            self._barred.add(deployment.credential)
        elif judgement.retry is Retry.AT_ONCE:
            self._fresh.insert(0, deployment)
        elif judgement.retry is Retry.ANYWHERE and (judgement.min_open or 0.0) <= _MAX_WAIT:
            self._repeatable.append((deployment, judgement.min_open or 0.0))
        return judgement.retry is not Retry.NEVER

    # The next attempt.

    @property
    def _has_room(self) -> bool:
        """Whether number and deadline of the call allow for a further attempt."""
        left = self._until - self._failover.clock()
        return self._attempts < self._max_attempts and left >= _MIN_SECONDS_LEFT

    def _next(self) -> PlannedAttempt | None:
        """Another deployment or key, which costs it no more than one call; else one that failed, if the budget allows.

        Either is one of the attempts that a call has at most; only the second is paid from the retry budget.
        """
        return (self._next_fresh() or self._next_repeat()) if self._has_room else None

    def _next_fresh(self, *, pays: bool = False) -> PlannedAttempt | None:
        while self._fresh:
            deployment = self._fresh.pop(0)
            if deployment.credential in self._barred:
                continue
            wait = self._failover.throttling.wait(deployment)
            if wait > 0:
                why = self._failover.throttling.why(deployment)
                self._obstacles.append(Obstacle(wait, cooldown=why, payer=deployment.payer))
                continue
            planned = self._admitted(deployment, 0.0, pays=pays)
            if planned is not None:
                return planned
        return None

    def _next_repeat(self) -> PlannedAttempt | None:
        """A deployment that failed before, after a pause."""
        while self._repeatable and self._failover.budget.has_room:
            deployment, min_wait = self._repeatable.pop(0)
            requested = max(min_wait, self._failover.throttling.wait(deployment))
            wait = max(requested, backoff(self._attempts - 1, self._failover.random))
            is_late = self._failover.clock() + wait + _MIN_SECONDS_LEFT > self._until
            if deployment.credential in self._barred or requested > _MAX_WAIT or is_late:
                continue
            planned = self._admitted(deployment, wait, pays=True)
            if planned is not None:
                return planned
        return None

    def _admitted(self, deployment: Deployment, wait: float, *, pays: bool) -> PlannedAttempt | None:
        failover = self._failover
        admission = failover.registry.admit(deployment, failover.provider_of(deployment).origin)
        if not isinstance(admission, Admission):
            self._obstacles.append(Obstacle(admission.retry_after, breaker=admission))
            return None
        in_time = self._in_time(deployment, wait) if self._attempts else deployment
        self._attempts += 1
        self._latest = deployment.key
        if pays:
            failover.budget.begin_retry()
        planned = PlannedAttempt(failover, in_time, admission, wait=wait, pays=pays)
        planned.is_shortened = in_time is not deployment
        if self._route.balance is Balance.LATENCY:
            planned.measure()
        return planned

    def _in_time(self, deployment: Deployment, wait: float) -> Deployment:
        """The same with deadlines that fit into what is left of the call's own."""
        left = self._until - self._failover.clock() - wait
        timeouts = deployment.timeouts or self._failover.provider_of(deployment).timeouts
        if max(timeouts.first_byte, timeouts.first_content, timeouts.answer) <= left:
            return deployment
        shorter = msgspec.structs.replace(
            timeouts,
            first_byte=min(timeouts.first_byte, left),
            first_content=min(timeouts.first_content, left),
            answer=min(timeouts.answer, left),
        )
        return msgspec.structs.replace(deployment, timeouts=shorter)

    def _refusal(self) -> UnavailableError:
        return refusal(self._route.name, self._obstacles)


def _special(route: Route, fallback: Fallback) -> tuple[Deployment, ...]:
    return route.on_context_window if fallback is Fallback.CONTEXT_WINDOW else route.on_content_policy
