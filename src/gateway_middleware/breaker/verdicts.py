"""What the attempts of one call say of their deployments, told to the breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_middleware.breaker.failed_bodies import digest_of
from gateway_middleware.breaker.failure.rules import BreakerScope, Retry, Verdict

if TYPE_CHECKING:
    from gateway_middleware.breaker.failed_bodies import FailedBodies
    from gateway_middleware.breaker.failure.rules import Judgement
    from gateway_middleware.breaker.state.pairs import Admission


class Verdicts:
    """One piece of evidence for each deployment that a call asked: how the last attempt there ended.

    A probe is judged at once, because other calls wait for it. That the same body fails again at the same deployment
    within 60 s says nothing more of the deployment; that nobody could be reached always does. Each admission ends here.
    """

    __slots__ = ("_body", "_digest", "_failed_bodies", "_unsettled")

    def __init__(self, failed_bodies: FailedBodies, body: bytes) -> None:
        self._failed_bodies = failed_bodies
        self._body = body
        self._digest: bytes | None = None
        self._unsettled: dict[str, tuple[Admission, Judgement]] = {}
        """Failures of deployments that may still succeed in this call, by key."""

    def add(self, deployment: str, admission: Admission, judgement: Judgement) -> None:
        """An attempt has ended: its breakers are told now, or at the end of the call if it may be asked again in it."""
        if judgement.verdict is not Verdict.NEUTRAL and deployment in self._unsettled:
            self._unsettled.pop(deployment)[0].release()
        may_repeat = judgement.verdict is Verdict.FAILURE and judgement.retry is Retry.ANYWHERE
        if may_repeat and not admission.is_probe:
            self._unsettled[deployment] = (admission, judgement)
        else:
            self._tell(deployment, admission, judgement)

    def conclude(self) -> None:
        """The call has ended: nobody is asked again."""
        for deployment, (admission, judgement) in self._unsettled.items():
            self._tell(deployment, admission, judgement)
        self._unsettled.clear()

    def _tell(self, deployment: str, admission: Admission, judgement: Judgement) -> None:
        is_about_body = judgement.verdict is Verdict.FAILURE and judgement.breaker is BreakerScope.DEPLOYMENT
        if is_about_body and not self._is_news(deployment):
            admission.withdraw(has_answered=judgement.has_answered)
        else:
            admission.settle(judgement)

    def _is_news(self, deployment: str) -> bool:
        if self._digest is None:
            self._digest = digest_of(self._body)
        return self._failed_bodies.note(deployment, self._digest)
