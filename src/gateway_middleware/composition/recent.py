"""Remembers what happened last to breakers and providers, for `/v1/admin/status`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway_middleware.breaker.failure.classes import classify
from gateway_middleware.operations.recent_events import RecentEvents

if TYPE_CHECKING:
    from gateway_middleware.breaker.events import CooldownEvent
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.clocks import Clocks
    from gateway_middleware.core.errors import UpstreamError
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.upstream.dispatch import OnProviderError


class Recent:
    """Listens to breakers and to failed attempts. `scrub` removes secrets."""

    def __init__(self, clocks: Clocks, *, scrub: Callable[[str], str]) -> None:
        self._recent = RecentEvents(wall=clocks.wall, scrub=scrub)
        self.events = self._recent.events
        self.errors = self._recent.errors

    def provider_error(self, record: CallRecord, attempt: Attempt, error: UpstreamError) -> None:
        """One attempt has failed."""
        self._recent.provider_error(record, attempt, error, classify(error) or type(error).__name__)

    def on_transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        self._recent.transition(
            transition.key,
            transition.before,
            transition.after,
            reason=transition.reason,
            at=transition.at,
            seconds=transition.seconds,
        )

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """A provider has asked for time."""
        key = cooldown.deployment or cooldown.credential
        self._recent.cooldown(key, cooldown.failure_class, cooldown.seconds)


def telling(*listeners: OnProviderError) -> OnProviderError:
    """Tells each of them of a failed attempt, in this order."""

    def tell(record: CallRecord, attempt: Attempt, error: UpstreamError) -> None:
        for listener in listeners:
            listener(record, attempt, error)

    return tell
