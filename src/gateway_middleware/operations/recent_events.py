"""The last things that happened to breakers, and the last errors of providers, with secrets removed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from gateway_middleware.operations.process_report import Event, ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.core.domain import Clock
    from gateway_middleware.core.errors import UpstreamError
    from gateway_middleware.core.record import Attempt, CallRecord

MAX_EVENTS = 50
MAX_ERRORS = 20
_MAX_TEXT = 300


class RecentEvents:
    """Remembers the latest of each kind. `scrub` takes secrets out of texts."""

    def __init__(self, *, wall: Clock, scrub: Callable[[str], str]) -> None:
        self._wall = wall
        self._scrub = scrub
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._errors: deque[ProviderError] = deque(maxlen=MAX_ERRORS)

    def events(self) -> list[Event]:
        """Of breakers and cooldowns, oldest first."""
        return list(self._events)

    def errors(self) -> list[ProviderError]:
        """Of providers, oldest first."""
        return list(self._errors)

    def transition(self, key: str, before: str, after: str, *, reason: str, at: float, seconds: float | None) -> None:
        """A breaker has changed its state at this time of day."""
        event = Event(
            at=at, kind="transition", key=key, before=before, after=after, reason=self._text(reason), seconds=seconds
        )
        self._events.append(event)

    def cooldown(self, key: str, failure_class: str | None, seconds: float) -> None:
        """A deployment or a provider is left alone for so long."""
        event = Event(at=self._wall(), kind="cooldown", key=key, reason=failure_class or "", seconds=seconds)
        self._events.append(event)

    def provider_error(self, record: CallRecord, attempt: Attempt, error: UpstreamError, error_class: str) -> None:
        """An attempt has failed."""
        self._errors.append(
            ProviderError(
                at=self._wall(),
                deployment=attempt.deployment.key[:_MAX_TEXT],
                error_class=error_class,
                message=self._text(error.message),
                status=attempt.status,
                attempt=len(record.attempts),
                tenant=record.tenant,
                request_id=record.request_id,
            )
        )

    def _text(self, text: str) -> str:
        return self._scrub(text)[:_MAX_TEXT]
