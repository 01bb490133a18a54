"""Guards as a part: those of the configuration, and those that a host gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector
from starlette.middleware import Middleware

from gateway_middleware.composition.part import Commit, Lifeless
from gateway_middleware.guard.middleware import GuardMiddleware
from gateway_middleware.guard.port import Stage
from gateway_middleware.guard.rules import Guarding, GuardRule
from gateway_middleware.guard.webhook import WebhookGuard
from gateway_middleware.operations.metric import Counter

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway_middleware.composition.log import Log
    from gateway_middleware.core.fetch import Fetch
    from gateway_middleware.guard.port import Guarded
    from gateway_middleware.settings import GuardSettings, Settings

VERDICTS = Counter(
    "model_gateway_guard_verdicts", "Verdicts of guards, and those they failed to give.", ("guard", "stage", "result")
)


class Guards(Lifeless, Collector):
    """Asks the guards that the host gives (`own`), then those of the configuration, which a reload changes."""

    takes = frozenset({"guards"})

    def __init__(self, settings: Settings, own: Sequence[GuardRule], *, fetch: Fetch, log: Log) -> None:
        self._own = tuple(own)
        self._fetch = fetch
        self._log = log.lines
        self._max_bytes = settings.max_answer_bytes
        self.guarding = Guarding(self._rules(settings), tell=self._tell)
        self._is_off = not self.guarding.rules

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out no guard is asked any more."""
        try:
            yield
        finally:
            await self.guarding.aclose()

    def prepare(self, new: Settings) -> Commit:
        """Other guards, for calls that begin from now on."""
        rules = self._rules(new)

        def commit() -> None:
            self.guarding.rules = rules

        return commit

    def layers(self) -> list[Middleware]:
        """The layer, where there are guards, or may be after a reload."""
        return [Middleware(GuardMiddleware, guarding=self.guarding, max_answer_bytes=self._max_bytes)]

    def collectors(self) -> list[Collector]:
        """The metrics."""
        return [self]

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment."""
        yield VERDICTS.family({labels: float(count) for labels, count in self.guarding.counts.items()})

    def _rules(self, settings: Settings) -> tuple[GuardRule, ...]:
        return (*self._own, *(self._rule(guard) for guard in settings.guards))

    def _rule(self, guard: GuardSettings) -> GuardRule:
        webhook = WebhookGuard(
            guard.url, fetch=self._fetch, deadline=guard.deadline, max_bytes=2 * self._max_bytes, token=guard.token
        )
        return GuardRule(
            name=guard.name,
            guard=webhook,
            stages=frozenset(map(Stage, guard.stages)),
            deadline=guard.deadline,
            fails_open=guard.fails_open,
            is_shadow=guard.is_shadow,
            window=guard.window,
            overlap=guard.overlap,
        )

    def _tell(self, name: str, guarded: Guarded, result: str, reason: str) -> None:
        self._log.event(
            "guard",
            level="warning",
            message=f"The guard {name} says: {result}",
            guard=name,
            stage=guarded.stage.value,
            tenant=guarded.tenant,
            request_id=guarded.request_id,
            reason=reason,
        )
