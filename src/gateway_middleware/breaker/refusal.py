"""What a client is told when nobody may be asked: the true cause, and when it is worth coming back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway_middleware.breaker.failure.classes import FailureClass
from gateway_middleware.breaker.failure.rules import RULES
from gateway_middleware.breaker.state.errors import CircuitOpenError, CoolingDownError
from gateway_middleware.breaker.state.pairs import Refusal
from gateway_middleware.breaker.state.transitions import State
from gateway_middleware.core.domain import Payer
from gateway_middleware.core.errors import UnavailableError

_WORDS = {
    FailureClass.PROVIDER_AUTH: "the provider refuses the gateway's own credential",
    FailureClass.MODEL_DENIED: "the gateway's credential may not use the model",
    FailureClass.QUOTA_EXHAUSTED: "the gateway's quota at the provider is used up",
    FailureClass.CREDIT_EXHAUSTED: "the gateway's account at the provider has no credit",
    FailureClass.RATE_LIMITED: "the provider has asked the gateway to wait",
}
_CLIENT_ASKED = "the provider has asked to wait with the credential that came with the call"
_ASKED_TO_WAIT = _WORDS[FailureClass.RATE_LIMITED]


class Obstacle(msgspec.Struct, frozen=True, gc=False):
    """Why one deployment cannot be asked for `seconds`: a breaker, or else a cooldown of that class (None: unknown)."""

    seconds: float
    cooldown: FailureClass | None = None
    breaker: Refusal | None = None
    payer: Payer = Payer.GATEWAY

    @property
    def cause(self) -> str:
        """In words, for the client."""
        if self.breaker is None and self.payer is Payer.CLIENT:
            return _CLIENT_ASKED
        if self.breaker is None:
            word = _ASKED_TO_WAIT if self.cooldown is None else _WORDS.get(self.cooldown, _ASKED_TO_WAIT)
            return word if self.cooldown is None else f"{word} ({self.cooldown})"
        if self.breaker.state is State.FORCED_OPEN:
            return "an operator has shut it off"
        return f"its circuit breaker is {self.breaker.state} after failures"


def refusal(route: str, obstacles: Sequence[Obstacle]) -> UnavailableError:
    """The error for a call whose deployments are all in the way. Its wait is the shortest."""
    wait = min((obstacle.seconds for obstacle in obstacles), default=1.0)
    causes = "; ".join(dict.fromkeys(obstacle.cause for obstacle in obstacles)) or "it has no deployment left"
    message = f"No deployment of `{route}` can take the call now: {causes}."
    if not obstacles or any(obstacle.breaker is not None for obstacle in obstacles):
        return CircuitOpenError(message, retry_after=wait)
    return CoolingDownError(message, retry_after=wait, code=_code({obstacle.cooldown for obstacle in obstacles}))


def _code(classes: set[FailureClass | None]) -> str | None:
    """The class, where it is one for all and nothing that time heals."""
    (only, *others) = classes
    is_lasting = only is not None and not others and RULES[only].is_alarming
    return only.value if is_lasting and only is not None else None
