"""Decisions kept and asked anew: one question for a thousand callers, an outage that changes as little as it can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from clock import Clock
from gateway_middleware.core.errors import UnavailableError
from gateway_middleware.core.fetch import FetchError
from gateway_middleware.policy.decision import Decision, Question
from gateway_middleware.policy.decisions import Decisions, PolicyTimes

pytestmark = pytest.mark.anyio
YES, NO = Decision(is_allowed=True), Decision(is_allowed=False)


def about(tenant: str = "acme", model: str = "m", **more: Any) -> Question:
    return Question(tenant=tenant, key_id=None, action="call", endpoint="chat", surface="chat", model=model, **more)


class Adapter:
    """Answers `decision`, or fails with it; counts the questions."""

    def __init__(self, decision: Decision | Exception = YES, *, opens: bool = False, deadline: float = 1.0) -> None:
        self.decision: Decision | Exception = decision
        self.by_tenant: Callable[[Question], Decision | Exception] | None = None
        self.asked: list[Question] = []
        self.health: list[str | None] = []
        self.gate: asyncio.Event | None = None
        self.clock = Clock()
        self.opens = opens
        self.decisions = Decisions(
            self._ask, times=PolicyTimes(deadline=deadline), allows_on_outage=lambda _: self.opens, clock=self.clock,
            random=lambda: 0.5, on_health=self.health.append,
        )  # fmt: skip

    async def _ask(self, question: Question) -> Decision:
        self.asked.append(question)
        if self.gate is not None:
            await self.gate.wait()
        decision = self.decision if self.by_tenant is None else self.by_tenant(question)
        if isinstance(decision, Exception):
            raise decision
        return decision

    async def decide(self, question: Question | None = None) -> Decision:
        decision = self.decisions(question or about())
        return decision if isinstance(decision, Decision) else await decision


@pytest.mark.parametrize(("decision", "seconds"), [(YES, 27.0), (NO, 4.5)])
async def test_a_decision_is_kept_for_a_while(decision: Decision, seconds: float) -> None:
    adapter = Adapter(decision)
    for _ in range(3):
        assert await adapter.decide() == decision
    adapter.clock.advance(seconds - 0.001)
    assert isinstance(adapter.decisions(about()), Decision)
    adapter.clock.advance(0.001)
    assert await adapter.decide() == decision
    assert len(adapter.asked) == 2


async def test_each_question_has_its_own_decision() -> None:
    adapter = Adapter()
    adapter.by_tenant = lambda q: YES if (q.tenant, q.model, q.key_id) == ("acme", "m", None) else NO
    questions = [
        about(), about(model="other"), about("globex"), about("acme:m", ""), about("acme", "m:"), about(route="m"),
        Question(tenant="acme", key_id="k", action="call", endpoint="chat", surface="chat", model="m"),
        Question(tenant="acme", key_id=None, action="read", endpoint="models"),
    ]  # fmt: skip
    for _ in range(2):
        given = [(await adapter.decide(question)).is_allowed for question in questions]
        assert given == [True, False, False, False, False, True, False, False]
    assert len(adapter.asked) == len(questions)


async def test_a_thousand_callers_are_one_question_and_the_first_may_leave() -> None:
    adapter = Adapter()
    adapter.gate = asyncio.Event()
    callers = [asyncio.ensure_future(adapter.decide()) for _ in range(1000)]
    await asyncio.sleep(0.001)
    callers[0].cancel()
    await asyncio.sleep(0)
    adapter.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results.count(YES) == 999
    assert len(adapter.asked) == 1


@pytest.mark.parametrize("failure", [FetchError("HTTP 500"), ValueError("garbage")])
async def test_who_is_not_known_is_not_let_in_while_it_fails_nor_told_that_he_may_not(failure: Exception) -> None:
    adapter = Adapter(failure)
    for _ in range(100):
        with pytest.raises(UnavailableError) as caught:
            await adapter.decide()
    assert (caught.value.http_status, caught.value.error_code) == (503, "policy_unavailable")
    assert len(adapter.asked) == 1
    adapter.clock.advance(1.0)
    adapter.decision = YES
    assert await adapter.decide() == YES


async def test_it_may_be_slow_but_not_for_us() -> None:
    adapter = Adapter(deadline=0.02)
    adapter.gate = asyncio.Event()
    began = asyncio.get_running_loop().time()
    results = await asyncio.gather(*(adapter.decide() for _ in range(200)), return_exceptions=True)
    assert {type(result) for result in results} == {UnavailableError}
    assert asyncio.get_running_loop().time() - began < 0.5
    assert adapter.health == ["no answer in time"]


async def test_what_was_allowed_lately_stays_so_for_five_minutes_and_only_one_caller_waits() -> None:
    adapter = Adapter()
    await adapter.decide()
    adapter.decision = FetchError("HTTP 503")
    adapter.clock.advance(60)
    assert await adapter.decide() == YES
    for _ in range(100):
        assert adapter.decisions(about()) == YES
    assert len(adapter.asked) == 2
    adapter.clock.advance(239.999)
    assert adapter.decisions(about()) == YES
    await asyncio.sleep(0.001)
    assert len(adapter.asked) == 3
    adapter.clock.advance(1)
    with pytest.raises(UnavailableError):
        await adapter.decide()


async def test_it_is_well_again_by_itself() -> None:
    adapter = Adapter()
    await adapter.decide()
    adapter.decision = FetchError("HTTP 503")
    adapter.clock.advance(60)
    await adapter.decide()
    adapter.decision = NO
    adapter.clock.advance(2)
    assert adapter.decisions(about()) == YES
    await asyncio.sleep(0.001)
    assert adapter.decisions(about()) == NO
    assert adapter.health == ["HTTP 503", None]


async def test_a_no_ends_every_yes_before_it() -> None:
    adapter = Adapter()
    await adapter.decide()
    adapter.clock.advance(30)
    adapter.decision = NO
    assert await adapter.decide() == NO
    adapter.decision = FetchError("HTTP 503")
    adapter.clock.advance(10)
    with pytest.raises(UnavailableError):
        await adapter.decide()


async def test_fail_open_is_a_rule_and_keeps_nothing() -> None:
    adapter = Adapter(FetchError("HTTP 503"), opens=True)
    assert (await adapter.decide()).is_allowed
    adapter.opens = False
    with pytest.raises(UnavailableError):
        await adapter.decide()
    adapter.opens, adapter.decision = True, NO
    adapter.clock.advance(2)
    assert not (await adapter.decide()).is_allowed
    assert adapter.decisions.counts == {"unchecked": 1, "unavailable": 1, "denied": 1, "asked": 2, "failed": 1}


@pytest.mark.parametrize(("tenant", "asked_again"), [("acme", {"acme"}), (None, {"acme", "globex"}), ("x", set())])
async def test_an_invalidation_asks_anew(tenant: str | None, asked_again: set[str]) -> None:
    adapter = Adapter()
    for name in ("acme", "globex"):
        await adapter.decide(about(name))
    adapter.asked.clear()
    adapter.decisions.invalidate(tenant)
    for name in ("acme", "globex"):
        await adapter.decide(about(name))
    assert {question.tenant for question in adapter.asked} == asked_again


async def test_after_an_invalidation_nothing_stale_is_left() -> None:
    adapter = Adapter()
    await adapter.decide()
    adapter.decisions.invalidate("acme")
    adapter.decision = FetchError("HTTP 503")
    with pytest.raises(UnavailableError):
        await adapter.decide()


async def test_an_answer_under_way_does_not_bring_back_what_was_invalidated() -> None:
    adapter = Adapter()
    adapter.gate = asyncio.Event()
    before = asyncio.ensure_future(adapter.decide())
    await asyncio.sleep(0.001)
    adapter.decisions.invalidate("acme")
    adapter.decision, old_gate = NO, adapter.gate
    adapter.gate = None
    assert await adapter.decide() == NO
    adapter.decision = YES
    old_gate.set()
    assert await before == NO
    assert adapter.decisions(about()) == NO


async def test_a_question_that_is_invalidated_whenever_it_is_asked_has_no_answer() -> None:
    adapter = Adapter()

    def answer(question: Question) -> Decision:
        adapter.decisions.invalidate(question.tenant)
        return YES

    adapter.by_tenant = answer
    with pytest.raises(UnavailableError):
        await adapter.decide()
    assert len(adapter.asked) == 3


async def test_invalidations_of_others_disturb_nobody() -> None:
    adapter = Adapter()

    def answer(question: Question) -> Decision:
        adapter.decisions.invalidate("globex")
        return YES

    adapter.by_tenant = answer
    for _ in range(2):
        assert await adapter.decide() == YES
    assert len(adapter.asked) == 1


async def test_no_tenants_questions_drive_out_the_decisions_about_another() -> None:
    adapter = Adapter()
    await adapter.decide(about("victim"))
    for i in range(3000):
        await adapter.decide(about("noisy", f"model-{i}"))
    adapter.decision = FetchError("HTTP 503")
    adapter.clock.advance(100)
    assert await adapter.decide(about("victim")) == YES


async def test_no_tenants_questions_keep_another_from_asking() -> None:
    adapter = Adapter(deadline=0.3)
    adapter.gate = asyncio.Event()
    noisy = [asyncio.ensure_future(adapter.decide(about("noisy", f"m{i}"))) for i in range(500)]
    await asyncio.sleep(0.001)
    assert len(adapter.asked) == 16
    gate, adapter.gate = adapter.gate, None
    assert await adapter.decide(about("victim")) == YES
    gate.set()
    await asyncio.gather(*noisy, return_exceptions=True)


async def test_failures_of_many_questions_fill_no_memory() -> None:
    adapter = Adapter(FetchError("HTTP 503"))
    for i in range(1000):
        with pytest.raises(UnavailableError):
            await adapter.decide(about(model=f"m{i}"))


async def test_closing_stops_asking() -> None:
    adapter = Adapter()
    adapter.gate = asyncio.Event()
    caller = asyncio.ensure_future(adapter.decide())
    await asyncio.sleep(0.001)
    await adapter.decisions.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
