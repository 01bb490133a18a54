"""What happens to breakers and cooldowns, for everybody who wants to hear of it: log, metrics, other replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from gateway_middleware.breaker.failure.classes import FailureClass
    from gateway_middleware.breaker.state.transitions import Transition


class CooldownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A provider asked for time. `deployment` None: everything under the credential is left alone, for `seconds`.

    `is_alarming`: an operator must look, because no time heals it (a refused key, an exhausted account).
    """

    deployment: str | None
    credential: str
    seconds: float
    failure_class: FailureClass | None = None
    is_alarming: bool = False


class BreakerListener(Protocol):
    """Is told of what this replica has seen itself. Must not raise, and must not wait."""

    def on_transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        ...

    def on_cooldown(self, cooldown: CooldownEvent) -> None:
        """A deployment or a credential is left alone for a while."""
        ...


class BreakerEvents:
    """Passes events on to all who have subscribed, in the order in which they did."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[BreakerListener] = []

    def subscribe(self, listener: BreakerListener) -> None:
        """Tell this one too, from now on."""
        self._listeners.append(listener)

    def transition(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        for listener in self._listeners:
            listener.on_transition(transition)

    def cooldown(self, cooldown: CooldownEvent) -> None:
        """A provider asked for time."""
        for listener in self._listeners:
            listener.on_cooldown(cooldown)
