"""Guards with their rules: what a verdict, a failure and a deadline mean."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.guard.port import PASS, Guarded, GuardRefusedError, Part, Stage, Verdict
from gateway_middleware.guard.rules import Guarding, GuardRule

pytestmark = pytest.mark.anyio
PROMPT = Guarded(
    part=Part.BODY,
    stage=Stage.REQUEST,
    content="x",
    tenant="acme",
    model="m",
    surface="chat",
    dialect="openai",
    request_id="r",
)


class Saying:
    """A guard that gives one verdict, and keeps what it was shown."""

    def __init__(self, verdict: Verdict = PASS) -> None:
        self.verdict = verdict
        self.shown: list[str] = []

    async def __call__(self, guarded: Guarded) -> Verdict:
        self.shown.append(guarded.content)
        return self.verdict


async def dying(_: Guarded) -> Verdict:
    raise RuntimeError("the guard has died")


async def sleeping(_: Guarded) -> Verdict:
    await asyncio.Event().wait()
    return PASS


def guarding(*rules: GuardRule) -> tuple[Guarding, list[tuple[str, str, str]]]:
    told: list[tuple[str, str, str]] = []
    return Guarding(rules, tell=lambda name, _, result, reason: told.append((name, result, reason))), told


async def test_each_guard_sees_what_the_one_before_it_has_left() -> None:
    first, second = Saying(Verdict(action="replace", content="y")), Saying()
    asked, told = guarding(GuardRule(name="a", guard=first), GuardRule(name="b", guard=second))

    assert await asked.check(PROMPT) == "y"
    assert (first.shown, second.shown) == (["x"], ["y"])
    assert told == [("a", "replace", "")]
    assert dict(asked.counts) == {("a", "request", "replace"): 1, ("b", "request", "pass"): 1}


async def test_a_guard_sees_only_its_stages() -> None:
    guard = Saying(Verdict(action="refuse"))
    asked, _ = guarding(GuardRule(name="a", guard=guard, stages=frozenset({Stage.ANSWER})))

    assert await asked.check(PROMPT) is None
    assert guard.shown == []


async def test_a_refusal_says_who_and_why() -> None:
    asked, _ = guarding(GuardRule(name="pii", guard=Saying(Verdict(action="refuse", reason="a card number"))))
    with pytest.raises(GuardRefusedError, match="Refused by the guard pii: a card number"):
        await asked.check(PROMPT)
    silent, _ = guarding(GuardRule(name="pii", guard=Saying(Verdict(action="refuse"))))
    with pytest.raises(GuardRefusedError, match=r"guard pii\."):
        await silent.check(PROMPT)


@pytest.mark.parametrize(("guard", "result"), [(dying, "failed"), (sleeping, "late")])
async def test_a_guard_that_fails_refuses_or_passes_as_its_rule_says(guard: Any, result: str) -> None:
    closed, told = guarding(GuardRule(name="g", guard=guard, deadline=0.01))
    with pytest.raises(UnavailableError) as caught:
        await closed.check(PROMPT)
    assert (caught.value.error_code, caught.value.retry_after) == ("guard_unavailable", 1.0)
    assert told[0][:2] == ("g", result)

    opened, _ = guarding(GuardRule(name="g", guard=guard, deadline=0.01, fails_open=True))
    assert await opened.check(PROMPT) is None


async def test_a_replacement_by_the_same_is_none() -> None:
    asked, told = guarding(GuardRule(name="g", guard=Saying(Verdict(action="replace", content="x"))))
    assert await asked.check(PROMPT) is None
    assert told == []


@pytest.mark.parametrize("guard", [Saying(Verdict(action="refuse")), dying, sleeping])
async def test_in_shadow_nothing_changes_and_nobody_waits(guard: Any) -> None:
    asked, told = guarding(GuardRule(name="g", guard=guard, is_shadow=True, deadline=0.01))
    assert await asked.check(PROMPT) is None
    while not told:
        await asyncio.sleep(0)
    assert told[0][0] == "g"
    await asked.aclose()


async def test_shadows_are_bounded_and_end_with_the_gateway() -> None:
    asked, told = guarding(GuardRule(name="g", guard=sleeping, is_shadow=True, deadline=3600))
    for _ in range(103):
        await asked.check(PROMPT)
    assert [result for _, result, _ in told] == ["skipped"] * 3
    await asked.aclose()
    assert asked.counts["g", "request", "skipped"] == 3
