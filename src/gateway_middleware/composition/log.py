"""The log of a gateway: lines of calls, of provider failures, of breakers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway_middleware.breaker.failure.classes import classify
from gateway_middleware.composition.part import Fixed
from gateway_middleware.edge.access_log import AccessLog
from gateway_middleware.edge.log_line import HumanForm, JsonForm

if TYPE_CHECKING:
    from gateway_middleware.breaker.events import CooldownEvent
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.errors import UpstreamError
    from gateway_middleware.core.record import Attempt, CallRecord
    from gateway_middleware.settings import Settings


class Log(Fixed):
    """The access log as a part: the last to stop. It listens to breakers and to failed attempts.

    `write` takes the bytes of lines (None: standard output); `scrub` removes secrets.
    """

    def __init__(
        self, settings: Settings, write: Callable[[bytes], None] | None, *, scrub: Callable[[str], str]
    ) -> None:
        omits_probes, log_format = not settings.log_probes, settings.log_format
        if write is None:
            self.lines = AccessLog.to_fd(1, log_format=log_format, scrub=scrub, omits_probes=omits_probes)
        else:
            form = HumanForm() if log_format == "human" else JsonForm()
            self.lines = AccessLog(write, form=form, scrub=scrub, omits_probes=omits_probes)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On the way out everything is written."""
        try:
            yield
        finally:
            self.lines.close()

    def provider_error(self, record: CallRecord, attempt: Attempt, error: UpstreamError) -> None:
        """One attempt has failed."""
        self.lines.provider_error(record, attempt, error, kind=classify(error))

    def on_transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        self.lines.transition(
            transition.key, transition.before, transition.after, reason=transition.reason, seconds=transition.seconds
        )

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """A provider has asked for time."""
        self.lines.cooldown(
            cooldown.deployment,
            cooldown.credential,
            cooldown.seconds,
            failure_class=cooldown.failure_class,
            is_alarming=cooldown.is_alarming,
        )
