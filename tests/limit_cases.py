"""Limits, claims and a clock for the tests of the limiting room."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Sequence

from gateway_middleware.limiting.limit import Alignment, Claim, Decision, Limit, Store, Unit, limit_key

_count = itertools.count()


def fresh(name: str = "tenant") -> str:
    """A tenant that no other test has."""
    return f"{name}-{next(_count)}"


def rpm(amount: int = 100, *, seconds: int = 60, is_shadow: bool = False) -> Limit:
    return Limit(name="rpm", amount=amount, length=seconds, is_shadow=is_shadow)


def tpm(amount: int = 10_000, *, seconds: int = 60) -> Limit:
    return Limit(name="tpm", amount=amount, unit=Unit.TOKENS, length=seconds)


def slots(amount: int = 5) -> Limit:
    return Limit(name="concurrency", amount=amount, unit=Unit.CONCURRENCY)


def spend(amount: int = 1_000_000, alignment: Alignment = Alignment.MONTHS, length: int = 1) -> Limit:
    return Limit(name="spend", amount=amount, unit=Unit.SPEND, length=length, alignment=alignment)


def claim(tenant: str, limit: Limit, cost: int = 1) -> Claim:
    return Claim(limit_key(tenant, limit), limit, cost)


async def admit(store: Store, claims: Sequence[Claim], owner: bytes = b"owner", *, is_dry: bool = False) -> Decision:
    decision = store.admit(claims, owner, is_dry=is_dry)
    return decision if isinstance(decision, Decision) else await decision


async def settled(sent: Awaitable[object] | None) -> None:
    """Wait for what a store has sent, if it has."""
    if sent is not None:
        await sent
