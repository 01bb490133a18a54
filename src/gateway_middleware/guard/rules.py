"""Guards with their rules: which stages each one sees, how long it may take, and what its failure means."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.guard.port import PASS, Guard, Guarded, GuardRefusedError, Stage, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MAX_SHADOWS = 100
_MAX_REASON = 200
_RETRY_AFTER = 1.0


class GuardRule(msgspec.Struct, frozen=True, kw_only=True):
    """One guard under its name.

    `deadline` is in seconds, for each verdict. When the guard fails or is late, calls pass (`fails_open`) or are
    refused. `is_shadow`: its verdicts are counted and logged, and change nothing; calls do not wait for it. `window`
    and `overlap` are characters of a stream: text is shown once that much is there, and of what was shown the last
    `overlap` are held and shown again, so that what a guard looks for is never cut unless it is longer.
    """

    name: str
    guard: Guard
    stages: frozenset[str] = frozenset(Stage)
    deadline: float = 1.0
    fails_open: bool = False
    is_shadow: bool = False
    window: int = 200
    overlap: int = 64


class Guarding:
    """Asks guards one after the other; each is shown what the one before it has left.

    `tell` hears of every verdict but `pass`: name, what was shown, the verdict (`failed` and `late` as its reason).
    """

    def __init__(self, rules: Sequence[GuardRule], *, tell: Callable[[str, Guarded, str, str], None]) -> None:
        self._tell = tell
        self._shadows: set[asyncio.Task[None]] = set()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """Verdicts by guard, stage and result."""
        self.rules = tuple(rules)

    def of(self, stage: Stage) -> tuple[GuardRule, ...]:
        """The rules of this stage."""
        return tuple(rule for rule in self.rules if stage in rule.stages)

    async def check(self, guarded: Guarded) -> str | None:
        """The content that takes the place of what was shown; None: it stays.

        Raises `GuardRefusedError`, and `UnavailableError` when a guard that must be asked cannot be.
        """
        content: str | None = None
        for rule in self.of(guarded.stage):
            if rule.is_shadow:
                self._shadow(rule, guarded)
                continue
            verdict = await self._ask(rule, guarded)
            if verdict.action == "refuse":
                raise GuardRefusedError(_words(rule, verdict))
            if verdict.action == "replace":
                content = verdict.content
                guarded = msgspec.structs.replace(guarded, content=content)
        return content

    async def _ask(self, rule: GuardRule, guarded: Guarded) -> Verdict:
        try:
            async with asyncio.timeout(rule.deadline):
                verdict = await rule.guard(guarded)
        except Exception as error:  # noqa: BLE001  # whatever a guard raises is its failure, not the call's
            return self._failed(rule, guarded, error)
        if verdict.action == "replace" and verdict.content == guarded.content:
            verdict = PASS
        self._count(rule, guarded, verdict.action, verdict.reason)
        return verdict

    def _failed(self, rule: GuardRule, guarded: Guarded, error: Exception) -> Verdict:
        result = "late" if isinstance(error, TimeoutError) else "failed"
        self._count(rule, guarded, result, type(error).__name__)
        if rule.fails_open or rule.is_shadow:
            return PASS
        message = f"The guard {rule.name}, which has to see this call, cannot be asked."
        raise UnavailableError(message, code="guard_unavailable", retry_after=_RETRY_AFTER) from error

    def _shadow(self, rule: GuardRule, guarded: Guarded) -> None:
        if len(self._shadows) >= _MAX_SHADOWS:
            self._count(rule, guarded, "skipped", "too many at a time")
            return
        task = asyncio.ensure_future(self._ask_in_shadow(rule, guarded))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _ask_in_shadow(self, rule: GuardRule, guarded: Guarded) -> None:
        await self._ask(rule, guarded)

    def _count(self, rule: GuardRule, guarded: Guarded, result: str, reason: str) -> None:
        self.counts[rule.name, guarded.stage.value, result] += 1
        if result != "pass":
            self._tell(rule.name, guarded, result, reason[:_MAX_REASON])

    async def aclose(self) -> None:
        """Nothing is asked in the background any more."""
        tasks = list(self._shadows)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _words(rule: GuardRule, verdict: Verdict) -> str:
    reason = verdict.reason[:_MAX_REASON]
    return f"Refused by the guard {rule.name}: {reason}" if reason else f"Refused by the guard {rule.name}."
