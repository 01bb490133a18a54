"""The ways in which the mock provider answers, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One way to answer: after `wait` seconds, whole or as a stream of `events`, `gap` seconds apart.

    `faults` is the percentage of calls that are answered 500 instead.
    """

    wait: float = 0.0
    events: int = 0
    gap: float = 0.0
    faults: int = 0
    dialect: str = "openai"


KINDS = {
    "chat": Kind(),
    "slow": Kind(wait=0.3),
    "burst": Kind(events=50),
    "paced": Kind(wait=0.02, events=50, gap=0.005),
    "spaced": Kind(events=50, gap=0.02),
    "burst200": Kind(events=200),
    "messages200": Kind(events=200, dialect="anthropic"),
    "faulty": Kind(faults=5),
    "faulty-stream": Kind(events=20, faults=5),
    **{f"length{n}": Kind(events=n) for n in (10, 100, 1_000, 10_000)},
}


def address(port: int, kind: str) -> str:
    """What the gateway takes as `base_url`."""
    suffix = "" if KINDS[kind].dialect == "anthropic" else "/v1"
    return f"http://127.0.0.1:{port}/{kind}{suffix}"
