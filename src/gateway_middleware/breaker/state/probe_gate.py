"""The port through which a breaker asks whether this replica may send the probe."""

from __future__ import annotations

from typing import Protocol

GATE_PATIENCE = 0.1
"""When to ask a gate again that has said no, in seconds."""


class ProbeGate(Protocol):
    """Says which of several replicas may probe. Called by a half-open breaker; never waits, never raises."""

    def prepare(self, key: str) -> None:
        """A probe of this breaker will be wanted in a moment."""
        ...

    def may_probe(self, key: str, ttl: float) -> bool:
        """Whether this replica may send a probe now, which counts as lost after `ttl` seconds."""
        ...

    def ended(self, key: str, *, again: bool) -> None:
        """The probe has ended. `again`: the breaker is still half open, and the next call would be a probe."""
        ...
