"""The decisions of a policy-adapter: asked once, kept for a while, used a little longer while it cannot be asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from cachetools import LRUCache, TLRUCache

from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.core.single_flight import SingleFlight
from gateway_middleware.policy.decision import Decision, Question

if TYPE_CHECKING:
    from gateway_middleware.core.domain import Clock

_MAX_TENANTS = 10_000
_MAX_DECISIONS = 256
"""Of one tenant, allowed and denied each: no tenant's questions drive out the decisions about another."""
_MAX_ASKING = 16
"""Questions of one tenant under way at a time."""
_PAUSE = 1.0
"""After a failure until the same question is asked again."""
_MAX_TRIES = 3


class PolicyTimes(msgspec.Struct, frozen=True, kw_only=True):
    """For how many seconds decisions are kept (less up to a fifth, by chance), and how long one may take.

    `stale`: for how long after the adapter said so an allowed question stays allowed while it cannot be asked.
    """

    allowed: float = 30.0
    denied: float = 5.0
    stale: float = 300.0
    deadline: float = 1.0


class _Kept(msgspec.Struct, frozen=True):
    decision: Decision
    fresh_until: float
    until: float


class _OfTenant:
    """What is known of one tenant."""

    __slots__ = ("allowed", "denied", "failed", "slots")

    def __init__(self, clock: Clock) -> None:
        self.allowed, self.denied = _cache(clock), _cache(clock)
        self.failed: dict[Question, float] = {}
        self.slots = asyncio.Semaphore(_MAX_ASKING)


def _cache(clock: Clock) -> TLRUCache[Question, _Kept]:
    return TLRUCache(_MAX_DECISIONS, ttu=lambda _question, kept, _now: kept.until, timer=clock)


class Decisions:
    """Decides by `ask`, which raises `FetchError` or `ValueError` when there is no decision.

    While there is none: what was allowed lately stays so; for the rest `allows_on_outage` says, by tenant, whether it
    is let through unchecked. `on_health` hears when the adapter begins to fail (with the reason) and when it is well
    again (None). `counts` are by `allowed`, `denied`, `stale`, `unchecked`, `unavailable`, and by `asked` and `failed`.
    """

    def __init__(
        self,
        ask: Callable[[Question], Awaitable[Decision]],
        *,
        times: PolicyTimes,
        allows_on_outage: Callable[[str], bool],
        clock: Clock,
        random: Callable[[], float],
        on_health: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.times = times
        self.allows_on_outage = allows_on_outage
        self.counts: Counter[str] = Counter()
        self.failure: str | None = None
        """Why the last question that was asked has no answer; None where it has."""
        self._ask = ask
        self._clock = clock
        self._random = random
        self._on_health = on_health
        self._tenants: LRUCache[str, _OfTenant] = LRUCache(_MAX_TENANTS)
        self._flight: SingleFlight[Question, Decision | None] = SingleFlight()

    def __call__(self, question: Question) -> Decision | Awaitable[Decision]:
        """The decision: at once, where it is known. Raises `UnavailableError` where there is none."""
        known = self._known(question)
        if known is None:
            return self._decide(question)
        self.counts["allowed" if known.is_allowed else "denied"] += 1
        return known

    def invalidate(self, tenant: str | None) -> None:
        """Ask anew about this tenant, None: about all. What is being asked now is not kept either."""
        if tenant is None:
            self._tenants.clear()
        else:
            self._tenants.pop(tenant, None)
        self._flight.forget(lambda question: tenant is None or question.tenant == tenant)

    async def aclose(self) -> None:
        """Ask nothing any more."""
        await self._flight.aclose()

    def _known(self, question: Question) -> Decision | None:
        """What needs no question: a fresh decision, or an older one of which was tried in vain to get a newer."""
        of = self._tenants.get(question.tenant)
        if of is None:
            return None
        denied = of.denied.get(question)
        if denied is not None:
            return denied.decision
        kept = of.allowed.get(question)
        if kept is None or self._clock() < kept.fresh_until:
            return None if kept is None else kept.decision
        retry_at = of.failed.get(question)
        if retry_at is None:
            return None
        if self._clock() >= retry_at:
            self._flight.start(question, partial(self._fly, question))
        self.counts["stale"] += 1
        return kept.decision

    async def _decide(self, question: Question) -> Decision:
        for _ in range(_MAX_TRIES):
            of = self._of(question.tenant)
            decision = await self._flight(question, partial(self._fly, question))
            if self._is_current(of, question):
                break
            decision = self._known(question)  # what was said before an invalidation is not what is asked for
            if decision is not None:
                break
        if decision is None:
            return self._without(question)
        self.counts["allowed" if decision.is_allowed else "denied"] += 1
        return decision

    def _without(self, question: Question) -> Decision:
        """The adapter cannot be asked."""
        of = self._tenants.get(question.tenant)
        kept = None if of is None else of.allowed.get(question)
        if kept is not None:
            self.counts["stale"] += 1
            return kept.decision
        if self.allows_on_outage(question.tenant):
            self.counts["unchecked"] += 1
            return Decision(is_allowed=True)
        self.counts["unavailable"] += 1
        raise UnavailableError(
            "Whether this call is allowed cannot be found out now.", code="policy_unavailable", retry_after=_PAUSE
        )

    async def _fly(self, question: Question) -> Decision | None:
        """Ask; None where there is no answer. Never raises: many may wait for this."""
        of = self._of(question.tenant)
        if self._clock() < of.failed.get(question, 0.0):
            return None
        try:
            async with asyncio.timeout(self.times.deadline), of.slots:
                self.counts["asked"] += 1
                decision = await self._ask(question)
        except (TimeoutError, FetchError, ValueError) as error:
            self._note_failure(of, question, str(error) or "no answer in time")
            return None
        of.failed.pop(question, None)
        self._become(None)
        if self._is_current(of, question):
            self._keep(of, question, decision)
        return decision

    def _is_current(self, of: _OfTenant, question: Question) -> bool:
        """Whether nothing has been invalidated meanwhile."""
        return self._tenants.get(question.tenant) is of

    def _of(self, tenant: str) -> _OfTenant:
        of = self._tenants.get(tenant)
        if of is None:
            of = self._tenants[tenant] = _OfTenant(self._clock)
        return of

    def _keep(self, of: _OfTenant, question: Question, decision: Decision) -> None:
        now, part = self._clock(), 1.0 - 0.2 * self._random()
        if decision.is_allowed:
            of.denied.pop(question, None)
            of.allowed[question] = _Kept(decision, now + self.times.allowed * part, now + self.times.stale)
        else:
            of.allowed.pop(question, None)
            of.denied[question] = _Kept(decision, 0.0, now + self.times.denied * part)

    def _note_failure(self, of: _OfTenant, question: Question, reason: str) -> None:
        self.counts["failed"] += 1
        if len(of.failed) >= _MAX_DECISIONS:
            of.failed.clear()
        of.failed[question] = self._clock() + _PAUSE * (0.5 + self._random())
        self._become(reason)

    def _become(self, failure: str | None) -> None:
        was_well, self.failure = self.failure is None, failure
        if was_well != (failure is None):
            self._on_health(failure)
