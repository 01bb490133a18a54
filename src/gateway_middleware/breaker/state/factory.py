"""Makes circuit breakers that share a clock, a gate and a listener."""

from __future__ import annotations

from random import random as system_random
from typing import TYPE_CHECKING

from gateway_middleware.breaker.state.machine import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_middleware.breaker.state.policy import BreakerPolicy
    from gateway_middleware.breaker.state.probe_gate import ProbeGate
    from gateway_middleware.breaker.state.transitions import Transition
    from gateway_middleware.core.domain import Clock


class BreakerFactory:
    """Everything that breakers have in common. The arguments are those of `CircuitBreaker`."""

    __slots__ = ("_gate", "_on_transition", "_random", "clock", "wall")

    def __init__(
        self,
        *,
        clock: Clock,
        wall: Clock,
        random: Callable[[], float] = system_random,
        on_transition: Callable[[Transition], None] | None = None,
        gate: ProbeGate | None = None,
    ) -> None:
        self.clock = clock
        self.wall = wall
        self._random = random
        self._on_transition = on_transition
        self._gate = gate

    def make(self, key: str, policy: BreakerPolicy) -> CircuitBreaker:
        """A closed breaker of this name."""
        return CircuitBreaker(
            policy,
            key=key,
            clock=self.clock,
            wall=self.wall,
            random=self._random,
            on_transition=self._on_transition,
            gate=self._gate,
        )
