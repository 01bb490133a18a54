"""The policy-adapter as a part: asked by every call of a tenant, told about nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client.registry import Collector
from starlette.middleware import Middleware

from gateway_middleware.composition.config import revealed
from gateway_middleware.composition.part import Commit, Fixed, Lifeless
from gateway_middleware.core.errors import PathNotFoundError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.limiting.quota import Quota, overridden
from gateway_middleware.operations.metric import Aggregation, Counter, Gauge
from gateway_middleware.policy.decision import MAX_BYTES, Decision, Question, read_answer
from gateway_middleware.policy.decisions import Decisions, PolicyTimes
from gateway_middleware.policy.middleware import PolicyMiddleware

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway_middleware.composition.fleet import Fleet
    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.domain import LimitOverrides
    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.fleet.entries import Entry
    from gateway_middleware.operations.admin import Requester
    from gateway_middleware.settings import Settings

KIND = "policy"
EVERYBODY = "*"
_MARGIN_SECONDS = 60.0
_OK = 200
_RESULTS = ("allowed", "denied", "stale", "unchecked", "unavailable")
DECISIONS = Counter("model_gateway_policy_decisions", "Decisions about calls of tenants.", labels=("result",))
QUESTIONS = Counter("model_gateway_policy_questions", "Questions to the policy-adapter.")
FAILURES = Counter("model_gateway_policy_failures", "Questions to the policy-adapter that have no answer.")
FAILING = Gauge(
    "model_gateway_policy_failing",
    "1 while the last question to the policy-adapter has no answer.",
    aggregation=Aggregation.MAX,
)


class Invalidation(msgspec.Struct, frozen=True):
    """Who wants to have decisions asked anew: for the audit lines of those who are told."""

    by: str


_decode = msgspec.json.Decoder(Invalidation).decode


class Policy(Lifeless, Collector):
    """The decisions of the adapter at `settings.policy_adapter_url`.

    A reload gives it other times, token and rules. What an operator invalidates is invalidated in every process.
    """

    takes = frozenset({
        "policy_adapter_token", "policy_timeout_seconds", "policy_allowed_seconds", "policy_denied_seconds",
        "policy_stale_seconds", "policy_on_outage", "tenants",
    })  # fmt: skip

    def __init__(self, settings: Settings, url: str, clocks: Clocks, *, fetch: Fetch, fleet: Fleet, log: Log) -> None:
        self._url = url
        self._fetch = fetch
        self._fleet = fleet
        self._log = log.lines
        self._token = revealed(settings.policy_adapter_token)
        self.decisions = Decisions(
            self._ask,
            times=_times(settings),
            allows_on_outage=_rule(settings),
            clock=clocks.monotonic,
            random=clocks.random,
            on_health=self._note_health,
        )
        fleet.on(KIND, self._hear)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out nothing is asked any more."""
        try:
            yield
        finally:
            await self.decisions.aclose()

    def prepare(self, new: Settings) -> Commit:
        """Other times, token and rules."""
        times, rule, token = _times(new), _rule(new), revealed(new.policy_adapter_token)

        def commit() -> None:
            self.decisions.times, self.decisions.allows_on_outage, self._token = times, rule, token

        return commit

    def layers(self) -> list[Middleware]:
        """The layer after intake."""
        return [Middleware(PolicyMiddleware, decide=self.decisions)]

    async def invalidate(self, tenant: str, by: Requester) -> dict[str, Any]:
        """Have this tenant (empty: everybody) asked about anew, in every process."""
        self._log.audit("policy invalidated", tenant=tenant or EVERYBODY, client=by.client, request_id=by.request_id)
        self.decisions.invalidate(tenant or None)
        body = Invalidation(f"{by.client} at {self._fleet.name}")
        # For longer than a process that was away may have kept a decision.
        seconds = self.decisions.times.stale + _MARGIN_SECONDS
        is_shared = await self._fleet.publish(KIND, tenant or EVERYBODY, body, seconds=seconds)
        return {"tenant": tenant or None, "is_shared": is_shared}

    @property
    def failure(self) -> str | None:
        """Why the adapter has not answered the last question; None where it has."""
        return self.decisions.failure

    def health(self) -> dict[str, Any]:
        """The part of `/v1/health`."""
        return {"status": "ok" if self.failure is None else "failing"}

    def collectors(self) -> list[Collector]:
        """The metrics."""
        return [self]

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment."""
        counts = self.decisions.counts
        yield DECISIONS.family({(result,): counts[result] for result in _RESULTS})
        yield QUESTIONS.family(counts["asked"])
        yield FAILURES.family(counts["failed"])
        yield FAILING.family(self.failure is not None)

    async def _ask(self, question: Question) -> Decision:
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        answer = await self._fetch(
            "POST",
            self._url,
            headers=headers,
            body=question.body,
            deadline=self.decisions.times.deadline,
            max_bytes=MAX_BYTES,
        )
        if answer.status != _OK:
            raise FetchError(f"HTTP {answer.status}")
        return read_answer(answer.body, _check_limits)

    def _hear(self, entry: Entry) -> None:
        tenant = None if entry.key == EVERYBODY else entry.key
        self._log.audit("policy invalidated", tenant=entry.key, client=_decode(entry.body).by)
        self.decisions.invalidate(tenant)

    def _note_health(self, failure: str | None) -> None:
        if failure is None:
            self._log.event("policy_adapter", level="warning", message="The policy-adapter answers again.")
            return
        message = f"The policy-adapter does not answer: {failure}"
        self._log.event("policy_adapter", level="error", message=message, reason=failure)


class PolicyOff(Fixed, Lifeless):
    """No policy-adapter: whoever is known may call."""

    failure: str | None = None

    def layers(self) -> list[Middleware]:
        """Nothing is asked."""
        return []

    def collectors(self) -> list[Collector]:
        """Nothing is counted."""
        return []

    def health(self) -> dict[str, Any]:
        """The part of `/v1/health`."""
        return {"status": "off"}

    async def invalidate(self, tenant: str, by: Requester) -> dict[str, Any]:
        """Raises `PathNotFoundError`."""
        raise PathNotFoundError("No policy-adapter is configured.", code="no_policy_adapter")


def build_policy(settings: Settings, clocks: Clocks, *, fetch: Fetch, fleet: Fleet, log: Log) -> Policy | PolicyOff:
    """As configured."""
    url = settings.policy_adapter_url
    return PolicyOff() if url is None else Policy(settings, url, clocks, fetch=fetch, fleet=fleet, log=log)


def _times(settings: Settings) -> PolicyTimes:
    return PolicyTimes(
        allowed=settings.policy_allowed_seconds,
        denied=settings.policy_denied_seconds,
        stale=max(settings.policy_stale_seconds, settings.policy_allowed_seconds),
        deadline=settings.policy_timeout_seconds,
    )


def _rule(settings: Settings) -> Callable[[str], bool]:
    """Whether a tenant's calls pass unchecked while the adapter cannot be asked."""
    default = settings.policy_on_outage == "allow"
    own = {t.name: t.on_policy_outage == "allow" for t in settings.tenants if t.on_policy_outage is not None}
    return lambda tenant: own.get(tenant, default)


def _check_limits(limits: LimitOverrides) -> None:
    overridden(Quota(), limits)
